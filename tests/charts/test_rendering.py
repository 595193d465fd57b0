"""Test the harness itself: which objects it accepts and which it refuses."""

import copy
from pathlib import Path

import pytest
import yaml
from rendering import CHARTS, InvalidObject, RenderError, label, merged_values, render, validate
from scenarios import SCENARIOS, rendered

FOUND = {found["kind"]: found for scenario in SCENARIOS for found in rendered(scenario)}
LISTS = {
    "HTTPRoute": "rules",
    "PodMonitor": "podMetricsEndpoints",
    "ScaledObject": "triggers",
    "PrometheusRule": "groups",
    "ExternalSecret": "data",
}


@pytest.mark.parametrize("kind", sorted(set(FOUND) - {"ConfigMap", "ServiceAccount"}))
def test_an_unknown_field_is_refused_in_every_kind_that_the_chart_uses(kind: str) -> None:
    """An unknown field is refused in Kubernetes' own kinds and in custom resources."""
    changed = copy.deepcopy(FOUND[kind])
    changed["spec"]["replicass"] = 2
    with pytest.raises(InvalidObject, match=f"{label(changed)}.*replicass"):
        validate([changed])


@pytest.mark.parametrize(("kind", "field"), LISTS.items())
def test_an_unknown_field_is_refused_deeper_in_custom_resources(kind: str, field: str) -> None:
    """An unknown field is refused in the items of a custom resource's lists."""
    changed = copy.deepcopy(FOUND[kind])
    changed["spec"][field][0]["misspelt"] = 2
    with pytest.raises(InvalidObject, match="misspelt"):
        validate([changed])


def test_a_wrong_type_is_refused() -> None:
    """A number is refused where text is required."""
    changed = copy.deepcopy(FOUND["ScaledObject"])
    changed["spec"]["triggers"][0]["metadata"]["threshold"] = 700
    with pytest.raises(InvalidObject, match="700 is not of type 'string'"):
        validate([changed])


def test_a_kind_without_a_schema_is_refused() -> None:
    """An object of a kind without a schema is refused, so that nothing passes unchecked."""
    with pytest.raises(InvalidObject, match=r"there is no schema of example\.org/v1 Thing"):
        validate([{"apiVersion": "example.org/v1", "kind": "Thing", "metadata": {"name": "a"}}])


def test_a_key_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    """A repeated key is refused, as by the API server; PyYAML alone would take the last one."""
    (tmp_path / "templates").mkdir()
    (tmp_path / "Chart.yaml").write_text("{apiVersion: v2, name: twice, version: 0.1.0}")
    (tmp_path / "templates/a.yaml").write_text("apiVersion: v1\nkind: ConfigMap\nkind: Secret\n")
    with pytest.raises(yaml.constructor.ConstructorError, match="'kind' is there twice"):
        render(tmp_path)


def test_a_chart_that_does_not_render_says_why() -> None:
    """A rendering error carries Helm's own message."""
    with pytest.raises(RenderError, match="gateway: 99 pods need as many reply partitions"):
        render(CHARTS / "whisperline", {"gateway": {"autoscaling": {"maxReplicas": 99}}})


def test_values_are_merged_as_helm_does() -> None:
    """Maps are merged key by key, lists are replaced as a whole."""
    assert merged_values({"a": {"b": 1, "c": [1]}}, {"a": {"c": [2]}}) == {"a": {"b": 1, "c": [2]}}
