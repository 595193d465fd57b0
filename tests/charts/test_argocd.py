"""Test that Applications point at charts and values that exist, and have no more rights than they need."""

import re
from collections.abc import Mapping
from functools import cache
from itertools import pairwise
from pathlib import PurePosixPath
from typing import Any

import pytest
import yaml
from rendering import (
    REPOSITORY,
    Object,
    RenderError,
    label,
    merged_values,
    of_kind,
    pod_template,
    render,
    validate,
    values_file,
)
from scenarios import SCENARIOS

ENVIRONMENTS = ("staging", "production")
EVERY_VARIANT: list[tuple[str, Mapping[str, Any]]] = [
    *(("whisperline", values) for values in SCENARIOS.values()),
    ("data", {"postgres": {"backup": {"enabled": True, "destinationPath": "s3://b/p", "secret": {"name": "s"}}}}),
]


@cache
def environment(name: str) -> list[Object]:
    """Render the app of apps as the root Application of an environment renders it."""
    return render("argocd", values_file(f"charts/argocd/environments/{name}/argocd.yaml"), namespace="argocd")


def applications(name: str) -> dict[str, Object]:
    return {found["metadata"]["name"]: found for found in of_kind(environment(name), "Application")}


def root(name: str) -> Object:
    """Return the root Application of an environment."""
    (found,) = of_kind(yaml.safe_load_all((REPOSITORY / f"charts/argocd/roots/{name}.yaml").read_text()), "Application")
    return found


def resolved(application: Object) -> list[Object]:
    """Render what an Application of this repository points at, as Argo CD does: later value files win."""
    source = application["spec"]["source"]
    files = [_inside(source["path"], name) for name in source["helm"]["valueFiles"]]
    chart = PurePosixPath(source["path"]).name
    assert source["path"] == f"charts/{chart}"
    namespace = application["spec"]["destination"]["namespace"]
    return render(
        chart, merged_values(*map(values_file, files)), name=source["helm"]["releaseName"], namespace=namespace
    )


def _inside(path: str, name: str) -> str:
    file = (REPOSITORY / path / name).resolve()
    assert file.is_relative_to(REPOSITORY), f"{name} of {path} lies outside the repository"
    assert file.is_file(), f"{name} of {path} is not there"
    return str(file.relative_to(REPOSITORY))


def kinds(objects: list[Object]) -> set[tuple[str, str]]:
    return {(found["apiVersion"].rpartition("/")[0], found["kind"]) for found in objects}


def allowed(project: Object, scope: str = "namespaceResourceWhitelist") -> set[tuple[str, str]]:
    return {(entry["group"], entry["kind"]) for entry in project["spec"][scope]}


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_the_app_of_apps_is_valid(name: str) -> None:
    """Every Application and project of an environment satisfies Argo CD's own schema."""
    validate(environment(name))


@pytest.mark.parametrize("name", ENVIRONMENTS)
@pytest.mark.parametrize("application", ["data", "whisperline"])
def test_an_application_of_this_repository_renders(name: str, application: str) -> None:
    """The chart that an Application points at exists, renders with its environment's values, and is valid."""
    objects = resolved(applications(name)[application])
    validate(objects)
    assert objects


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_a_root_application_leads_to_its_environment(name: str) -> None:
    """The root Application renders the app of apps with the environment's own values, inside its project's rights."""
    project, root = yaml.safe_load_all((REPOSITORY / f"charts/argocd/roots/{name}.yaml").read_text())
    validate([project, root])
    objects = resolved(root)
    assert {found["metadata"]["labels"]["whisperline.io/environment"] for found in objects} == {name}
    assert kinds(objects) == allowed(project) | allowed(project, "clusterResourceWhitelist")
    assert root["spec"]["project"] == project["metadata"]["name"]


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_every_application_is_within_its_project(name: str) -> None:
    """An Application's source and destination are among those that its project allows."""
    projects = {found["metadata"]["name"]: found["spec"] for found in of_kind(environment(name), "AppProject")}
    for application in applications(name).values():
        project = projects[application["spec"]["project"]]
        assert application["spec"]["source"]["repoURL"] in project["sourceRepos"]
        assert application["spec"]["destination"] in project["destinations"]


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_an_operator_may_act_where_it_watches(name: str) -> None:
    """Strimzi's chart binds its roles in the namespaces that it watches; its project allows them, and they are ours."""
    watched = applications(name)["strimzi"]["spec"]["source"]["helm"]["valuesObject"]["watchNamespaces"]
    projects = {found["metadata"]["name"]: found["spec"] for found in of_kind(environment(name), "AppProject")}
    destinations = {entry["namespace"] for entry in projects["whisperline-platform"]["destinations"]}
    assert set(watched) <= destinations
    assert watched == [found["metadata"]["name"] for found in of_kind(environment(name), "Namespace")]


def test_the_project_allows_the_kinds_that_are_made_and_no_others() -> None:
    """The project allows every kind that some variant of our charts creates, and no other kind."""
    project = next(
        found for found in of_kind(environment("staging"), "AppProject") if found["metadata"]["name"] == "whisperline"
    )
    made = set[tuple[str, str]]()
    for name in ENVIRONMENTS:
        made |= kinds(resolved(applications(name)["data"])) | kinds(resolved(applications(name)["whisperline"]))
    for chart, values in EVERY_VARIANT:
        made |= kinds(render(chart, values))
    assert made == allowed(project)
    assert project["spec"]["clusterResourceWhitelist"] == []


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_nothing_that_holds_data_is_pruned(name: str) -> None:
    """No sync deletes data, an operator or the namespace, and deleting an Application deletes nothing."""
    found = applications(name)
    for application in found.values():
        assert "finalizers" not in application["metadata"]
        assert application["spec"]["syncPolicy"]["automated"]["prune"] == (application is found["whisperline"])
    kept = [*of_kind(environment(name), "Namespace"), found["data"]]
    assert {one["metadata"]["annotations"]["argocd.argoproj.io/sync-options"] for one in kept} == {
        "Prune=false,Delete=false"
    }


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_a_sync_heals_and_is_tried_again(name: str) -> None:
    """Every Application heals itself, applies on the server, and repeats a failed sync with the newest commit."""
    for application in [*applications(name).values(), root(name)]:
        policy = application["spec"]["syncPolicy"]
        assert policy["automated"]["selfHeal"]
        assert "ServerSideApply=true" in policy["syncOptions"]
        assert policy["retry"]["limit"] > 1
        assert policy["retry"]["refresh"]
        assert policy["retry"]["backoff"] == {"duration": "10s", "factor": 2, "maxDuration": "5m"}


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_a_sync_ends(name: str) -> None:
    """A sync that never finishes is ended so that a revert gets its turn, later than the pauses between attempts."""
    limit_s = int(values_file("charts/argocd/install.yaml")["configs"]["params"]["controller.sync.timeout.seconds"])
    for application in [*applications(name).values(), root(name)]:
        attempts = application["spec"]["syncPolicy"]["retry"]["limit"]
        assert sum(min(10 * 2**attempt, 300) for attempt in range(1, attempts + 1)) < limit_s
    for job in of_kind(resolved(applications(name)["whisperline"]), "Job"):
        assert job["spec"]["activeDeadlineSeconds"] <= 900


def placed(name: str) -> list[tuple[str, Object]]:
    """Return the rules that spread Whisperline's pods in an environment, with the names of their workloads."""
    objects = resolved(applications(name)["whisperline"])
    templates = [(label(found), pod_template(found)) for found in objects]
    return [
        (owner, rule)
        for owner, template in templates
        if template is not None
        for rule in template["spec"].get("topologySpreadConstraints", [])
    ]


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_no_pod_insists_on_a_zone(name: str) -> None:
    """No pod insists on a zone: autoscalers do not choose the zone of a node, so it could wait for ever."""
    zones = [(owner, rule) for owner, rule in placed(name) if rule["topologyKey"] == "topology.kubernetes.io/zone"]
    assert len(zones) == 4
    assert [owner for owner, rule in zones if rule["whenUnsatisfiable"] != "ScheduleAnyway"] == []


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_an_operator_that_is_scraped_comes_after_the_kind_of_monitors(name: str) -> None:
    """An operator with a PodMonitor is in a later wave than kube-prometheus-stack, which brings that kind."""
    found = applications(name)
    stack = int(found["kube-prometheus-stack"]["metadata"]["annotations"]["argocd.argoproj.io/sync-wave"])
    scraped = [
        one for one in found.values() if "Monitor': {'enabled': True" in str(one["spec"]["source"].get("helm", {}))
    ]
    assert [one["metadata"]["name"] for one in scraped] == ["keda"]
    for one in scraped:
        assert int(one["metadata"]["annotations"]["argocd.argoproj.io/sync-wave"]) > stack


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_the_waves_go_from_namespace_to_whisperline(name: str) -> None:
    """The waves are: namespace, projects, operators, data, Whisperline."""

    def wave(found: Object) -> int:
        return int(found["metadata"]["annotations"]["argocd.argoproj.io/sync-wave"])

    objects = environment(name)
    found = applications(name)
    platform = [one for one in found.values() if one["spec"]["project"] == "whisperline-platform"]
    steps = [
        of_kind(objects, "Namespace"),
        of_kind(objects, "AppProject"),
        platform,
        [found["data"]],
        [found["whisperline"]],
    ]
    for earlier, later in pairwise(steps):
        assert max(map(wave, earlier)) < min(map(wave, later))
    assert wave(found["cert-manager"]) < wave(found["plugin-barman-cloud"])


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_replicas_are_left_to_what_scales_them(name: str) -> None:
    """Argo CD ignores differences in the replicas that KEDA sets, and no others."""
    application = applications(name)["whisperline"]
    scaled = {
        (target["kind"], target["name"])
        for target in (found["spec"]["scaleTargetRef"] for found in of_kind(resolved(application), "ScaledObject"))
    }
    ignored = application["spec"]["ignoreDifferences"]
    assert {(entry["kind"], entry["name"]) for entry in ignored} == scaled
    assert {pointer for entry in ignored for pointer in entry["jsonPointers"]} == {"/spec/replicas"}
    assert "RespectIgnoreDifferences=true" in application["spec"]["syncPolicy"]["syncOptions"]


def test_upstream_charts_are_pinned() -> None:
    """Every upstream chart has one full version, from a source with TLS."""
    for application in applications("production").values():
        source = application["spec"]["source"]
        if "chart" in source:
            assert re.fullmatch(r"v?\d+\.\d+\.\d+", source["targetRevision"])
            assert source["repoURL"].startswith("https://")


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_partitions_agree(name: str) -> None:
    """charts/data creates as many partitions as charts/whisperline expects."""
    found = applications(name)
    topics = {
        one["spec"]["topicName"]: one["spec"]["partitions"] for one in of_kind(resolved(found["data"]), "KafkaTopic")
    }
    if not topics:
        pytest.skip("Kafka is managed, and its topics are not made by charts/data")
    layers = [values_file("charts/whisperline/values.yaml")]
    layers += [
        values_file(_inside("charts/whisperline", file))
        for file in found["whisperline"]["spec"]["source"]["helm"]["valueFiles"]
    ]
    partitions = merged_values(*layers)["kafka"]["partitions"]
    assert partitions == {"audio": topics["audio_chunks"], "reply": topics["transcriptions"]}


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_the_namespace_holds_to_restricted_pods(name: str) -> None:
    """Pods of Whisperline and its data run under the restricted Pod Security Standard."""
    (namespace,) = of_kind(environment(name), "Namespace")
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    assert {"name": "STRIMZI_POD_SECURITY_PROVIDER_CLASS", "value": "restricted"} in applications(name)["strimzi"][
        "spec"
    ]["source"]["helm"]["valuesObject"]["extraEnvs"]


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"environment": "stagin"}, "environment"),
        ({"environment": "staging", "platform": {"keda": {"version": "latest"}}}, "version"),
        ({"environment": "staging", "platform": {"keda": {"versoin": "2.0.0"}}}, "versoin"),
        ({"environment": "staging", "repositry": {}}, "repositry"),
        ({"environment": "staging", "global": {}}, "global"),
        ({"environment": "staging", "repository": {"url": "http://example.com/x.git"}}, "url"),
    ],
)
def test_a_wrong_value_is_refused_by_name(values: dict[str, Any], named: str) -> None:
    """A misspelt key or an invalid value is refused, and the message names it."""
    with pytest.raises(RenderError, match=named):
        render("argocd", values)


def test_application_health_is_configured() -> None:
    """Argo CD's installation values let it judge the health of an Application; without that, waves do not wait."""
    settings = values_file("charts/argocd/install.yaml")["configs"]["cm"]
    assert "obj.status.health.status" in settings["resource.customizations.health.argoproj.io_Application"]
