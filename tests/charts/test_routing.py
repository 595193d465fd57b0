"""Test the routing of model versions that the chart writes, with the code by which Triton reads it."""

import json
from typing import Any

import pytest
import typer.main
from rendering import RenderError, of_kind
from scenarios import component, rendered, varied
from whisperline_models.cli import app
from whisperline_models.routing.state import Canary, Rollout


def routing(scenario: str) -> Rollout:
    """Return the routing in a scenario's ConfigMap."""
    (config,) = of_kind(rendered(scenario), "ConfigMap")
    return Rollout.from_json(config["data"]["rollout.json"])


def test_the_default_and_the_canary_are_those_of_the_values() -> None:
    """The routing has the default and the canary of the values, with the share as a fraction."""
    assert routing("defaults") == Rollout(1)
    assert routing("canary") == Rollout(3, Canary(4, 0.125))


def test_every_version_is_mounted_where_assemble_looks_for_it() -> None:
    """The folder /version of each image is mounted read-only for `assemble`; Triton itself sees only the copies."""
    template = component(rendered("canary"), "triton")["spec"]["template"]
    (assemble,), (triton,) = template["spec"]["initContainers"], template["spec"]["containers"]
    mounts = {mount["mountPath"]: mount for mount in assemble["volumeMounts"]}
    for number in (3, 4):
        wanted = {"name": f"version-{number}", "mountPath": f"/versions/{number}", "subPath": "version"}
        assert mounts[f"/versions/{number}"] == wanted | {"readOnly": True}
    assert {"--version=3=/versions/3", "--version=4=/versions/4"} <= set(assemble["args"])
    assert not any(mount["mountPath"].startswith("/versions") for mount in triton["volumeMounts"])


def test_assemble_takes_its_arguments() -> None:
    """Every argument that the chart gives `assemble` is one of its options."""
    (assemble,) = component(rendered("processors"), "triton")["spec"]["template"]["spec"]["initContainers"]
    command: Any = typer.main.get_command(app)
    options = {name for option in command.commands["assemble"].params for name in option.opts}
    assert assemble["command"] == ["whisperline-models", "assemble"]
    assert {argument.split("=")[0] for argument in assemble["args"]} <= options
    assert {"--slots=8", "--max-requests=64"} <= set(assemble["args"])


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ({"default": 9}, "model.default: version 9 is not in model.versions"),
        ({"canary": {"version": 9, "sharePercent": 5}}, "model.canary.version: version 9 must be in model.versions"),
        ({"canary": {"version": 3, "sharePercent": 5}}, "and not the default"),
        ({"versions": [{"version": 3, "image": "a/b", "tag": "3"}] * 2}, "a version is there twice"),
        ({"versions": [{"version": 3, "image": "a/b"}]}, "a/b: give a digest or a tag"),
    ],
)
def test_a_routing_that_cannot_be_served_is_refused(model: dict[str, object], said: str) -> None:
    """Helm refuses a routing that names a missing version, before anything is applied."""
    with pytest.raises(RenderError, match=said):
        varied("canary", {"model": {"canary": None, **model}})


def test_the_share_is_written_as_a_number() -> None:
    """The share is a JSON number; as text, Triton's model would refuse it."""
    (config,) = of_kind(rendered("canary"), "ConfigMap")
    assert json.loads(config["data"]["rollout.json"])["canary"] == {"version": 4, "share": 0.125}
