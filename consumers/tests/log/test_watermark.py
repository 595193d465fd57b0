"""The low watermark is the oldest offset that is still needed."""

from hypothesis import given
from hypothesis import strategies as st
from whisperline_transcriber.log.watermark import Watermark


def test_it_stays_at_the_oldest_record_that_is_needed() -> None:
    """An unfinished segment holds the watermark at its first record; when it is done the watermark moves on."""
    watermark = Watermark(10)
    for offset, session in [(10, "a"), (11, "b"), (12, "a")]:
        watermark.note_read(offset)
        watermark.need_audio(session, offset, 100 * offset)
    assert watermark.low() == 10
    watermark.release_audio("a", 1_100)
    assert watermark.low() == 11
    watermark.forget("b")
    assert watermark.low() == 12
    watermark.release_audio("a", 1_200)
    assert watermark.low() == 13


def test_a_held_record_is_needed_until_released() -> None:
    """A record that opens a session is needed until its progress is durable."""
    watermark = Watermark(0)
    watermark.note_read(0)
    watermark.hold("a", 0)
    watermark.note_read(1)
    watermark.need_audio("a", 1, 100)
    watermark.release_audio("a", 100)
    assert watermark.low() == 0
    watermark.release("a", 0)
    assert watermark.low() == 2


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["audio", "done", "forget"])), max_size=60))
def test_no_needed_offset_is_ever_below_it(events: list[tuple[str, str]]) -> None:
    """The watermark equals that of a simple model: the smallest offset still needed, or the next one to read."""
    watermark, position = Watermark(0), 0
    needed: dict[str, list[int]] = {session: [] for session in "abc"}
    for session, event in events:
        if event == "audio":
            watermark.note_read(position)
            watermark.need_audio(session, position, position)
            needed[session].append(position)
            position += 1
        elif event == "done":
            watermark.release_audio(session, position - 2)
            needed[session] = [offset for offset in needed[session] if offset > position - 2]
        else:
            watermark.forget(session)
            needed[session] = []
        assert watermark.low() == min([offset for each in needed.values() for offset in each], default=position)
