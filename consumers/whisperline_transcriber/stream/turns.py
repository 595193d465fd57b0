"""Decide, at a pause, how long a silence closes the segment."""

from whisperline_transcriber.stream.hypothesis import Transcript


def closing_ms(transcript: Transcript) -> int:
    """Return the silence that closes the segment of which `transcript` is the text so far, in milliseconds."""
    if not transcript.text or transcript.text.rstrip()[-1:] in ".?!":
        return 500
    return 1_500
