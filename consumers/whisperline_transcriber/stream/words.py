"""The words of partials and finals, as their messages need them. No I/O."""

from collections.abc import Sequence

from whisperline_contracts import Word

from whisperline_transcriber.stream.hypothesis import TranscriptWord

_SHORTEST_MS = 20  # one frame of Whisper's encoder


def session_words(
    words: Sequence[TranscriptWord], *, audio_start_ms: int, start_ms: int, end_ms: int
) -> tuple[Word, ...]:
    """Return words with times in the session, in order, without overlap, within the segment [start_ms, end_ms).

    `audio_start_ms` is where the audio that was decoded begins, since the words' own times count from there. Every word
    lasts at least 20 ms, or, if the segment is too short for that, an equal share of it. Words that meet all this
    keep their times. A confidence outside 0 to 1 (a rounding error) is clipped.
    """
    shortest_ms = min(_SHORTEST_MS, (end_ms - start_ms) // max(1, len(words)))
    starts: list[int] = []
    ends: list[int] = []
    for word in words:
        # In order, and late enough to leave room for the words before it.
        earliest = max(starts[-1] + shortest_ms if starts else start_ms, start_ms)
        starts.append(max(audio_start_ms + word.start_ms, earliest))
        ends.append(audio_start_ms + word.end_ms)
    limit = end_ms  # from the last word back: early enough to leave room for the words behind it
    for i in reversed(range(len(words))):
        starts[i] = min(starts[i], limit - shortest_ms)
        ends[i] = min(max(ends[i], starts[i] + shortest_ms), limit)
        limit = starts[i]
    return tuple(
        Word(word=word.word, start_ms=start, end_ms=end, confidence=min(1.0, max(0.0, word.confidence)))
        for word, start, end in zip(words, starts, ends, strict=True)
    )
