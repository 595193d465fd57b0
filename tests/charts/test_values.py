"""Test the values of charts/whisperline: every known one is documented, every unknown one is refused by name."""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

import helm_python
import pytest
from rendering import CHARTS, RenderError, render, values_file
from scenarios import component, rendered
from whisperline_gateway.settings import Settings as Gateway
from whisperline_persistence.settings import Settings as Persistence
from whisperline_runtime.settings import ProcessSettings
from whisperline_transcriber.settings import Settings as Transcriber

CHART = CHARTS / "whisperline"
VALUES = values_file("charts/whisperline/values.yaml")
LOADED = helm_python.Chart.load(CHART)
Path = tuple[str | int, ...]

# Settings that the chart sets itself, so `settings` must not contain them.
GIVEN: dict[str, tuple[type[ProcessSettings], set[str]]] = {
    "gateway": (
        Gateway,
        {"token_secret", "database_url", "host", "port", "ordinal", "drain_timeout_s", "allowed_origins"},
    ),
    "transcriber": (
        Transcriber,
        {"vad_model", "metrics_host", "metrics_port", "triton_url", "drain_deadline_s", "instance_id"},
    ),
    "persistence": (
        Persistence,
        {"database_url", "metrics_host", "metrics_port", "shutdown_ms", "migrate_wait_ms"},
    ),
}


def keys(values: Any, at: Path = ()) -> Iterator[Path]:
    """Yield the path of every key in values, keys of maps within lists included."""
    if isinstance(values, Mapping):
        for key, value in values.items():
            yield (*at, key)
            yield from keys(value, (*at, key))
    elif isinstance(values, list):
        for index, value in enumerate(values):
            yield from keys(value, (*at, index))


def placed(path: Path, value: Any) -> Any:
    """Return values that hold one value at this path."""
    for part in reversed(path):
        value = [value] if isinstance(part, int) else {part: value}
    return value


def refusal(values: Mapping[str, Any]) -> str:
    """Return Helm's objection to values, or an empty text if it accepts them."""
    try:
        LOADED.validate_schema(dict(values))
    except helm_python.HelmValuesError as error:
        return str(error)
    return ""


def at(path: Path) -> Any:
    """Return the default value at a path."""
    value: Any = VALUES
    for part in path:
        value = value[part]
    return value


KEYS = list(keys(VALUES))
NAMED = [path for path in KEYS if "matchLabels" not in path[:-1]]  # labels have any names
LEAVES = [path for path in NAMED if not isinstance(at(path), Mapping)]


@pytest.mark.parametrize("path", NAMED, ids=lambda path: ".".join(map(str, path)))
def test_a_misspelt_key_is_refused_by_its_name(path: Path) -> None:
    """A key with a letter missing, a letter doubled or another case is refused at every level."""
    key = str(path[-1])
    for misspelt in {key[:-1] or "x", key + key[-1], key.swapcase()}:
        assert f"'{misspelt}'" in refusal(placed((*path[:-1], misspelt), at(path))), misspelt


@pytest.mark.parametrize("path", LEAVES, ids=lambda path: ".".join(map(str, path)))
def test_a_value_of_another_type_is_refused_by_its_place(path: Path) -> None:
    """A value of another type is refused everywhere, never quietly converted."""
    place = "/".join("0" if isinstance(part, int) else part for part in path)
    assert f"'/{place}" in refusal(placed(path, {"a": {"b": "c"}}))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("images.gateway.tag", "latest"),
        ("images.gateway.tag", "not a tag"),
        ("images.gateway.digest", "sha256:abc"),
        ("model.default", 0),
        ("model.canary", {"version": 2, "sharePercent": 0}),
        ("model.canary", {"version": 2, "sharePercent": 101}),
        ("kafka.bootstrap", "broker"),
        ("kafka.securityProtocol", "TLS"),
        ("kafka.saslMechanism", "GSSAPI"),
        ("secrets.source", "vault"),
        ("gateway.autoscaling.minReplicas", 0),
        ("gateway.allowedOrigins", ["speech.example.org"]),
        ("gateway.resources.limits.memory", "1 GB"),
        ("triton.gpus", -1),
        ("triton.autoscaling.queueSeconds", 0),
        ("autoscaling.prometheus.address", "prometheus:9090"),
        ("topologySpread.zones", "Never"),
        ("networkPolicies.ingress", []),
        ("networkPolicies.ingress", [{}]),
        ("telemetry.otlp.endpoint", "collector:4317"),
        ("telemetry.otlp.endpoint", "http://collector"),
        ("telemetry.otlp.headers", {"a": "b,c=d"}),
        ("telemetry.sampler", "sometimes"),
        ("telemetry.samplerArgument", "10%"),
        ("telemetry.resourceAttributes", {"a b": "c"}),
        ("monitoring.rules.disabled", ["WhisperlineNothing"]),
        ("monitoring.podMonitors.apiVersion", "v1"),
        ("monitoring.podMonitors.interval", "15"),
    ],
)
def test_a_wrong_value_is_refused_by_its_place(path: str, value: Any) -> None:
    """The message contains the path of the wrong value."""
    assert f"'/{path.replace('.', '/')}" in refusal(placed(tuple(path.split(".")), value))


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"gateway": {"autoscaling": {"maxReplicas": 9}}}, "gateway: 9 pods need as many reply partitions"),
        ({"gateway": {"replicas": 9}, "autoscaling": {"enabled": False}}, "but kafka.partitions.reply is 8"),
        ({"transcriber": {"autoscaling": {"maxReplicas": 9}}}, "kafka.partitions.audio is 8"),
        ({"triton": {"autoscaling": {"minReplicas": 4}}}, "triton.autoscaling: minReplicas, fallbackReplicas"),
        ({"gateway": {"autoscaling": {"fallbackReplicas": 9}}}, "gateway.autoscaling: minReplicas"),
        ({"migrations": {"waitSeconds": 900}}, "must be less than migrations.deadlineSeconds 900"),
        ({"secrets": {"source": "keyVault"}}, "secrets.keyVault.name"),
        ({"ingress": {"enabled": True}}, "ingress.host"),
        ({"httpRoute": {"enabled": True}}, "httpRoute.parentRefs"),
    ],
)
def test_values_that_contradict_each_other_are_refused(values: Mapping[str, Any], said: str) -> None:
    """The message names a value to change."""
    with pytest.raises(RenderError, match=re.escape(said)):
        render("whisperline", values)


def test_more_partitions_allow_more_pods() -> None:
    """The limit on pods follows the number of partitions; the chart has no limit of its own."""
    wide = {"kafka": {"partitions": {"reply": 32}}, "gateway": {"autoscaling": {"maxReplicas": 32}}}
    assert component(render("whisperline", wide), "gateway")


@pytest.mark.parametrize("name", GIVEN)
def test_settings_are_those_of_the_deployable(name: str) -> None:
    """The schema allows exactly the settings that the process has and the chart does not set itself."""
    deployable, given = GIVEN[name]
    known = {field for field in deployable.model_fields if not field.startswith("kafka_")} - given
    schema = LOADED.schema
    assert schema is not None
    assert set(schema["properties"][name]["properties"]["settings"]["properties"]) == {key.upper() for key in known}


@pytest.mark.parametrize("name", GIVEN)
def test_settings_have_the_type_of_the_deployable(name: str) -> None:
    """The schema gives each setting the type that the process expects."""
    deployable = GIVEN[name][0]
    schema = LOADED.schema
    assert schema is not None
    types: dict[Any, str] = {int: "integer", float: "number"}
    for key, value in schema["properties"][name]["properties"]["settings"]["properties"].items():
        annotation: Any = deployable.model_fields[key.lower()].annotation
        assert value["type"] == types.get(annotation, "string"), key


def test_defaults_of_the_chart_are_those_of_the_deployables() -> None:
    """The default of a value equals the default of the setting that it stands for."""
    assert VALUES["gateway"]["drainSeconds"] == Gateway.model_fields["drain_timeout_s"].default
    assert VALUES["transcriber"]["drainSeconds"] == Transcriber.model_fields["drain_deadline_s"].default
    assert VALUES["persistence"]["drainSeconds"] * 1000 == Persistence.model_fields["shutdown_ms"].default


def documented() -> dict[str, str]:
    """Return the rows of the README's table: each value with its default as shown, braces expanded."""
    rows = re.findall(r"^\| `([^`]+)` \| (.*?) \|", (CHART / "README.md").read_text(), re.MULTILINE)
    found: dict[str, str] = {}
    for name, shown in rows:
        before, choices, after = re.fullmatch(r"([^{]*)(?:{(.*)})?(.*)", name).groups()  # type: ignore[union-attr]
        for choice in (choices or "").split(","):
            assert before + choice + after not in found
            found[before + choice + after] = shown
    return found


def expected() -> dict[str, str]:
    """Return the values that the README must show. A map with free keys and a component's resources count as one."""
    whole = {".".join(map(str, path)): at(path) for path in NAMED if not any(isinstance(part, int) for part in path)}
    single = {name: value for name, value in whole.items() if value == {} or not isinstance(value, Mapping)}
    resources = {name: value for name, value in whole.items() if name.endswith(".resources")}
    kept = {name: value for name, value in single.items() if ".resources." not in name} | resources
    return {name: value if isinstance(value, str) and value else json.dumps(value) for name, value in kept.items()}


def test_every_value_is_in_the_readme_with_its_default() -> None:
    """The README lists every value with its default, or says that values.yaml has it."""
    shown, wanted = documented(), expected()
    assert set(shown) == set(wanted)
    told = {name: value for name, value in shown.items() if value != "see `values.yaml`"}
    assert told == {name: f"`{wanted[name]}`" for name in told}


def test_helm_lints_the_chart() -> None:
    """`helm lint` reports nothing worse than a hint."""
    report = helm_python.lint(CHART, strict=True)
    assert [message for message in report["messages"] if message["severity"] > 1] == []


def test_the_notes_say_how_to_reach_the_gateway() -> None:
    """The notes name the host of an ingress, or the port to forward without one."""
    with helm_python.Chart.load(CHART) as chart:
        plain = chart.render({}, name="a", namespace="b")["whisperline/templates/NOTES.txt"]
        values = {"ingress": {"enabled": True, "host": "speech.example.org"}}
        open_ = chart.render(values, name="a", namespace="b")["whisperline/templates/NOTES.txt"]
    assert "kubectl -n b port-forward svc/a-gateway 8080:80" in plain
    assert "https://speech.example.org/" in open_


def test_a_release_of_another_name_has_its_own_objects() -> None:
    """Releases of different names share no object, so two fit into one namespace."""
    names = [found["metadata"]["name"] for found in render("whisperline", name="other")]
    assert all(name.startswith("other") for name in names)
    assert not set(names) & {found["metadata"]["name"] for found in rendered("defaults")}
