"""docs/metrics.md names every metric of every process, and what people query names metrics and labels that exist."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import metrics
import pytest
import yaml
from alerting import promtool
from metrics import Metric
from rendering import REPOSITORY

DOCUMENT = REPOSITORY / "docs/metrics.md"
DASHBOARD = REPOSITORY / "compose/grafana/whisperline.json"
DATASOURCES = REPOSITORY / "compose/grafana/datasources.yaml"
# What a scrape adds to every series.
TARGET = {"job", "instance", "namespace", "pod"}
UNITS = {"bytes", "seconds"}
CODE = "\n".join(path.read_text() for path in REPOSITORY.glob("*/whisperline_*/**/*.py"))


def rows(section: str) -> list[list[str]]:
    """Return the rows of the table in a section of the document, as cells."""
    (text,) = re.findall(rf"^## {section}$(.*?)(?=^## |\Z)", DOCUMENT.read_text(), re.MULTILINE | re.DOTALL)
    return [re.split(r" *\| *", line) for line in re.findall(r"^\| (`.*) \|$", text, re.MULTILINE)]


def documented(section: str) -> dict[str, Metric]:
    """Return the metrics of a section by name."""
    found = {}
    for name, kind, _, labels, _ in rows(section):
        found[name.strip("`")] = Metric(name.strip("`"), kind, frozenset(re.findall(r"`(\w+)`:", labels)))
    return found


@pytest.mark.parametrize("process", metrics.PROCESSES)
def test_the_table_of_a_process_is_its_registry(process: str) -> None:
    """The document lists every metric with its type and labels, and no other."""
    assert documented(process) == metrics.of_process(process)


def test_the_table_of_the_model_is_its_code() -> None:
    """The document names the two common labels of the model's metrics above their table."""
    common = {"version", "model_instance"}
    wanted = {name: Metric(name, found.type, found.labels - common) for name, found in metrics.of_model().items()}
    assert documented("The model, in Triton") == wanted
    assert all(common <= found.labels for found in metrics.of_model().values())


@pytest.mark.parametrize("section", [*metrics.PROCESSES, "The model, in Triton"])
def test_values_of_labels_are_in_the_code(section: str) -> None:
    """Each value that the table lists is one that the code writes; a label without a list says where its values are."""
    for name, _, _, labels, _ in rows(section):
        for label, listed in re.findall(r"`(\w+)`: ([^;]*)", labels):
            assert listed, (name, label)
            for value in re.findall(r"`(\w+)`", listed):
                assert f'"{value}"' in CODE or f"{value}=" in CODE, (name, label, value)


@pytest.mark.parametrize("section", [*metrics.PROCESSES, "The model, in Triton"])
def test_names_follow_the_scheme(section: str) -> None:
    """A counter ends in _total; what is measured in a base unit has it at the end of its name, before _total."""
    for name, kind, unit, _, _ in rows(section):
        plain = name.strip("`").removesuffix("_total")
        assert name.strip("`").endswith("_total") == (kind == "counter"), name
        if unit in UNITS:
            assert plain.endswith(f"_{unit}"), name


def queries() -> Iterator[tuple[str, str]]:
    """Yield each query in the dashboard and the documents, with its place."""
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        for target in panel.get("targets", []):
            if panel["datasource"]["type"] == "prometheus":
                yield f"panel {panel['title']} {target['refId']}", target["expr"]
    for source in yaml.safe_load(DATASOURCES.read_text())["datasources"]:
        for query in source["jsonData"].get("tracesToMetrics", {}).get("queries", []):
            yield f"trace to metrics: {query['name']}", query["query"]
    for path in [DOCUMENT, *sorted((REPOSITORY / "docs/runbooks").glob("*.md")), REPOSITORY / "docs/operations.md"]:
        for code in re.findall(r"`([^`\n]*\bwhisper(?:line)?_[^`\n]*)`", path.read_text()):
            if "(" in code or "{" in code:
                yield f"{path.name}: {code}", code


QUERIES = dict(queries())


@pytest.mark.parametrize("name", QUERIES)
def test_a_query_names_series_and_labels_that_exist(name: str) -> None:
    """Every metric and label in a panel or runbook exists; a wrong name would show nothing, as if all were well."""
    known = metrics.series()
    query = QUERIES[name]
    named = re.findall(r"(whisper(?:line)?_\w+)(?:{([^}]*)})?", query)
    assert named
    for series, selected in named:
        assert series in known, series
        assert set(re.findall(r"(\w+)=", selected)) <= known[series] | TARGET, (series, selected)
    grouped = {label for group in re.findall(r"by \(([^)]*)\)", query) for label in group.split(", ")}
    assert grouped <= set().union(*(known[series] for series, _ in named)) | TARGET


def test_names_in_the_prose_exist() -> None:
    """Metrics that runbooks and guides mention outside queries exist."""
    known = set(metrics.series()) | {name for process in metrics.PROCESSES for name in metrics.of_process(process)}
    known |= set(metrics.of_model())
    for path in REPOSITORY.glob("docs/**/*.md"):
        for name in re.findall(r"`(whisper(?:line_(?:gateway|transcriber|persistence))?_\w+)", path.read_text()):
            assert name in known or name in NO_METRICS, (path.name, name)


# Names of other things that begin alike.
NO_METRICS = {"whisper_rollout"}


def panels() -> list[dict[str, Any]]:
    """Return the panels of the dashboard that show something."""
    return [panel for panel in json.loads(DASHBOARD.read_text())["panels"] if panel["type"] != "row"]


def sources() -> dict[str, dict[str, Any]]:
    """Return the data sources that Grafana is given, by their id."""
    return {source["uid"]: source for source in yaml.safe_load(DATASOURCES.read_text())["datasources"]}


def test_panels_ask_data_sources_that_exist() -> None:
    """By the id and the type with which they are provisioned; no two panels lie on each other."""
    assert len({panel["id"] for panel in panels()}) == len(panels())
    for panel in panels():
        assert sources()[panel["datasource"]["uid"]]["type"] == panel["datasource"]["type"], panel["title"]
    places = [panel["gridPos"] for panel in panels()]
    cells = [(at["x"] + x, at["y"] + y) for at in places for x in range(at["w"]) for y in range(at["h"])]
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) < 24


def test_latency_panels_lead_to_traces() -> None:
    """Every histogram of ours that is shown asks for exemplars, whose label the data source turns into a trace."""
    asking = []
    for panel in panels():
        for target in panel["targets"]:
            shown = re.findall(r"(whisperline_\w+)_bucket", target.get("expr", ""))
            if shown:
                assert target["exemplar"] is True, panel["title"]
                asking += shown
    assert {"whisperline_transcriber_first_partial_seconds", "whisperline_gateway_ack_seconds"} <= set(asking)
    (link,) = sources()["prometheus"]["jsonData"]["exemplarTraceIdDestinations"]
    assert link["name"] == "trace_id"  # what whisperline_runtime.tracing.exemplar calls it
    assert sources()[link["datasourceUid"]]["type"] == "tempo"


def test_traces_and_logs_lead_to_each_other() -> None:
    """A trace finds its log lines and metrics, a log line finds its trace."""
    tempo, loki = sources()["tempo"]["jsonData"], sources()["loki"]["jsonData"]
    assert sources()[tempo["tracesToLogsV2"]["datasourceUid"]]["type"] == "loki"
    assert "$${__trace.traceId}" in tempo["tracesToLogsV2"]["query"]
    assert sources()[tempo["tracesToMetrics"]["datasourceUid"]]["type"] == "prometheus"
    (field,) = loki["derivedFields"]
    assert (field["matcherType"], field["matcherRegex"]) == ("label", "trace_id")
    assert sources()[field["datasourceUid"]]["type"] == "tempo"


def test_prometheus_parses_the_queries(tmp_path: Path) -> None:
    """They are expressions of its language, whatever they name."""
    rules: list[dict[str, Any]] = [
        {"record": f"query:{number}", "expr": query} for number, query in enumerate(QUERIES.values())
    ]
    file = tmp_path / "rules.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "queries", "rules": rules}]}))
    found = promtool("check", "rules", file)
    assert found.returncode == 0, found.stdout
