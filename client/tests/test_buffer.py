import pytest
from hypothesis import given
from hypothesis import strategies as st
from whisperline_client.buffer import CaptureTimes, UnackedAudio
from whisperline_client.errors import AudioGone


@given(st.lists(st.binary(max_size=40)), st.integers(1, 8), st.integers(1, 60))
def test_what_is_read_is_what_was_appended(chunks: list[bytes], channels: int, limit: int) -> None:
    """Reading yields the whole samples in order, however the audio was cut."""
    audio = UnackedAudio(2 * channels, 10**6)
    for chunk in chunks:
        audio.append(chunk)
    read, position = b"", 0
    while data := audio.read(position, limit + 2 * channels):
        read += data
        position += len(data) // (2 * channels)
    whole = b"".join(chunks)
    assert read == whole[: len(whole) - len(whole) % (2 * channels)]
    assert position == audio.end


@given(st.binary(max_size=400), st.lists(st.integers(-5, 300)))
def test_only_acknowledged_audio_is_forgotten(data: bytes, acknowledged: list[int]) -> None:
    """After any acknowledgements, in any order, all audio from the highest one on can be read."""
    audio = UnackedAudio(2, 10**6)
    audio.append(data)
    for position in acknowledged:
        audio.acknowledge(position)
    assert audio.start == max(0, *(min(position, len(data) // 2) for position in [*acknowledged, 0]))
    assert audio.end == len(data) // 2
    assert audio.read(audio.start, 10**6) == data[2 * audio.start : 2 * audio.end]


def test_audio_outside_the_window() -> None:
    """Audio that was acknowledged, or has not been appended yet, cannot be read."""
    audio = UnackedAudio(2, 100)
    audio.append(bytes(20))
    audio.acknowledge(4)
    for position in (3, 11):
        with pytest.raises(AudioGone, match=str(position)):
            audio.read(position, 10)


def test_space() -> None:
    """The buffer has space until the unacknowledged audio reaches the limit, and again once it shrinks."""
    audio = UnackedAudio(2, 10)
    audio.append(bytes(10))
    assert not audio.has_space
    audio.acknowledge(1)
    assert audio.has_space


@given(st.lists(st.integers(1, 4_000), min_size=1, max_size=50), st.data())
def test_delays(chunks: list[int], data: st.DataObject) -> None:
    """A delay counts from the moment when the chunk that holds the time was appended, within 50 ms of audio."""
    times, end = CaptureTimes(16_000), 0
    for samples in chunks:
        end += samples
        times.record(end, end / 16_000)
    time_ms = data.draw(st.integers(0, end // 16))
    delay_s = times.delay_s(time_ms, end / 16_000 + 1)
    assert delay_s is not None
    expected_s = 1 + end / 16_000 - time_ms / 1000
    assert expected_s - 0.05 - max(chunks) / 16_000 - 1e-6 <= delay_s <= expected_s + 0.001


def test_a_time_that_was_not_appended() -> None:
    """The delay of audio that has not been appended is not known."""
    times = CaptureTimes(16_000)
    times.record(1600, 1.0)
    assert times.delay_s(200, 2.0) is None
