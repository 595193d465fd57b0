"""Test every alert of charts/whisperline with promtool: it fires on its fault and is silent otherwise."""

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml
from alerting import groups, outcomes, promtool, rules
from rendering import REPOSITORY, render

TESTS = Path(__file__).parent / "alerts"
RUNBOOKS = REPOSITORY / "docs" / "runbooks"
SECTIONS = ("## Meaning", "## Impact", "## Diagnosis", "## Mitigation")
RENDERED = groups(render("whisperline"))
ALERTS = [rule["alert"] for group in RENDERED for rule in group["rules"]]


def with_expression(expression: str) -> list[dict[str, Any]]:
    """Return the rules with the expression of each replaced by this one."""
    changed = copy.deepcopy(RENDERED)
    for group in changed:
        for rule in group["rules"]:
            rule["expr"] = expression
    return changed


def test_promtool_finds_nothing_wrong_with_the_rules(tmp_path: Path) -> None:
    """Every expression and template parses."""
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump({"groups": RENDERED}))
    checked = promtool("check", "rules", "--lint-fatal", tmp_path / "rules.yaml")
    assert checked.returncode == 0, checked.stdout


def test_an_alert_fires_on_its_fault_and_is_silent_otherwise(tmp_path: Path) -> None:
    """The cases are in alerts/, a file for each alert."""
    assert outcomes(tmp_path, TESTS.glob("*.yaml"), RENDERED) == dict.fromkeys(ALERTS, "SUCCESS")


@pytest.mark.parametrize("expression", ["vector(0) > 1", "vector(1)", "sum(up) > 0"])
def test_the_cases_of_an_alert_notice_an_expression_that_is_wrong(expression: str, tmp_path: Path) -> None:
    """The cases fail for an alert that never fires, always fires, or watches something else."""
    found = outcomes(tmp_path, TESTS.glob("*.yaml"), with_expression(expression))
    assert set(found) == set(ALERTS)
    assert [alert for alert, said in found.items() if said == "SUCCESS"] == []


@pytest.mark.parametrize("alert", ALERTS)
def test_the_cases_of_an_alert_have_it_fire_and_be_silent(alert: str) -> None:
    """The cases of an alert include one in which it fires and one in which it does not, and name no other alert."""
    cases = yaml.safe_load((TESTS / f"{alert}.yaml").read_text())["tests"]
    found = [test for case in cases for test in case["alert_rule_test"]]
    assert {test["alertname"] for test in found} == {alert}
    assert any(test.get("exp_alerts") for test in found)
    assert any(not test.get("exp_alerts") for test in found)


@pytest.mark.parametrize("alert", ALERTS)
def test_an_alert_leads_to_its_runbook(alert: str) -> None:
    """The runbook says what the alert means, what it costs, how to look, and what to do, with commands."""
    assert rules(render("whisperline"))[alert]["annotations"]["runbook_url"].endswith(f"/docs/runbooks/{alert}.md")
    text = (RUNBOOKS / f"{alert}.md").read_text()
    assert text.startswith(f"# {alert}\n")
    assert all(section in text for section in SECTIONS)
    assert "\n    kubectl " in text or "```" in text


def test_every_rule_file_is_an_alert_of_its_name_and_has_cases() -> None:
    """Each alert has one file with its rule and one with its cases, both named like the alert."""
    files = {path.stem for path in (REPOSITORY / "charts/whisperline/rules").glob("*.yaml")}
    assert files == set(ALERTS) == {path.stem for path in TESTS.glob("*.yaml")}


def test_an_alert_that_is_disabled_is_not_there() -> None:
    """A disabled alert is left out, and the others remain."""
    disabled = {"monitoring": {"rules": {"disabled": ["WhisperlineScalerBlind"]}}}
    assert set(ALERTS) - set(rules(render("whisperline", disabled))) == {"WhisperlineScalerBlind"}
