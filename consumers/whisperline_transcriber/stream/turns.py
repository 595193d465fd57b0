"""Decide, at a pause, how long a silence closes the segment."""

from whisperline_transcriber.stream.hypothesis import Transcript

LONGEST_MS = 1_500


def closing_ms(transcript: Transcript) -> int:
    """Return the silence that closes the segment of which `transcript` is the text so far, in milliseconds."""
    text = transcript.text.rstrip()
    if not text:
        return 0
    if text[-1] not in ".?!。？！" or text.endswith("..."):  # noqa: RUF001 - full stops of Chinese and Japanese
        return LONGEST_MS
    return min(LONGEST_MS, round(400 - 1_200 * transcript.last_logprob))
