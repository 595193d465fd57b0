"""Make weights of any dimensions that give a known text, to measure speed without trained weights.

Everything is computed as with trained weights. But at every position the positional embedding outweighs the rest, and
points to the embedding of the token that the script has there: so the text has the length that is wanted, the guards
find nothing to object to, and an answer can be checked.
"""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from reference_tools.shapes import SHAPES, random_checkpoint
from whisperline_models.engine.tokenizer import Tokenizer
from whisperline_models.weights import Checkpoint

SEED = 1
FIRST_TOKEN = 1000  # an ordinary text token, as are the ids after it
EMBEDDED = 2.0  # norm of a scripted token's embedding; other embeddings have about 3, but random directions
POSITIONED = 2000.0  # norm of a position's embedding; attention and feed-forward layers add about a hundred


def scripted_checkpoint(shape: str, n_tokens: int, tokenizer_json: bytes) -> Checkpoint:
    """Return weights of an official size whose texts all have `n_tokens` tokens. Any tokenizer of the kind will do."""
    checkpoint = random_checkpoint(shape, SHAPES[shape], tokenizer_json, SEED)
    tokenizer = Tokenizer.from_json(checkpoint.tokenizer_json, checkpoint.dimensions.n_vocab)
    n_prompt = 4 if tokenizer.is_multilingual else 2  # start, language, task, no timestamps
    script = [*script_of(n_tokens), tokenizer.eot]
    directions = _directions(len(script), checkpoint.dimensions.n_text_state)
    tokens = checkpoint.tensors["decoder.token_embedding.weight"].copy()
    positions = checkpoint.tensors["decoder.positional_embedding"].copy()
    tokens[script] = EMBEDDED * directions
    positions[n_prompt - 1 : n_prompt - 1 + len(script)] = POSITIONED * directions
    edited = {"decoder.token_embedding.weight": tokens, "decoder.positional_embedding": positions}
    return replace(checkpoint, tensors={**checkpoint.tensors, **edited})


def script_of(n_tokens: int) -> list[int]:
    """Return the tokens that every text has."""
    return list(range(FIRST_TOKEN, FIRST_TOKEN + n_tokens))


def _directions(n: int, size: int) -> NDArray[np.float32]:
    """Return random unit vectors (n, size) with zero mean, because a layer norm would remove the mean."""
    drawn = np.random.default_rng(SEED).standard_normal((n, size)).astype(np.float32)
    centred = drawn - drawn.mean(axis=1, keepdims=True)
    unit: NDArray[np.float32] = centred / np.linalg.norm(centred, axis=1, keepdims=True)
    return unit
