"""What docs/operations.md tells people to write is what the charts take."""

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


def examples() -> list[dict[str, Any]]:
    """Return the values in the guide's YAML, with ids in the place of its placeholders."""
    found = re.findall(r"^ *```yaml\n(.*?)^ *```", GUIDE.read_text(), re.MULTILINE | re.DOTALL)
    return [yaml.safe_load(re.sub(r"\b(CLIENT|TENANT)_ID\b", SOMEBODY, textwrap.dedent(text))) for text in found]


def overlaid(base: Any, values: Any) -> Any:
    """Return `base` as Helm sees it after a further file of values."""
    if not (isinstance(base, dict) and isinstance(values, dict)):
        return values
    return {**base, **{name: overlaid(base.get(name), value) for name, value in values.items()}}


def accepted(chart: str, values: dict[str, Any]) -> bool:
    """Say if staging renders with these values, to objects that Kubernetes takes."""
    base = yaml.safe_load((ROOT / "charts/argocd/environments/staging" / CHARTS[chart]).read_text())
    try:
        rendering.validate(rendering.render(chart, overlaid(base, values)))
    except rendering.RenderError:
        return False
    return True


@pytest.mark.parametrize("values", examples(), ids=",".join)
def test_an_example_is_accepted_by_one_chart(values: dict[str, Any]) -> None:
    """Each example has the keys and values of one chart, and with a misspelt key of none."""
    name, value = next(iter(values.items()))
    assert sum(accepted(chart, values) for chart in CHARTS) == 1
    assert not any(accepted(chart, {f"{name}x": value}) for chart in CHARTS)


def test_the_guide_has_examples() -> None:
    """The pattern above still finds them."""
    assert len(examples()) >= 5
