"""The parameters of `config.pbtxt`, as Triton passes them."""

import json

import pytest
from whisperline_models.engine.settings import ServingSettings


def args(**parameters: str) -> dict[str, str]:
    values = {name: {"string_value": value} for name, value in parameters.items()}
    return {"model_config": json.dumps({"parameters": values})}


def test_parameters_are_read_and_those_left_out_have_their_defaults() -> None:
    """Parameters that the configuration leaves out have the package's defaults."""
    assert ServingSettings.from_triton(args(slots="4")) == ServingSettings(slots=4)
    sizes = {"final": 4, "partial": 1, "file": 5}
    assert ServingSettings.from_triton(args(beam_size_final="4")).beam_sizes == sizes
    assert ServingSettings.from_triton(args(threads="0", max_requests="8")) == ServingSettings(max_requests=8)


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("slots", "0", "slots is 0"),
        ("max_requests", "many", "max_requests is 'many'"),
        ("threads", "-1", "threads is"),
        ("beam_size_file", "6", "beam_size_file is 6, want at most 5"),
    ],
)
def test_a_wrong_parameter_is_named(name: str, value: str, reason: str) -> None:
    """An invalid parameter raises an error that names it, which Triton shows when it cannot load the model."""
    with pytest.raises(ValueError, match=reason):
        ServingSettings.from_triton(args(**{name: value}))
