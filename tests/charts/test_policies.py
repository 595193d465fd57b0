"""Test what every pod of charts/whisperline must satisfy, in every scenario."""

import re
from typing import Any

import pytest
from rendering import Object, label, of_kind, validate
from scenarios import IMAGES, SCENARIOS, component, containers, rendered, varied, workloads

EVERY = pytest.mark.parametrize("scenario", SCENARIOS)
REFERENCE = re.compile(r"[a-z0-9.:/_-]+[a-z0-9](@sha256:[0-9a-f]{64}|:[A-Za-z0-9_][A-Za-z0-9._-]{0,127})")


def pods(scenario: str) -> list[tuple[str, Object]]:
    """Return the pod templates of a scenario, with the names of their workloads."""
    return [(label(found), template) for found, template in workloads(rendered(scenario))]


@EVERY
def test_every_object_is_what_its_schema_allows(scenario: str) -> None:
    """Every object satisfies its schema; unknown fields and wrong types are refused, also in custom resources."""
    validate(rendered(scenario))


@EVERY
def test_no_two_objects_have_the_same_name(scenario: str) -> None:
    """Names are unique within a kind, because a later object would replace an earlier one."""
    names = [label(found) for found in rendered(scenario)]
    assert len(names) == len(set(names))


@EVERY
def test_pods_are_restricted(scenario: str) -> None:
    """Pods meet the Pod Security Standard `restricted`: no root, privileges, capabilities; a system-call filter."""
    for name, template in pods(scenario):
        security = template["spec"]["securityContext"]
        assert security["runAsNonRoot"] is True, name
        assert security["runAsUser"] == security["runAsGroup"] == 65532, name
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert not {"hostNetwork", "hostPID", "hostIPC", "hostUsers"} & set(template["spec"]), name
        for container in containers(template):
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }, name


@EVERY
def test_pods_have_no_way_into_the_api(scenario: str) -> None:
    """Each component has an account of its own, and no token is mounted."""
    accounts = {found["metadata"]["name"]: found for found in of_kind(rendered(scenario), "ServiceAccount")}
    used = []
    for name, template in pods(scenario):
        assert template["spec"]["automountServiceAccountToken"] is False, name
        used.append(template["spec"]["serviceAccountName"])
        assert accounts[used[-1]]["automountServiceAccountToken"] is False, name
    assert sorted(used) == sorted(accounts)


@EVERY
def test_containers_ask_for_what_they_may_use(scenario: str) -> None:
    """Containers have requests and limits for processor and memory, and volumes in memory are bounded."""
    for name, template in pods(scenario):
        for container in containers(template):
            for kind in ("requests", "limits"):
                assert {"cpu", "memory"} <= set(container["resources"][kind]), (name, kind)
        for volume in template["spec"]["volumes"]:
            assert "emptyDir" not in volume or volume["emptyDir"]["sizeLimit"], name


@EVERY
def test_what_runs_on_has_three_probes(scenario: str) -> None:
    """Every long-running container has a startup, a readiness and a liveness probe; jobs need none."""
    for name, template in pods(scenario):
        for container in template["spec"]["containers"]:
            found = {kind for kind in container if kind.endswith("Probe")}
            expected = set() if name.startswith("Job/") else {"startupProbe", "readinessProbe", "livenessProbe"}
            assert found == expected, name


@EVERY
def test_images_are_pinned(scenario: str) -> None:
    """Every image, those of volumes included, has a digest or a full tag, never `latest`."""
    for name, template in pods(scenario):
        images = [container["image"] for container in containers(template)]
        images += [volume["image"]["reference"] for volume in template["spec"]["volumes"] if "image" in volume]
        for image in images:
            assert REFERENCE.fullmatch(image), (name, image)
            assert not image.endswith(":latest"), name


def test_a_digest_wins_over_a_tag() -> None:
    """An image with both is referenced by its digest, so that the tested content runs."""
    for _, template in workloads(rendered("digests")):
        assert all("@sha256:" in container["image"] for container in containers(template))
    volumes = component(rendered("digests"), "triton")["spec"]["template"]["spec"]["volumes"]
    assert [volume["image"]["reference"][-72:-64] for volume in volumes if "image" in volume] == ["@sha256:"]


def settings(template: Object) -> dict[str, Any]:
    """Return the environment of a pod's one container."""
    (container,) = template["spec"]["containers"]
    return {variable["name"]: variable.get("value") for variable in container.get("env", [])}


def argument(template: Object, name: str) -> str:
    """Return an argument `--name=value` of a pod's one container."""
    (container,) = template["spec"]["containers"]
    (found,) = (text for text in container["args"] if text.startswith(f"--{name}="))
    return str(found.partition("=")[2])


def takes_s(template: Object) -> float:
    """Return the longest time in seconds that a pod's process takes to end, according to the READMEs."""
    env = settings(template)
    match template["metadata"]["labels"]["app.kubernetes.io/component"]:
        case "gateway":
            return float(env["WHISPERLINE_GATEWAY_DRAIN_TIMEOUT_S"]) + 12
        case "transcriber":
            return float(env["WHISPERLINE_TRANSCRIBER_DRAIN_DEADLINE_S"]) + 10
        case "persistence":
            return float(env["WHISPERLINE_PERSISTENCE_SHUTDOWN_MS"]) / 1000 + 5
    return float(argument(template, "exit-timeout-secs")) + 5


def test_a_drain_lasts_as_long_as_the_values_say() -> None:
    """drainSeconds reaches each process in its own unit, seconds or milliseconds."""
    found = {name: component(rendered("long drains"), name)["spec"]["template"] for name in IMAGES}
    assert settings(found["gateway"])["WHISPERLINE_GATEWAY_DRAIN_TIMEOUT_S"] == "120"
    assert settings(found["transcriber"])["WHISPERLINE_TRANSCRIBER_DRAIN_DEADLINE_S"] == "120"
    assert settings(found["persistence"])["WHISPERLINE_PERSISTENCE_SHUTDOWN_MS"] == "120000"
    assert argument(found["triton"], "exit-timeout-secs") == "120"


@EVERY
def test_pods_have_longer_to_end_than_their_processes_take(scenario: str) -> None:
    """Kubernetes waits for the pause before SIGTERM, the drain and the end, and kills only a process that hangs."""
    for name, template in pods(scenario):
        if name.startswith("Job/"):
            continue
        (container,) = template["spec"]["containers"]
        pause_s = container.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
        assert template["spec"]["terminationGracePeriodSeconds"] > takes_s(template) + pause_s, name


@EVERY
def test_a_roll_out_takes_no_pod_away_before_its_successor_is_ready(scenario: str) -> None:
    """Deployments add a pod before they remove one, except where there is no spare GPU."""
    for deployment in of_kind(rendered(scenario), "Deployment"):
        rolling = deployment["spec"]["strategy"]["rollingUpdate"]
        scarce = scenario in ("scarce GPUs", "staging") and deployment["metadata"]["name"].endswith("-triton")
        assert rolling == ({"maxUnavailable": 1, "maxSurge": 0} if scarce else {"maxUnavailable": 0, "maxSurge": 1})


@EVERY
def test_pods_of_a_component_are_spread(scenario: str) -> None:
    """Pods of a component spread over zones and nodes, by labels that they carry."""
    for name, template in pods(scenario):
        if name.startswith("Job/"):
            continue
        spread = template["spec"]["topologySpreadConstraints"]
        assert {rule["topologyKey"] for rule in spread} == {"topology.kubernetes.io/zone", "kubernetes.io/hostname"}
        for rule in spread:
            assert rule["labelSelector"]["matchLabels"].items() <= template["metadata"]["labels"].items(), name


def test_triton_has_its_gpus_and_its_shared_memory() -> None:
    """Triton's GPUs are limits under the device plugin's name, and /dev/shm has 1 GiB instead of the usual 64 MB."""
    template = component(rendered("defaults"), "triton")["spec"]["template"]
    (container,) = template["spec"]["containers"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == 1
    (shared,) = (volume for volume in template["spec"]["volumes"] if volume["name"] == "shared-memory")
    assert shared["emptyDir"] == {"medium": "Memory", "sizeLimit": "1Gi"}
    assert {"name": "shared-memory", "mountPath": "/dev/shm"} in container["volumeMounts"]  # noqa: S108 - no file
    on_processors = component(rendered("processors"), "triton")["spec"]["template"]["spec"]["containers"][0]
    assert "nvidia.com/gpu" not in on_processors["resources"]["limits"]


def test_another_canary_restarts_nothing() -> None:
    """A new canary changes the ConfigMap that Triton reads again, and leaves Triton's pods unchanged."""
    before, after = rendered("canary"), varied("canary", {"model": {"default": 4, "canary": None}})
    assert component(before, "triton") == component(after, "triton")
    assert of_kind(before, "ConfigMap") != of_kind(after, "ConfigMap")
