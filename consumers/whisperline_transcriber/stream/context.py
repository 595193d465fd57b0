"""Choose what a segment is decoded with: the audio before it, the text before it, and its language. No I/O.

All of it comes from the session's `Memory`, which is in the log, so a replay decodes with the same.
"""

from dataclasses import dataclass

from whisperline_contracts import Memory, Said

from whisperline_transcriber.stream.audio import SAMPLE_RATE

PROMPT_GAP = 5 * SAMPLE_RATE // 2  # text is a prompt for speech that begins at most this long after it
PROMPT_CHARACTERS = 200  # the last of them are the prompt
PREFIX_GAP = 2 * SAMPLE_RATE  # audio belongs to the window of a segment that begins at most this long after it
PREFIX_LENGTH = 8 * SAMPLE_RATE  # the most audio before a segment that its window holds
WINDOW_LENGTH = 28 * SAMPLE_RATE  # Whisper's 30 s less a margin
MIN_SAID, MAX_SAID = 3, 32  # finals that are remembered, at the least (if there are any) and at the most


@dataclass(frozen=True)
class Window:
    """The audio of one decoding, samples [start, end); its segment begins at `segment_start`, after decided audio.

    `prefix` is the text of the decided samples, `prompt` the text before the window. If `language` is None, it is
    detected.
    """

    start: int
    segment_start: int
    end: int
    prompt: str = ""
    prefix: str = ""
    language: str | None = None


def window_of(memory: Memory, start: int, end: int, language: str | None) -> Window:
    """Return the window of the segment [start, end); `language` is that of the segment, if it is known."""
    within = _prefix_of(memory, start, end)
    before = memory.said[: len(memory.said) - len(within)]
    window_start = within[0].start if within else start
    is_near = bool(before) and window_start - before[-1].end <= PROMPT_GAP
    prompt = " ".join(said.text for said in before)[-PROMPT_CHARACTERS:] if is_near else ""
    if len(prompt) == PROMPT_CHARACTERS:
        prompt = prompt.partition(" ")[2] or prompt  # begin with a whole word
    prefix = " ".join(said.text for said in within)
    return Window(window_start, start, end, prompt, prefix, language)


def needed_from(memory: Memory, base: int) -> int:
    """Return the first sample that a segment from `base` on may need in its window."""
    within = _prefix_of(memory, base, base)
    return within[0].start if within else base


def remember(memory: Memory, text: str, start: int, end: int) -> Memory:
    """Return the memory after the final of the segment [start, end)."""
    said = (*memory.said, Said(text=text, start=start, end=end))
    characters, first = 0, len(said)
    while (
        first > 0 and len(said) - first < MAX_SAID and (characters < PROMPT_CHARACTERS or len(said) - first < MIN_SAID)
    ):
        first -= 1
        characters += len(said[first].text) + 1
    needed = _prefix_of(memory.model_copy(update={"said": said}), end, end)
    first = max(min(first, len(said) - len(needed)), len(said) - MAX_SAID)
    return memory.model_copy(update={"said": said[first:]})


def _prefix_of(memory: Memory, start: int, end: int) -> tuple[Said, ...]:
    """Return the finals whose audio belongs to the window of the segment [start, end)."""
    first, begins = len(memory.said), start
    while first > 0:
        said = memory.said[first - 1]
        is_far = begins - said.end > PREFIX_GAP
        if is_far or start - said.start > PREFIX_LENGTH or end - said.start > WINDOW_LENGTH:
            break
        first, begins = first - 1, said.start
    return memory.said[first:]
