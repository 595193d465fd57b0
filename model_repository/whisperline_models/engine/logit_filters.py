"""Restrict the next token as `SuppressBlank`, `SuppressTokens` and `ApplyTimestampRules` of openai-whisper do.

Source: the `LogitFilter`s of its `decoding.py`. The exported decoder applies them inside its graph, to all rows of a
batch at once. For that, a filter has two parts, which the graph takes as inputs: the number of a mask over the whole
vocabulary (there are only five), and a range of timestamps, which differs from row to row. `apply_filter` does the same
in NumPy: sampling uses it, and tests compare the graph with it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from .tokenizer import Tokenizer

NEVER = np.float32(-1e9)  # added to the logit of a forbidden token; infinity would give NaN in the graph's sums
MAX_INITIAL_TIMESTAMP = 50  # in steps of 20 ms: a text begins within the first second


class Mask(IntEnum):
    """The masks over the vocabulary. Each is named for the token that comes next."""

    TEXT_FIRST = 0  # without timestamps: the first token, which may not be blank
    TEXT = 1
    TIMESTAMP_FIRST = 2  # with timestamps: the first token, which must be one
    TIMESTAMP = 3
    TIMESTAMP_CLOSING = 4  # after a timestamp that ends text: its pair or the end of the text


@dataclass(frozen=True)
class LogitFilter:
    """The tokens that one row may choose at one step: a mask, and an inclusive range of timestamps."""

    mask: Mask
    timestamp_from: int
    timestamp_to: int

    @property
    def timestamps(self) -> bool:
        """True if the text is decoded with timestamps."""
        return self.mask >= Mask.TIMESTAMP_FIRST


def next_filter(sampled: Sequence[int], *, timestamps: bool, tokenizer: Tokenizer) -> LogitFilter:
    """Return the filter for the token after `sampled`, the tokens since the prompt.

    Timestamps come in pairs around text and never decrease. Without `timestamps`, none is forbidden: after
    <|notimestamps|> in the prompt, the model does not choose any.
    """
    begin, end = tokenizer.timestamp_begin, tokenizer.n_vocab - 1
    if not timestamps:
        return LogitFilter(Mask.TEXT if sampled else Mask.TEXT_FIRST, begin, end)
    if not sampled:
        return LogitFilter(Mask.TIMESTAMP_FIRST, begin, begin + MAX_INITIAL_TIMESTAMP)
    last_was_timestamp = sampled[-1] >= begin
    penultimate_was_timestamp = len(sampled) < 2 or sampled[-2] >= begin
    newest = next((token for token in reversed(sampled) if token >= begin), begin - 1)
    if not last_was_timestamp:
        return LogitFilter(Mask.TIMESTAMP, newest + 1, end)  # text, or a timestamp that ends it, later than its begin
    if penultimate_was_timestamp:
        return LogitFilter(Mask.TIMESTAMP, begin, begin - 1)  # the pair is complete: the range is empty, text follows
    return LogitFilter(Mask.TIMESTAMP_CLOSING, newest, end)  # the next segment may begin when this one ends


def filter_masks(tokenizer: Tokenizer) -> NDArray[np.float32]:
    """Return the masks as terms to add to the logits: (masks, V), each 0 or `NEVER`."""
    masks = np.zeros((len(Mask), tokenizer.n_vocab), np.float32)
    masks[:, list(tokenizer.suppress_tokens)] = NEVER
    masks[Mask.TEXT_FIRST, list(tokenizer.suppress_blank)] = NEVER
    masks[Mask.TIMESTAMP_FIRST :, tokenizer.no_timestamps] = NEVER
    masks[Mask.TIMESTAMP_FIRST, : tokenizer.timestamp_begin] = NEVER
    masks[Mask.TIMESTAMP_CLOSING, : tokenizer.eot] = NEVER
    return masks


def apply_filter(
    logits: NDArray[np.float32], filtered: LogitFilter, masks: NDArray[np.float32], tokenizer: Tokenizer
) -> NDArray[np.float32]:
    """Return one row's logits (V), with forbidden tokens near `NEVER`; `masks` come from `filter_masks`."""
    begin = tokenizer.timestamp_begin
    masked: NDArray[np.float32] = logits + masks[filtered.mask]
    masked[begin : max(begin, filtered.timestamp_from)] = NEVER
    masked[max(begin, filtered.timestamp_to + 1) :] = NEVER
    # If all timestamps together are more probable than the best text token, the next token must be a timestamp.
    if filtered.timestamps and log_sum_exp(masked[begin:]) > masked[:begin].max():
        masked[:begin] = NEVER
    return masked


def log_sum_exp(values: NDArray[np.float32]) -> float:
    """Return the logarithm of the sum of the exponentials of a vector."""
    top = float(values.max())  # factored out of the sum, so that no exponential overflows
    return top + float(np.log(np.exp(values - top).sum()))
