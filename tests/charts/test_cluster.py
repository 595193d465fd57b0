"""Apply all of an environment to a real API server. `make test-cluster` builds the server and runs these tests."""

import copy
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from control_plane import Cluster, NotAccepted, control_plane, module_definitions, schema_definition
from rendering import Object, label, of_kind, pod_template, render
from test_argocd import ENVIRONMENTS, EVERY_VARIANT, applications, environment, resolved

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.skipif(
        "WHISPERLINE_CLUSTER" not in os.environ, reason="make test-cluster builds an API server and names its folder"
    ),
]

PROGRAMS = Path(os.environ.get("WHISPERLINE_CLUSTER", ""))
# No Go module with the definitions of these projects is available, so they are made from the schemas.
WITHOUT_MODULE = [
    ("kafka.strimzi.io/v1", "Kafka"),
    ("kafka.strimzi.io/v1", "KafkaNodePool"),
    ("kafka.strimzi.io/v1", "KafkaTopic"),
    ("kafka.strimzi.io/v1", "KafkaUser"),
    ("postgresql.cnpg.io/v1", "Cluster"),
    ("postgresql.cnpg.io/v1", "ScheduledBackup"),
    ("secrets-store.csi.x-k8s.io/v1", "SecretProviderClass"),
]
NAMESPACE = "whisperline"


@dataclass(frozen=True)
class Applied:
    """A cluster, and the objects of an environment as they were sent to it."""

    cluster: Cluster
    objects: list[Object]


@pytest.fixture(scope="module", params=ENVIRONMENTS)
def applied(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Applied]:
    """Yield a fresh cluster to which an environment was applied: namespaces, Applications, data, Whisperline."""
    name: str = request.param
    with control_plane(PROGRAMS, tmp_path_factory.mktemp(f"cluster-{name}")) as cluster:
        cluster.define(module_definitions(PROGRAMS / "crds"))
        cluster.define(schema_definition(api, kind) for api, kind in WITHOUT_MODULE)
        cluster.define([schema_definition("azmonitoring.coreos.com/v1", "PodMonitor", like="monitoring.coreos.com")])
        cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "argocd"}}, "")
        top = environment(name)
        found = applications(name)
        objects = [*of_kind(top, "Namespace"), *(one for one in top if one["kind"] != "Namespace")]
        objects += resolved(found["data"]) + resolved(found["whisperline"])
        for one in objects:
            cluster.apply(one, NAMESPACE)
        yield Applied(cluster, objects)


def deployment(applied: Applied, name: str) -> Object:
    return copy.deepcopy(next(one for one in of_kind(applied.objects, "Deployment") if one["metadata"]["name"] == name))


def pods(objects: list[Object]) -> Iterator[Object]:
    for one in objects:
        template = pod_template(one)
        if template:
            metadata = {**template["metadata"], "name": one["metadata"]["name"]}
            yield {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]}


def test_every_object_is_there(applied: Applied) -> None:
    """Every applied object can be read back with all its fields."""
    for one in applied.objects:
        kept = applied.cluster.get(one, NAMESPACE)
        assert kept["metadata"]["name"] == one["metadata"]["name"]
        assert missing(one.get("spec", {}), kept.get("spec", {})) == [], label(one)


def test_applying_again_changes_nothing(applied: Applied) -> None:
    """A second sync writes nothing, so Argo CD finds everything as it is in Git."""
    for one in applied.objects:
        before = applied.cluster.get(one, NAMESPACE)["metadata"]["resourceVersion"]
        assert applied.cluster.apply(one, NAMESPACE)["metadata"]["resourceVersion"] == before, label(one)


def test_every_pod_is_admitted_as_restricted(applied: Applied) -> None:
    """The namespace enforces the restricted Pod Security Standard, and every workload's pod passes it."""
    admitted = [applied.cluster.admit(pod, NAMESPACE) for pod in pods(applied.objects)]
    assert len(admitted) >= 5


def test_a_pod_that_may_be_root_is_refused(applied: Applied) -> None:
    """The admission above refuses: the same pod without one line of its security is not let in."""
    pod = copy.deepcopy(next(pods([deployment(applied, "whisperline-transcriber")])))
    pod["spec"]["containers"][0]["securityContext"]["allowPrivilegeEscalation"] = True
    with pytest.raises(NotAccepted, match="violates PodSecurity"):
        applied.cluster.admit(pod, NAMESPACE)


def test_the_model_comes_as_an_image_volume(applied: Applied) -> None:
    """The server of this version keeps image volumes without a feature gate."""
    kept = applied.cluster.get(deployment(applied, "whisperline-triton"), NAMESPACE)
    volumes = kept["spec"]["template"]["spec"]["volumes"]
    assert [one["image"]["reference"] for one in volumes if "image" in one]


def test_an_unknown_field_is_refused_by_name(applied: Applied) -> None:
    """A misspelt field of a workload or a custom resource is refused, not silently dropped."""
    wrong = deployment(applied, "whisperline-transcriber")
    wrong["spec"]["template"]["spec"]["terminationGracePeriodSecond"] = 30
    kafka = copy.deepcopy(of_kind(applied.objects, "Kafka")[0])
    kafka["spec"]["kafka"]["replikas"] = 3
    for one, field in ((wrong, "terminationGracePeriodSecond"), (kafka, "replikas")):
        with pytest.raises(NotAccepted, match=field):
            applied.cluster.apply(one, NAMESPACE)


def test_a_wrong_value_is_refused_by_name(applied: Applied) -> None:
    """The server refuses an operation that Kafka does not know, and a selector that does not select its own pods."""
    user = copy.deepcopy(of_kind(applied.objects, "KafkaUser")[0])
    user["spec"]["authorization"]["acls"][0]["operations"] = ["Reed"]
    wrong = deployment(applied, "whisperline-persistence")
    wrong["metadata"]["name"] = "other"
    wrong["spec"]["selector"]["matchLabels"] = {"app": "other"}
    for one, field in ((user, "operations"), (wrong, "selector")):
        with pytest.raises(NotAccepted, match=field):
            applied.cluster.apply(one, NAMESPACE)


def test_every_variant_is_accepted(applied: Applied) -> None:
    """The server accepts the objects of every scenario: Ingress, HTTPRoute, secrets from a vault or store, backups."""
    for number, (chart, values) in enumerate(EVERY_VARIANT):
        namespace = f"variant-{number}"
        applied.cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}, "")
        for one in render(chart, values, namespace=namespace):
            applied.cluster.apply(one, namespace)


def missing(sent: object, kept: object, path: str = "") -> list[str]:
    """Return the paths that were sent and cannot be read back. The server may add fields and write other units."""
    if isinstance(sent, dict):
        known = kept if isinstance(kept, dict) else {}
        return [
            gap
            for key, value in sent.items()
            if value not in (None, {}, [])
            for gap in ([f"{path}.{key}"] if key not in known else missing(value, known[key], f"{path}.{key}"))
        ]
    if isinstance(sent, list) and isinstance(kept, list):
        if len(sent) != len(kept):
            return [path]
        return [
            gap
            for number, pair in enumerate(zip(sent, kept, strict=True))
            for gap in missing(*pair, f"{path}[{number}]")
        ]
    return []
