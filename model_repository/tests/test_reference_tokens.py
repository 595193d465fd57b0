"""Comparison with the reference's tokens, without its environment.

`reference_tokens.json` holds what transformers 5.17.0 on torch 2.11.0 decoded greedily (tiny.en, float32, 30 s window,
no timestamps) of each English clip of the speech folder; `make parity` compares with the reference itself.
"""

import json
from pathlib import Path

import numpy as np
import pytest
from reference_tools.parity import decode
from whisperline_models.engine.requests import Request
from whisperline_models.engine.transcription import Engine
from whisperline_models.gate import Clip

RECORDED: dict[str, list[int]] = json.loads(Path(__file__).with_name("reference_tokens.json").read_text())
EVERY = 5  # take every fifth clip; all of them take minutes
BATCH = 16


def test_greedy_text_is_the_references_token_for_token(exact: Engine, english: list[Clip]) -> None:
    """In batches of 16, every fifth clip gives exactly the tokens that the reference gave."""
    clips = [clip for clip in english if clip.id in RECORDED][::EVERY]
    if not clips:
        pytest.skip("the speech folder holds none of the clips that were recorded")
    found: dict[str, list[int]] = {}
    for at in range(0, len(clips), BATCH):
        batch = clips[at : at + BATCH]
        requests = [Request(clip.read().astype(np.float32) / 32_768, "en") for clip in batch]
        decoded = decode(exact, requests)
        found |= {clip.id: list(each.tokens) for clip, each in zip(batch, decoded, strict=True)}
    assert found == {clip.id: RECORDED[clip.id] for clip in clips}
