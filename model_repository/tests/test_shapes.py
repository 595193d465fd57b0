"""Official sizes of which no real weights are available here, with random weights.

`reference/shapes.json` holds what transformers gave with the same weights: encoder and logits in float64, greedy
tokens. Where time binds, a size has fewer layers: `reference_tools.recording.CUTS`.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from reference_tools.parity import TOLERANCE, force, outputs_of, spectrogram
from reference_tools.recording import CUTS, cut_checkpoint, shape_audio, thin
from reference_tools.shapes import with_layers
from whisperline_models.engine import logit_filters
from whisperline_models.engine.transcription import Engine
from whisperline_models.export import export_version

OFTEN = ("distil-small.en", "large-v3")  # always run; the others differ only in width and take a gigabyte each
DEEP = 20  # layers of the width of large-v3: 2.6 GB with the vocabulary
Recorded = Callable[[str], list[dict[str, Any]]]


def _assert_near(ours: NDArray[np.float32], theirs: list[list[float]], name: str) -> None:
    found = np.array(thin({name: ours})[name])
    np.testing.assert_allclose(found, theirs, rtol=0, atol=TOLERANCE, err_msg=name)


@pytest.mark.parametrize("name", [*OFTEN, *(pytest.param(n, marks=pytest.mark.oracle) for n in CUTS if n not in OFTEN)])
def test_any_size_gives_what_the_reference_gives(name: str, recorded: Recorded, cache: Path, tmp_path: Path) -> None:
    """Spectrogram, encoder and logits are within 1e-3, and each greedy token is the reference's."""
    theirs = next(row for row in recorded("shapes") if row["shape"] == name)
    fed = theirs["fed"]
    engine = Engine(export_version(cut_checkpoint(name, cache), tmp_path / "version", "float32"), threads=2)
    mel = spectrogram(engine, shape_audio())
    hidden, logits = outputs_of(engine, mel[None], fed)
    for kind, ours in (("mel", mel), ("hidden", hidden[0]), ("logits", logits)):
        _assert_near(ours, theirs[kind], kind)
    prompt_length = fed.index(engine.tokenizer.no_timestamps) + 1
    assert _choices(engine, logits[prompt_length - 1 : -1]) == fed[prompt_length:]
    assert len(set(fed)) > 8


def _choices(engine: Engine, logits: NDArray[np.float32]) -> list[int]:
    """Return the token that the logit filters choose at each step of a text without timestamps."""
    masks = logit_filters.filter_masks(engine.tokenizer)
    chosen: list[int] = []
    for row in logits:
        constraint = logit_filters.next_filter(chosen, timestamps=False, tokenizer=engine.tokenizer)
        chosen.append(int(logit_filters.apply_filter(row, constraint, masks, engine.tokenizer).argmax()))
    return chosen


@pytest.mark.large  # writes three gigabytes, and takes seven of memory
def test_more_than_protobuf_holds_is_exported(cache: Path, tmp_path: Path) -> None:
    """A decoder of over 2 GB gives the same output as without most of its layers, which here write zeros."""
    shallow = cut_checkpoint("large-v3", cache)
    blocks = [name for name in shallow.tensors if name.startswith("decoder.blocks.0.")]
    idle = {
        name.replace(".0.", f".{layer}.", 1): np.zeros_like(shallow.tensors[name])
        for name in blocks
        for layer in range(shallow.dimensions.n_text_layer, DEEP)
    }
    dimensions = with_layers(shallow.dimensions, shallow.dimensions.n_audio_layer, DEEP)
    deep = replace(shallow, tensors={**shallow.tensors, **idle}, dimensions=dimensions)
    mel = np.random.default_rng(0).standard_normal((128, 200), np.float32)
    logits = []
    for name, checkpoint in (("deep", deep), ("shallow", shallow)):
        engine = Engine(export_version(checkpoint, tmp_path / name, "float32"), threads=2)
        logits.append(force(engine, engine.encoder.encode([mel])[0], [50258, 50259, 50359]))
    assert (tmp_path / "deep" / "decoder.weights").stat().st_size > 2**31
    deep_logits, shallow_logits = logits
    np.testing.assert_allclose(
        deep_logits, shallow_logits, rtol=0, atol=1e-5
    )  # with more layers, the product that makes their keys is rounded differently
