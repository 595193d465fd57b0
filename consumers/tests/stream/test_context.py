"""A segment is decoded with what was said shortly before it, and with nothing older."""

from hypothesis import given
from hypothesis import strategies as st
from whisperline_contracts import Memory, Said
from whisperline_transcriber.stream.context import (
    MAX_SAID,
    MIN_SAID,
    PREFIX_GAP,
    PREFIX_LENGTH,
    PROMPT_CHARACTERS,
    PROMPT_GAP,
    WINDOW_LENGTH,
    Window,
    needed_from,
    remember,
    window_of,
)

SECOND = 16_000


def memory_of(*segments: tuple[str, float, float]) -> Memory:
    """Return the memory of a session after these finals: text, start and end in seconds."""
    memory = Memory()
    for text, start_s, end_s in segments:
        memory = remember(memory, text, int(start_s * SECOND), int(end_s * SECOND))
    return memory


def window(memory: Memory, start_s: float, end_s: float) -> Window:
    return window_of(memory, int(start_s * SECOND), int(end_s * SECOND), "en")


def test_a_segment_soon_after_others_has_their_audio_and_text_before_it() -> None:
    """The window begins with the first of them, and their text is its prefix."""
    memory = memory_of(("I would like", 1, 3), ("to speak", 3.2, 4))
    expected = Window(SECOND, 4 * SECOND + SECOND // 2, 6 * SECOND, "", "I would like to speak", "en")
    assert window(memory, 4.5, 6) == expected


def test_older_text_is_the_prompt() -> None:
    """What is too long ago for the window is the prompt, as long as it is near the window."""
    memory = memory_of(("It was long.", 0, 9), ("I would", 9.2, 11))
    found = window(memory, 11.2, 13)
    assert (found.start, found.prefix, found.prompt) == (int(9.2 * SECOND), "I would", "It was long.")


def test_after_a_silence_a_segment_is_alone() -> None:
    """What was said long before it is no part of its window or its prompt."""
    memory = memory_of(("Goodbye.", 0, 2))
    late_s = 2 + (PROMPT_GAP + SECOND) / SECOND
    assert window(memory, late_s, late_s + 1) == Window(
        int(late_s * SECOND), int(late_s * SECOND), int((late_s + 1) * SECOND), "", "", "en"
    )


def test_a_long_segment_has_no_room_for_what_was_before_it() -> None:
    """The window never exceeds what Whisper sees, so the text before a long segment is its prompt."""
    memory = memory_of(("I would like", 0, 9))
    found = window(memory, 9.1, 36)
    assert (found.start, found.prefix, found.prompt) == (int(9.1 * SECOND), "", "I would like")


def test_a_prompt_is_short_and_begins_with_a_whole_word() -> None:
    """Of a long text, the last characters are the prompt."""
    memory = memory_of(("word " * 100 + "end.", 0, 20))
    prompt = window(memory, 20.5, 28).prompt
    assert prompt.startswith("word ")
    assert prompt.endswith("end.")
    assert len(prompt) <= PROMPT_CHARACTERS


def test_many_short_segments_do_not_make_the_memory_long() -> None:
    """A client that sends FINALIZE with every word does not make the session's progress grow."""
    memory = memory_of(*((f"word{n}", 0.1 * n, 0.1 * n + 0.05) for n in range(60)))
    assert [said.text for said in memory.said] == [f"word{n}" for n in range(60 - MAX_SAID, 60)]


segments = st.lists(
    st.tuples(st.integers(1, 28 * SECOND), st.integers(0, 6 * SECOND), st.text("ab ", max_size=80)), max_size=60
)


@given(segments)
def test_the_memory_is_bounded_and_never_needs_audio_that_was_dropped(made: list[tuple[int, int, str]]) -> None:
    """What a later segment needs begins no earlier than what an earlier one needed."""
    memory, end, needed = Memory(), 0, 0
    for n_before, (length, gap, text) in enumerate(made):
        start = end + gap
        found = window_of(memory, start, start + length, None)
        assert needed <= found.start <= start
        assert found.end - found.start <= max(WINDOW_LENGTH, length)
        assert start - found.start <= PREFIX_LENGTH
        end = start + length
        memory = remember(memory, text, start, end)
        assert min(n_before + 1, MIN_SAID) <= len(memory.said) <= MAX_SAID
        assert memory.said[-1] == Said(text=text, start=start, end=end)
        assert needed_from(memory, end) >= needed
        needed = needed_from(memory, end)
        assert needed_from(memory, end + PREFIX_GAP + 1) == end + PREFIX_GAP + 1
