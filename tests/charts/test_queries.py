"""Test the Prometheus queries of charts/whisperline: they name existing metrics and give the right numbers."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import metrics
import pytest
import yaml
from alerting import outcomes, rules
from rendering import REPOSITORY, merged_values, of_kind, values_file
from scenarios import rendered

ERRORS = REPOSITORY / "gateway/whisperline_gateway/errors.py"
# Labels that Prometheus gives to every series of a pod.
TARGET = {"namespace", "pod"}
# Of others, and which of charts/argocd's `platform` makes them: Prometheus itself, kube-state-metrics, and KEDA 2.21
# (pkg/metricscollector/prommetrics.go), which is scraped only if its chart's values say so.
TOLD_BY = {"up": "kube-prometheus-stack", "kube": "kube-prometheus-stack", "keda": "keda"}
SCRAPED = {"keda": {"enabled": True, "podMonitor": {"enabled": True}}}
FOREIGN = {
    "up": TARGET,
    "kube_pod_status_ready": TARGET | {"condition"},
    "kube_pod_container_status_restarts_total": TARGET | {"container"},
    "kube_horizontalpodautoscaler_status_current_replicas": {"namespace", "horizontalpodautoscaler"},
    "kube_horizontalpodautoscaler_spec_max_replicas": {"namespace", "horizontalpodautoscaler"},
    "kube_horizontalpodautoscaler_spec_min_replicas": {"namespace", "horizontalpodautoscaler"},
    "keda_scaler_detail_errors_total": {"scaledObject", "scaler", "metric", "triggerIndex", "type"},
}
# KEDA 2.21, pkg/scalers/prometheus_scaler.go: what a trigger's metadata may hold.
TRIGGER_KEYS = {
    "serverAddress",
    "query",
    "queryParameters",
    "threshold",
    "activationThreshold",
    "namespace",
    "customHeaders",
    "ignoreNullValues",
    "unsafeSsl",
    "timeout",
}
FUNCTIONS = {"sum", "max", "by", "or", "rate", "increase", "histogram_quantile", "vector", "avg_over_time"}


def queries() -> Iterator[tuple[str, str]]:
    """Yield every query of the chart, with the name of the alert or the trigger that asks it."""
    for found in of_kind(rendered("defaults"), "ScaledObject"):
        for trigger in found["spec"]["triggers"]:
            yield f"{found['metadata']['name']} {trigger['name']}", trigger["metadata"]["query"]
    for name, rule in rules(rendered("defaults")).items():
        yield name, rule["expr"]


def selectors(query: str) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield each metric that a query names, with the values of its labels."""
    for name, labels in re.findall(r"([a-z_]+){([^}]*)}", query):
        yield name, dict(re.findall(r'(\w+)=~?"([^"]*)"', labels))


QUERIES = dict(queries())
SERIES = {name: labels | TARGET for name, labels in metrics.series().items()} | FOREIGN


def test_the_code_has_the_series_that_are_looked_for() -> None:
    """The reader of the model's code finds the metrics that its README names."""
    assert {"whisper_queue_seconds_bucket", "whisper_requests", "whisper_unit_seconds_sum"} <= set(SERIES)
    assert SERIES["whisper_requests"] == {"lane", "state", "version", "model_instance"} | TARGET
    assert SERIES["whisperline_gateway_errors_total"] == {"code"} | TARGET


@pytest.mark.parametrize("metric", FOREIGN)
def test_metrics_of_others_are_told(metric: str) -> None:
    """In each environment the program that exports a foreign metric is installed, and Prometheus scrapes it."""
    maker = TOLD_BY[metric.partition("_")[0]]
    for name in ("staging", "production"):
        layers = ("charts/argocd/values.yaml", f"charts/argocd/environments/{name}/argocd.yaml")
        found = merged_values(*map(values_file, layers))["platform"][maker]
        assert found["enabled"]
        assert found["values"].get("prometheus", {}).get("operator") == SCRAPED.get(maker)


@pytest.mark.parametrize("name", QUERIES)
def test_a_query_names_series_and_labels_that_there_are(name: str) -> None:
    """A query names only existing metrics and labels; with any other an alert would stay silent for ever."""
    found = list(selectors(QUERIES[name]))
    assert found
    bare = set(re.findall(r"[a-z_]{2,}", re.sub(r"{[^}]*}|\[\w+\]|by \([^)]*\)", "", QUERIES[name])))
    assert bare <= FUNCTIONS | set(SERIES), bare - FUNCTIONS - set(SERIES)
    for metric, labels in found:
        assert set(labels) <= SERIES[metric], (metric, labels)
    grouped = {label for group in re.findall(r"by \(([^)]*)\)", QUERIES[name]) for label in group.split(", ")}
    assert grouped <= set.union(*(SERIES[metric] for metric, _ in found))


@pytest.mark.parametrize("name", QUERIES)
def test_a_query_asks_for_this_release_alone(name: str) -> None:
    """A query selects this release in its namespace; other releases have alerts and pods of their own."""
    for metric, labels in selectors(QUERIES[name]):
        (place,) = set(labels) & {"pod", "horizontalpodautoscaler", "scaledObject"}
        assert labels[place].startswith("whisperline-")
        if not metric.startswith("keda_"):  # whose namespace is KEDA's own
            assert labels["namespace"] == "whisperline"


def test_values_of_labels_are_those_of_the_code() -> None:
    """Lanes, states, outcomes and codes in a query are ones that the code writes; others would match nothing."""
    code = "\n".join(path.read_text() for path in REPOSITORY.glob("*/whisperline_*/**/*.py"))
    for query in QUERIES.values():
        for _, labels in selectors(query):
            for name in set(labels) & {"lane", "state", "outcome", "code", "priority"}:
                for value in labels[name].split("|"):
                    assert f'"{value}"' in code or f"{value}=" in code, value


def test_errors_that_are_ours_are_errors_that_a_client_may_retry() -> None:
    """WhisperlineGatewayErrors counts the errors that no client has caused."""
    (codes,) = (labels["code"] for _, labels in selectors(QUERIES["WhisperlineGatewayErrors"]) if "code" in labels)
    each = re.findall(r'ClientError\(\s*"([A-Z_]+)"(.*?)(?:\n\n|\Z)', ERRORS.read_text(), re.DOTALL)
    retriable = {code for code, arguments in each if "retriable=True" in arguments}
    assert set(codes.split("|")) == retriable - {"SILENT_CLIENT", "SLOW_CLIENT"}


def triggers(scenario: str) -> list[dict[str, Any]]:
    """Return the triggers of a scenario's autoscalers."""
    return [trigger for found in of_kind(rendered(scenario), "ScaledObject") for trigger in found["spec"]["triggers"]]


@pytest.mark.parametrize("scenario", ["defaults", "Azure Monitor"])
def test_triggers_have_what_keda_reads(scenario: str) -> None:
    """A trigger has the metadata that KEDA's code reads, which KEDA's schema does not check."""
    for trigger in triggers(scenario):
        assert trigger["type"] == "prometheus"
        assert trigger["metricType"] in ("Value", "AverageValue")
        assert {"serverAddress", "query", "threshold"} <= set(trigger["metadata"]) <= TRIGGER_KEYS
        assert float(trigger["metadata"]["threshold"]) > 0
        assert trigger["metadata"]["ignoreNullValues"] == "false"


def test_names_of_triggers_are_not_there_twice() -> None:
    """Trigger names are unique, because KEDA refuses an object with two of the same name."""
    for found in of_kind(rendered("defaults"), "ScaledObject"):
        names = [trigger["name"] for trigger in found["spec"]["triggers"]]
        assert len(names) == len(set(names))


def test_azure_monitor_is_asked_as_a_workload_identity() -> None:
    """With Azure Monitor every trigger names the rendered TriggerAuthentication."""
    (found,) = of_kind(rendered("Azure Monitor"), "TriggerAuthentication")
    assert found["spec"]["podIdentity"] == {"provider": "azure-workload", "identityId": "client"}
    assert {trigger["authenticationRef"]["name"] for trigger in triggers("Azure Monitor")} == {
        found["metadata"]["name"]
    }
    assert not any("authenticationRef" in trigger for trigger in triggers("defaults"))


POD = {name: f'namespace="whisperline",pod="whisperline-{name}-a"' for name in ("gateway", "transcriber", "triton")}
BUCKETS = (
    f'whisper_queue_seconds_bucket{{{POD["triton"]},lane="final",version="1",le="0.5"}}',
    f'whisper_queue_seconds_bucket{{{POD["triton"]},lane="final",version="1",le="1"}}',
    f'whisper_queue_seconds_bucket{{{POD["triton"]},lane="final",version="1",le="+Inf"}}',
)
UP = {name: {f"up{{{labels}}}": "1x30"} for name, labels in POD.items()}
LAG = f'whisperline_transcriber_lag_seconds{{{POD["transcriber"]},partition="%d"}}'
REQUESTS = f'whisper_requests{{{POD["triton"]},lane="%s",state="%s",version="1"}}'
CASES: dict[str, tuple[str, dict[str, str], float | None]] = {
    "connections of all gateways": (
        "whisperline-gateway connections",
        {f"whisperline_gateway_connections{{{POD['gateway']}}}": "500x30"}
        | {'whisperline_gateway_connections{namespace="whisperline",pod="whisperline-gateway-1"}': "400x30"}
        | {'whisperline_gateway_connections{namespace="other",pod="whisperline-gateway-0"}': "9000x30"},
        900,
    ),
    "no gateway": ("whisperline-gateway connections", {}, None),
    "the worst partition": ("whisperline-transcriber lag", UP["transcriber"] | {LAG % 1: "2x30", LAG % 2: "9x30"}, 9),
    "no partition yet": ("whisperline-transcriber lag", UP["transcriber"], 0),
    "no transcriber": ("whisperline-transcriber lag", {}, None),
    "sessions": (
        "whisperline-transcriber sessions",
        {f"whisperline_transcriber_sessions{{{POD['transcriber']}}}": "120x30"},
        120,
    ),
    "half of the finals wait": (
        "whisperline-triton queue",
        UP["triton"] | dict(zip(BUCKETS, ("0+5x30", "0+10x30", "0+10x30"), strict=True)),
        0.95,
    ),
    "no finals at all": ("whisperline-triton queue", UP["triton"] | dict.fromkeys(BUCKETS, "5x30"), 0),
    "a Triton that was never asked": ("whisperline-triton queue", UP["triton"], 0),
    "no Triton": ("whisperline-triton queue", {next(iter(UP["triton"])): "0x30"}, None),
    "live requests, and files that wait": (
        "whisperline-triton requests",
        {REQUESTS % ("final", "waiting"): "3x30", REQUESTS % ("final", "active"): "12x30"}
        | {REQUESTS % ("partial", "active"): "4x30", REQUESTS % ("file", "waiting"): "200x30"},
        19,
    ),
    "no requests yet": ("whisperline-triton requests", UP["triton"], 0),
}


def test_the_queries_of_the_autoscalers_give_what_they_should(tmp_path: Path) -> None:
    """A query gives KEDA one number, or no result at all if nothing is measured, which KEDA treats as an error."""
    for number, (query, series_, value) in enumerate(CASES.values()):
        expected = [] if value is None else [{"labels": "{}", "value": value}]
        case = {
            "interval": "15s",
            "input_series": [{"series": name, "values": values} for name, values in series_.items()],
            "promql_expr_test": [{"expr": QUERIES[query], "eval_time": "5m", "exp_samples": expected}],
        }
        (tmp_path / f"case{number}.yaml").write_text(yaml.safe_dump({"rule_files": ["rules.yaml"], "tests": [case]}))
    (tmp_path / "run").mkdir()
    said = outcomes(tmp_path / "run", tmp_path.glob("case*.yaml"), [])
    assert {list(CASES)[int(name[4:])]: text for name, text in said.items()} == dict.fromkeys(CASES, "SUCCESS")


def test_every_query_of_the_autoscalers_has_a_case() -> None:
    """Every trigger has a case above, so a new one cannot go untested."""
    asked = {name for name in QUERIES if " " in name}
    assert asked == {query for query, _, _ in CASES.values()}
