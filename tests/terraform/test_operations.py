"""Test that the charts accept what docs/operations.md tells people to write."""

import re
import textwrap
from typing import Any

import pytest
import rendering
import yaml
from configuration import ROOT

GUIDE = ROOT / "docs" / "operations.md"
SOMEBODY = "00000000-0000-0000-0000-000000000001"
CHARTS = {"argocd": "argocd.yaml", "data": "data.yaml", "whisperline": "whisperline.yaml"}


def examples(chapter: str = "") -> list[dict[str, Any]]:
    """Return the values in the YAML of the guide, or of one chapter, with placeholders filled in."""
    text = GUIDE.read_text()
    if chapter:
        text = re.split(r"^##", text.partition(f"# {chapter}\n")[2], flags=re.MULTILINE)[0]
    found = re.findall(r"^ *```yaml\n(.*?)^ *```", text, re.MULTILINE | re.DOTALL)
    return [yaml.safe_load(_filled(textwrap.dedent(one))) for one in found]


def _filled(text: str) -> str:
    ids = re.sub(r"\b(CLIENT|TENANT)_ID\b", SOMEBODY, text)
    return ids.replace("QUERY_ENDPOINT", "https://workspace.westeurope.prometheus.monitor.azure.com")


def overlaid(base: Any, values: Any) -> Any:
    """Return `base` as Helm sees it after one more file of values."""
    if not (isinstance(base, dict) and isinstance(values, dict)):
        return values
    return {**base, **{name: overlaid(base.get(name), value) for name, value in values.items()}}


def staging(chart: str, further: dict[str, Any]) -> list[rendering.Object]:
    """Render a chart with staging's values and these."""
    base = yaml.safe_load((ROOT / "charts/argocd/environments/staging" / CHARTS[chart]).read_text())
    return rendering.render(chart, overlaid(base, further))


def accepted(chart: str, values: dict[str, Any]) -> bool:
    """Return whether staging renders with these values to valid objects."""
    try:
        rendering.validate(staging(chart, values))
    except rendering.RenderError:
        return False
    return True


@pytest.mark.parametrize("values", examples(), ids=",".join)
def test_an_example_is_accepted_by_one_chart(values: dict[str, Any]) -> None:
    """Each example is accepted by exactly one chart, and by none when a key is misspelt."""
    name, value = next(iter(values.items()))
    assert sum(accepted(chart, values) for chart in CHARTS) == 1
    assert not any(accepted(chart, {f"{name}x": value}) for chart in CHARTS)


def test_the_guide_has_examples() -> None:
    """The pattern above finds the guide's examples."""
    assert len(examples()) >= 5


def test_without_the_prometheus_operator_nothing_is_of_its_kinds() -> None:
    """With Azure Monitor no object is of the Prometheus operator's kinds, whose Application would never be healthy."""
    given = examples("Azure Monitor instead of Prometheus")
    rendered = {chart: staging(chart, one) for chart in CHARTS for one in given if accepted(chart, one)}
    assert set(rendered) == set(CHARTS)
    for objects in rendered.values():
        assert [rendering.label(one) for one in objects if one["apiVersion"].startswith("monitoring.coreos.com/")] == []
    applications = rendering.of_kind(rendered["argocd"], "Application")
    assert "kube-prometheus-stack" not in [one["metadata"]["name"] for one in applications]
    assert "Monitor': {'enabled': True" not in str(applications)
