"""Test that whatever an object of charts/whisperline names exists: pods, ports, accounts, secrets, settings."""

import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import trustme
import yaml
from rendering import Object, label, of_kind, render
from scenarios import SCENARIOS, component, containers, rendered, workloads
from whisperline_gateway.settings import Settings as Gateway
from whisperline_persistence.settings import Settings as Persistence
from whisperline_runtime.__main__ import Settings as Topics
from whisperline_runtime.probes import Probes
from whisperline_runtime.settings import ProcessSettings
from whisperline_transcriber.settings import Settings as Transcriber

EVERY = pytest.mark.parametrize("scenario", SCENARIOS)
SECRETS = "/etc/whisperline/secrets"
WEB = Path(__file__).parents[2] / "gateway/whisperline_gateway/web"
SETTINGS: dict[str, type[ProcessSettings]] = {
    "gateway": Gateway,
    "transcriber": Transcriber,
    "persistence": Persistence,
    "migrations": Persistence,
    "topics": Topics,
}


def selected(objects: list[Object], selector: dict[str, str]) -> list[tuple[str, Object]]:
    """Return the workloads whose pods a selector chooses, each with its pod template."""
    found = ((label(owner), template) for owner, template in workloads(objects))
    return [(name, template) for name, template in found if selector.items() <= template["metadata"]["labels"].items()]


def ports(template: Object) -> dict[str, int]:
    """Return the ports of a pod by name."""
    found = (port for container in containers(template) for port in container.get("ports", []))
    return {port["name"]: port["containerPort"] for port in found}


@EVERY
def test_services_and_budgets_choose_the_pods_of_one_workload(scenario: str) -> None:
    """A Service selects one workload's pods and ports that they have; each long-running workload has one budget."""
    objects = rendered(scenario)
    for service in of_kind(objects, "Service"):
        ((_, template),) = selected(objects, service["spec"]["selector"])
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= set(ports(template)), label(service)
    budgets = [
        selected(objects, found["spec"]["selector"]["matchLabels"]) for found in of_kind(objects, "PodDisruptionBudget")
    ]
    running = [label(owner) for owner, _ in workloads(objects) if owner["kind"] != "Job"]
    assert sorted(name for ((name, _),) in budgets) == sorted(running)


@EVERY
def test_workloads_choose_their_own_pods(scenario: str) -> None:
    """The selector of a workload matches its own pods and no others."""
    for owner, template in workloads(rendered(scenario)):
        if owner["kind"] != "Job":
            assert selected(rendered(scenario), owner["spec"]["selector"]["matchLabels"]) == [(label(owner), template)]


def test_the_headless_service_of_the_gateways_is_there() -> None:
    """The headless Service that the gateway's StatefulSet names exists; without it the pods have no names."""
    objects = rendered("defaults")
    name = component(objects, "gateway")["spec"]["serviceName"]
    assert [
        found["spec"]["clusterIP"] for found in of_kind(objects, "Service") if found["metadata"]["name"] == name
    ] == ["None"]


@EVERY
def test_an_autoscaler_has_its_workload_to_itself(scenario: str) -> None:
    """A workload has a number of replicas or an autoscaler, never both: a sync would undo the scaling."""
    objects = rendered(scenario)
    scaled = {
        (found["spec"]["scaleTargetRef"]["kind"], found["spec"]["scaleTargetRef"]["name"]): found
        for found in of_kind(objects, "ScaledObject")
    }
    running = {
        (owner["kind"], owner["metadata"]["name"]): owner for owner, _ in workloads(objects) if owner["kind"] != "Job"
    }
    assert set(scaled) <= set(running)
    for key, owner in running.items():
        assert ("replicas" in owner["spec"]) != (key in scaled), key


@EVERY
def test_autoscalers_have_a_fallback_and_two_pods_at_least(scenario: str) -> None:
    """Autoscalers keep at least two pods (staging one), have a fallback, and remove one pod at a time."""
    least = 1 if scenario == "staging" else 2
    for found in of_kind(rendered(scenario), "ScaledObject"):
        spec = found["spec"]
        assert least <= spec["minReplicaCount"] <= spec["fallback"]["replicas"] <= spec["maxReplicaCount"], label(found)
        down = spec["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]["scaleDown"]
        assert down["stabilizationWindowSeconds"] >= 300
        ((policy),) = down["policies"]
        assert policy["type"] == "Pods"
        assert policy["value"] == 1


@EVERY
def test_monitors_read_a_port_that_the_pods_have(scenario: str) -> None:
    """With monitors on, every long-running workload has one, on a port that its pods open."""
    objects = rendered(scenario)
    read = []
    for monitor in of_kind(objects, "PodMonitor"):
        ((name, template),) = selected(objects, monitor["spec"]["selector"]["matchLabels"])
        assert {endpoint["port"] for endpoint in monitor["spec"]["podMetricsEndpoints"]} <= set(ports(template))
        read.append(name)
    running = [label(owner) for owner, _ in workloads(objects) if owner["kind"] != "Job"]
    assert sorted(read) == (sorted(running) if scenario != "bare" else [])


@EVERY
def test_pods_mount_what_is_there(scenario: str) -> None:
    """Every mount has its volume, every volume is mounted, and objects that a volume needs are rendered."""
    objects = rendered(scenario)
    made = {(found["kind"], found["metadata"]["name"]) for found in objects}
    for owner, template in workloads(objects):
        volumes = {volume["name"]: volume for volume in template["spec"]["volumes"]}
        mounted = {mount["name"] for container in containers(template) for mount in container["volumeMounts"]}
        assert mounted == set(volumes), label(owner)
        for volume in volumes.values():
            if "configMap" in volume:
                assert ("ConfigMap", volume["configMap"]["name"]) in made
            if "csi" in volume:
                assert ("SecretProviderClass", volume["csi"]["volumeAttributes"]["secretProviderClass"]) in made
            if scenario == "external secrets" and volume["name"] == "secrets":
                assert ("ExternalSecret", volume["secret"]["secretName"]) in made


def secret_files(objects: list[Object], template: Object) -> set[str]:
    """Return the names of the files in a pod's folder of secrets, whatever their source."""
    made = {(found["kind"], found["metadata"]["name"]): found for found in objects}
    files = set()
    for volume in (volume for volume in template["spec"]["volumes"] if volume["name"] == "secrets"):
        if "projected" in volume:
            files |= {item["path"] for source in volume["projected"]["sources"] for item in source["secret"]["items"]}
        elif "csi" in volume:
            vault = made["SecretProviderClass", volume["csi"]["volumeAttributes"]["secretProviderClass"]]
            array = yaml.safe_load(vault["spec"]["parameters"]["objects"])["array"]
            files |= {yaml.safe_load(item)["objectAlias"] for item in array}
        else:
            stored = made["ExternalSecret", volume["secret"]["secretName"]]
            files |= {item["secretKey"] for item in stored["spec"]["data"]}
    return files


def environment(template: Object, certificates: Path, secrets: Path) -> dict[str, str]:
    """Return a pod's environment as its process sees it, with two folders replaced by folders of this machine."""
    (container,) = template["spec"]["containers"]
    env: dict[str, str] = {variable["name"]: variable.get("value", "5") for variable in container["env"]}
    replaced = {SECRETS: str(secrets), "/etc/whisperline/kafka-ca/ca.crt": str(certificates)}
    return {name: replaced.get(value, value) for name, value in env.items()}


@EVERY
def test_the_deployables_take_the_settings_that_they_are_given(
    scenario: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each process's own code accepts its environment and secret files: nothing is unknown, nothing is missing."""
    certificates = tmp_path / "ca.crt"
    trustme.CA().cert_pem.write_to_path(str(certificates))
    for _, template in workloads(rendered(scenario)):
        name = template["metadata"]["labels"]["app.kubernetes.io/component"]
        if name == "triton":
            continue
        secrets = tmp_path / name
        secrets.mkdir()
        files = secret_files(rendered(scenario), template)
        for file in files:
            (secrets / file).write_text("postgresql://user:password@host/whisperline")
        prefix = str(SETTINGS[name].model_config["env_prefix"])
        with monkeypatch.context() as patched:
            env = environment(template, certificates, secrets)
            env.setdefault("WHISPERLINE_TRANSCRIBER_VAD_MODEL", __file__)  # set by the image
            for variable, value in env.items():
                patched.setenv(variable, value)
            settings = SETTINGS[name].read()
        known = {f"{prefix}{field}".upper() for field in SETTINGS[name].model_fields}
        given = {variable for variable in env if variable != "WHISPERLINE_SECRETS_DIR"}
        own = {variable for variable in given | {file.upper() for file in files} if variable.startswith(prefix)}
        assert own <= known, (name, own - known)
        assert {file.upper() for file in files} <= known, name
        if name != "migrations":
            assert settings.kafka_bootstrap == env[f"{prefix}KAFKA_BOOTSTRAP"]


@EVERY
def test_what_pods_and_probes_run_is_there(scenario: str) -> None:
    """Pods and probes run modules of ours that exist, with arguments that these accept."""
    for owner, template in workloads(rendered(scenario)):
        for container in template["spec"]["containers"]:
            probes = [
                container[kind]["exec"] for kind in container if kind.endswith("Probe") and "exec" in container[kind]
            ]
            for python, flag, module, *arguments in (
                run["command"] for run in [container, *probes] if run["command"][0] == "python"
            ):
                assert (python, flag) == ("python", "-m"), label(owner)
                source = find_spec(f"{module}.__main__" if "." not in module else module)
                assert source is not None, module
                text = Path(str(source.origin)).read_text()
                assert all(f'"{argument}"' in text for argument in arguments), label(owner)


def variables(scenario: str, name: str) -> dict[str, str]:
    """Return the environment of a component's container; variables that the pod fills in are empty."""
    (container,) = component(rendered(scenario), name)["spec"]["template"]["spec"]["containers"]
    return {variable["name"]: variable.get("value", "") for variable in container.get("env", [])}


TRACED = ("gateway", "transcriber", "persistence", "triton")


@pytest.mark.parametrize("scenario", [name for name in SCENARIOS if name != "traces"])
def test_nothing_is_traced_without_an_endpoint(scenario: str) -> None:
    """Without an endpoint no container has an OTEL_ variable, so the SDK is not even loaded."""
    for _, template in workloads(rendered(scenario)):
        for container in containers(template):
            assert not [variable for variable in container.get("env", []) if variable["name"].startswith("OTEL_")]


@pytest.mark.parametrize("name", TRACED)
def test_spans_are_sent_to_the_endpoint_that_is_given(name: str) -> None:
    """Each traced process sends spans to the endpoint under its own name, with attributes that say where it runs."""
    found = {key: value for key, value in variables("traces", name).items() if key.startswith("OTEL_")}
    attributes = dict(pair.split("=") for pair in found.pop("OTEL_RESOURCE_ATTRIBUTES").split(","))
    assert found == {
        "OTEL_SERVICE_NAME": f"whisperline-{name}",
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector.tracing.svc:4317",
        "OTEL_EXPORTER_OTLP_HEADERS": "X-Scope-OrgID=speech",
        "OTEL_TRACES_SAMPLER": "parentbased_traceidratio",
        "OTEL_TRACES_SAMPLER_ARG": "0.1",
    }
    assert attributes == {
        "service.namespace": "whisperline",
        "service.version": "0.1.0",
        "service.instance.id": "$(POD_NAME)",
        "k8s.namespace.name": "whisperline",
        "k8s.pod.name": "$(POD_NAME)",
        "deployment.environment.name": "test",
    }


@pytest.mark.parametrize("name", TRACED)
def test_a_pod_knows_its_name_before_it_is_used(name: str) -> None:
    """POD_NAME precedes the variables that contain $(POD_NAME), because Kubernetes expands only earlier ones."""
    names = list(variables("traces", name))
    assert names.index("POD_NAME") < names.index("OTEL_RESOURCE_ATTRIBUTES")


def test_the_trace_reaches_the_model() -> None:
    """Triton forwards the header that carries the trace to the model, and no other."""
    (container,) = component(rendered("defaults"), "triton")["spec"]["template"]["spec"]["containers"]
    forwarded = [argument for argument in container["args"] if "header-forward-pattern" in argument]
    assert forwarded == ["--grpc-header-forward-pattern=traceparent"]


PROBES = {
    "gateway": ("/health/live", "/health/ready"),
    "transcriber": ("/health/live", "/health/ready"),
    "persistence": ("/health/live", "/health/ready"),
}


@pytest.mark.parametrize("name", PROBES)
def test_probes_ask_for_paths_that_are_answered(name: str) -> None:
    """Startup and liveness ask for /health/live, readiness for /health/ready, and the process answers both."""
    (container,) = component(rendered("defaults"), name)["spec"]["template"]["spec"]["containers"]
    live, ready = PROBES[name]
    asked = {kind: container[kind]["httpGet"]["path"] for kind in container if kind.endswith("Probe")}
    assert asked == {"startupProbe": live, "livenessProbe": live, "readinessProbe": ready}
    ask = Probes(lambda: None)
    assert {ask.answer(path).status for path in (live, ready)} == {200}


def test_settings_arrive_as_they_were_written() -> None:
    """Numbers reach a process as they were written; Helm alone would turn two million into 2.097152e+06."""
    found = {name: component(rendered("settings"), name)["spec"]["template"] for name in ("gateway", "transcriber")}
    gateway, transcriber = (
        {variable["name"]: variable.get("value") for variable in template["spec"]["containers"][0]["env"]}
        for template in found.values()
    )
    assert gateway["WHISPERLINE_GATEWAY_MAX_FRAME_BYTES"] == "2097152"
    assert gateway["WHISPERLINE_GATEWAY_LOG_LEVEL"] == "DEBUG"
    assert gateway["WHISPERLINE_GATEWAY_ALLOWED_ORIGINS"] == '["https://a.org"]'
    assert transcriber["WHISPERLINE_TRANSCRIBER_ROLLOUT_KEEP_S"] == "0.5"


def test_a_container_gets_its_own_secrets_and_no_others() -> None:
    """The transcriber has no access to the database, and the migrations have none to Kafka."""
    objects = rendered("defaults")
    found = {
        template["metadata"]["labels"]["app.kubernetes.io/component"]: secret_files(objects, template)
        for _, template in workloads(objects)
    }
    assert found == {
        "gateway": {
            "whisperline_gateway_token_secret",
            "whisperline_gateway_database_url",
            "whisperline_gateway_kafka_sasl_password",
        },
        "transcriber": {"whisperline_transcriber_kafka_sasl_password"},
        "persistence": {"whisperline_persistence_database_url", "whisperline_persistence_kafka_sasl_password"},
        "migrations": {"whisperline_persistence_database_url"},
        "triton": set(),
    }


@EVERY
def test_no_secret_is_in_a_manifest(scenario: str) -> None:
    """No Secret is rendered, and no environment variable takes one."""
    assert of_kind(rendered(scenario), "Secret") == []
    assert "secretKeyRef" not in yaml.safe_dump(rendered(scenario))


def test_a_gateway_takes_its_ordinal_from_its_pod() -> None:
    """The ordinal comes from the pod's label, which StatefulSets set since Kubernetes 1.28."""
    (container,) = component(rendered("defaults"), "gateway")["spec"]["template"]["spec"]["containers"]
    (ordinal,) = (variable for variable in container["env"] if variable["name"].endswith("_ORDINAL"))
    path = ordinal["valueFrom"]["fieldRef"]["fieldPath"]
    assert path == "metadata.labels['apps.kubernetes.io/pod-index']"


def test_transcribers_balance_over_all_pods_of_triton() -> None:
    """The transcriber's URL names Triton's headless Service, so that gRPC looks up every pod."""
    objects = render("whisperline", name="a", namespace="b")
    (container,) = component(objects, "transcriber")["spec"]["template"]["spec"]["containers"]
    (url,) = (variable["value"] for variable in container["env"] if variable["name"].endswith("_TRITON_URL"))
    (service,) = (found for found in of_kind(objects, "Service") if found["metadata"]["name"] == "a-triton")
    assert url == "dns:///a-triton.b.svc:8001"
    assert service["spec"]["clusterIP"] == "None"


@pytest.mark.parametrize("kind", ["Ingress", "HTTPRoute"])
def test_clients_reach_the_protocols_and_the_page_and_nothing_else(kind: str) -> None:
    """Ingress and HTTPRoute expose /v1 and every file of the page, but neither metrics nor health."""
    objects = rendered({"Ingress": "ingress", "HTTPRoute": "gateway API"}[kind])
    (found,) = of_kind(objects, kind)
    text = yaml.safe_dump(found["spec"])
    exact = {f"/{file.name}" for file in WEB.iterdir()} | {"/"}
    assert set(re.findall(r"(?:path|value): (/\S*)", text)) == exact | {"/v1"}
    assert len(re.findall("Prefix", text)) == 1
    assert backends(found) == {("whisperline-gateway", 80)}


def backends(found: Object) -> set[tuple[str, Any]]:
    """Return the names and ports of the Services behind an Ingress or an HTTPRoute, with port names resolved."""
    if found["kind"] == "HTTPRoute":
        return {(item["name"], item["port"]) for rule in found["spec"]["rules"] for item in rule["backendRefs"]}
    paths = found["spec"]["rules"][0]["http"]["paths"]
    services = [path["backend"]["service"] for path in paths]
    named = {port["name"]: port["port"] for port in of_kind(rendered("ingress"), "Service")[0]["spec"]["ports"]}
    return {(service["name"], named[service["port"]["name"]]) for service in services}


def test_sockets_may_be_quiet_for_long() -> None:
    """ingress-nginx keeps a quiet socket for an hour, the Gateway API for ever; the gateway itself closes dead ones."""
    (ingress,) = of_kind(rendered("ingress"), "Ingress")
    annotations = ingress["metadata"]["annotations"]
    for name in ("proxy-read-timeout", "proxy-send-timeout"):
        assert annotations[f"nginx.ingress.kubernetes.io/{name}"] == "3600"
    assert annotations["cert-manager.io/cluster-issuer"] == "letsencrypt"
    (route,) = of_kind(rendered("gateway API"), "HTTPRoute")
    assert route["spec"]["rules"][0]["timeouts"] == {"request": "0s", "backendRequest": "0s"}


@EVERY
def test_jobs_run_before_what_needs_them(scenario: str) -> None:
    """Jobs run before an upgrade under Helm, in an earlier wave under Argo CD, and may run twice."""
    objects = rendered(scenario)
    waves = {
        label(found): int(found["metadata"].get("annotations", {}).get("argocd.argoproj.io/sync-wave", 0))
        for found in objects
    }
    for job in of_kind(objects, "Job"):
        annotations = job["metadata"]["annotations"]
        assert annotations["argocd.argoproj.io/hook"] == "Sync"
        assert "pre-upgrade" in annotations["helm.sh/hook"]
        assert annotations["helm.sh/hook-delete-policy"] == "before-hook-creation"
        template = job["spec"]["template"]["spec"]
        assert waves[f"ServiceAccount/{template['serviceAccountName']}"] < waves[label(job)] < 0
        for needed in of_kind(objects, "ExternalSecret", "SecretProviderClass", "NetworkPolicy"):
            assert waves[label(needed)] < waves[label(job)]
    assert all(waves[label(owner)] == 0 for owner, _ in workloads(objects) if owner["kind"] != "Job")


def test_jobs_wait_for_the_first_secrets_that_helm_makes() -> None:
    """Jobs that need secrets which Helm creates after its hooks run after the first installation."""
    for scenario, when in (
        ("defaults", "pre-install"),
        ("external secrets", "post-install"),
        ("key vault", "post-install"),
    ):
        for job in of_kind(rendered(scenario), "Job"):
            assert job["metadata"]["annotations"]["helm.sh/hook"] == f"{when},pre-upgrade"
