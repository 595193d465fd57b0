"""Return the reference's texts of the clips, decoded by `transformers`: greedy, float32, in windows of 30 s."""

import json

from clips import CHECKOUT, BenchClip
from ours import CACHE
from whisperline_models.engine.tokenizer import Tokenizer
from whisperline_models.weights import load_checkpoint

TOKENS = CHECKOUT / "model_repository" / "tests" / "reference_tokens.json"  # recorded with the oracle, for the tests


def reference_texts(clips: list[BenchClip]) -> dict[str, str]:
    """Return the text of each clip, decoded from the recorded tokens."""
    checkpoint = load_checkpoint("tiny.en", CACHE)
    tokenizer = Tokenizer.from_json(checkpoint.tokenizer_json, checkpoint.dimensions.n_vocab)
    tokens = json.loads(TOKENS.read_text())
    return {clip.id: tokenizer.decode(tokens[clip.id]).strip() for clip in clips}
