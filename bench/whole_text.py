"""Return the text of a whole recording: full windows of 30 s with timestamps, each beginning where the last one ends.

Source: `transcribe` of openai-whisper. A window's text counts up to its last pair of timestamps, and the next window
begins there; without such a pair it counts whole. The text before is the prompt. The engine does the same within 30 s.
"""

from collections.abc import Generator, Mapping

from clips import SAMPLE_RATE, Pcm
from in_process import Answer, Ask
from whisperline_contracts import Word
from whisperline_models.engine.audio import N_SAMPLES, N_SAMPLES_PER_TOKEN
from whisperline_models.engine.tokenizer import Tokenizer

LEAST_S = 0.1  # a rest shorter than this has no word
PROMPT_CHARACTERS = 1_000  # of the text before: more than the 223 tokens that a prompt may have


def whole_text(
    audio: Pcm, tokenizer: Tokenizer, language: str, options: Mapping[str, object] | None = None
) -> Generator[Ask, Answer, tuple[str, list[Word]]]:
    """Return the text of samples at 16 kHz and its words, as a task of `InProcess`.

    `options` are further ones for the engine.
    """
    texts: list[str] = []
    words: list[Word] = []
    seek = 0
    while len(audio) - seek > LEAST_S * SAMPLE_RATE:
        window = audio[seek : seek + N_SAMPLES]
        asked = {"language": language, "timestamps": True, "words": True, **(options or {})}
        if texts:
            asked["prompt"] = "".join(texts).strip()[-PROMPT_CHARACTERS:]
        answer = yield Ask(window, asked)
        tokens, n_done = answer["tokens"], len(window)
        if seek + len(window) < len(audio):
            kept = last_pair(tokens, tokenizer.timestamp_begin)
            n_kept = 0 if kept is None else (tokens[kept] - tokenizer.timestamp_begin) * N_SAMPLES_PER_TOKEN
            if n_kept > SAMPLE_RATE:
                tokens, n_done = tokens[:kept], n_kept
        texts.append(tokenizer.decode(tokens))
        seek_ms, done_ms = seek * 1000 // SAMPLE_RATE, n_done * 1000 // SAMPLE_RATE
        words += [
            Word(
                word=word["word"],
                start_ms=seek_ms + word["start_ms"],
                end_ms=seek_ms + word["end_ms"],
                confidence=min(1.0, word["confidence"]),
            )
            for word in answer["words"]
            if word["start_ms"] < done_ms
        ]
        seek += n_done
    return "".join(texts).strip(), words


def last_pair(tokens: list[int], timestamp_begin: int) -> int | None:
    """Return the index of the second timestamp of the last pair, or None if the text ends with a single one.

    Where the engine itself began anew within the window, three timestamps come in a row; the first such place counts,
    because the audio behind it was decoded with its end missing.
    """
    stamps = [token >= timestamp_begin for token in tokens]
    for at in range(len(tokens) - 2):
        if stamps[at] and stamps[at + 1] and stamps[at + 2]:
            return at + 1
    if len(tokens) >= 2 and stamps[-1] and not stamps[-2]:
        return None
    return next((at for at in range(len(tokens) - 1, 0, -1) if stamps[at - 1] and stamps[at]), None)
