"""WAV from a socket: whatever the pieces, the same samples; whatever the lie, a clear error."""

import contextlib
import io
import struct
import wave
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from whisperline_gateway.errors import ClientError
from whisperline_gateway.protocol.pcm import PcmFormat, RawParser
from whisperline_gateway.protocol.wav import MAX_SKIPPED_BYTES, WavParser

FORMATS = st.builds(PcmFormat, st.integers(8_000, 48_000), st.integers(1, 8))
GUID = bytes.fromhex("0100000000001000800000aa00389b71")


def chunk(name: bytes, data: bytes, size: int | None = None) -> bytes:
    return name + struct.pack("<I", len(data) if size is None else size) + data + b"\0" * (len(data) % 2)


def fmt(pcm: PcmFormat, code: int = 1, bits: int = 16, **lies: int) -> bytes:
    block = lies.get("block", pcm.frame_bytes)
    rate = lies.get("byte_rate", pcm.bytes_per_s)
    return struct.pack("<HHIIHH", code, pcm.channels, pcm.sample_rate, rate, block, bits)


def riff(*chunks: bytes, size: int | None = None) -> bytes:
    body = b"WAVE" + b"".join(chunks)
    return b"RIFF" + struct.pack("<I", len(body) if size is None else size) + body


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [data[start:end] for start, end in pairwise(edges)]


def decode(file: bytes, cuts: list[int] | None = None) -> tuple[PcmFormat | None, bytes]:
    parser = WavParser()
    samples = b"".join(parser.parse(piece) for piece in pieces(file, cuts or []))
    parser.finish()
    return parser.format, samples


def refused(file: bytes) -> str:
    with pytest.raises(ClientError) as caught:
        decode(file, list(range(0, 4096, 7)))
    assert caught.value.code == "UNREADABLE_AUDIO"
    return caught.value.message


PCM = PcmFormat(16_000, 1)


@given(FORMATS, st.binary(min_size=16, max_size=400), st.lists(st.integers(0, 10_000)), st.booleans())
def test_any_pieces_give_the_same_samples(pcm: PcmFormat, audio: bytes, cuts: list[int], extra: bool) -> None:
    """The samples of a file do not depend on how it is cut; chunks around them are skipped."""
    audio = audio[: len(audio) - len(audio) % pcm.frame_bytes]
    notes = [chunk(b"LIST", b"odd")] if extra else []
    file = riff(*notes, chunk(b"fmt ", fmt(pcm)), *notes, chunk(b"data", audio), *notes)
    assert decode(file, cuts) == (pcm, audio)


@given(st.sampled_from([0, 0xFFFFFFFF]), st.sampled_from([0, 0xFFFFFFFF]), st.binary(min_size=2, max_size=200))
def test_streaming_sizes_last_until_the_end(riff_size: int, data_size: int, audio: bytes) -> None:
    """A WAV file without a length, as programs write to pipes, lasts until the stream ends."""
    file = riff(chunk(b"fmt ", fmt(PCM)), b"data" + struct.pack("<I", data_size) + audio, size=riff_size)
    assert decode(file) == (PCM, audio[: len(audio) // 2 * 2])


def test_what_pythons_wave_module_writes_is_read() -> None:
    """A file that Python's wave module wrote is read correctly."""
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(2)
        file.setsampwidth(2)
        file.setframerate(44_100)
        file.writeframes(b"\1\2\3\4" * 100)
    assert decode(buffer.getvalue(), [5, 6, 50]) == (PcmFormat(44_100, 2), b"\1\2\3\4" * 100)


def test_the_extensible_format_is_read_if_it_is_pcm() -> None:
    """WAVE_FORMAT_EXTENSIBLE carries PCM, or something else, by its GUID."""
    extension = struct.pack("<HHI", 22, 16, 4)
    extensible = fmt(PCM, code=0xFFFE) + extension + GUID
    assert decode(riff(chunk(b"fmt ", extensible), chunk(b"data", b"abcd"))) == (PCM, b"abcd")
    floats = fmt(PCM, code=0xFFFE) + extension + b"\3" + GUID[1:]
    assert "16-bit PCM" in refused(riff(chunk(b"fmt ", floats), chunk(b"data", b"abcd")))


def test_a_file_that_ends_early_is_taken_as_it_is() -> None:
    """A file that is shorter than announced gives the samples that it has."""
    file = riff(chunk(b"fmt ", fmt(PCM)), b"data" + struct.pack("<I", 1000) + b"ab", size=1036)
    assert decode(file) == (PCM, b"ab")


@pytest.mark.parametrize(
    "file",
    [
        pytest.param(b"\x00\x01garbage that is no header", id="garbage"),
        pytest.param(b"RIFF\0\0\0\0AVI LIST", id="another RIFF"),
        pytest.param(b"OggS" + bytes(60), id="another container"),
        pytest.param(riff(chunk(b"data", b"abcd")), id="no format"),
        pytest.param(riff(chunk(b"fmt ", b"short"), chunk(b"data", b"abcd")), id="short format"),
        pytest.param(riff(chunk(b"fmt ", fmt(PCM), size=70_000)), id="long format"),
        pytest.param(riff(*2 * [chunk(b"fmt ", fmt(PCM))], chunk(b"data", b"abcd")), id="two formats"),
        pytest.param(riff(chunk(b"fmt ", fmt(PCM, code=3, bits=32))), id="floats"),
        pytest.param(riff(chunk(b"fmt ", fmt(PCM, bits=8))), id="8 bits"),
        pytest.param(riff(chunk(b"fmt ", fmt(PcmFormat(16_000, 9)))), id="nine channels"),
        pytest.param(riff(chunk(b"fmt ", fmt(PcmFormat(16_000, 0)))), id="no channels"),
        pytest.param(riff(chunk(b"fmt ", fmt(PcmFormat(7_999, 1)))), id="too slow"),
        pytest.param(riff(chunk(b"fmt ", fmt(PcmFormat(96_000, 1)))), id="too fast"),
        pytest.param(riff(chunk(b"fmt ", fmt(PCM, byte_rate=44_100))), id="byte rate"),
        pytest.param(riff(chunk(b"fmt ", fmt(PCM, block=4))), id="block size"),
        pytest.param(riff(chunk(b"fmt ", fmt(PCM)), chunk(b"data", b"abcd", size=9_000)), id="data beyond the file"),
        pytest.param(riff(chunk(b"fmt ", fmt(PCM)), chunk(b"data", b"abcd")) + b"more audio", id="more than announced"),
        pytest.param(riff(chunk(b"JUNK", b"", size=MAX_SKIPPED_BYTES + 1)), id="endless header"),
        pytest.param(riff(chunk(b"fmt ", fmt(PCM)))[:30], id="half a header"),
    ],
)
def test_what_is_no_such_file_or_lies_is_refused(file: bytes) -> None:
    """Garbage, other formats, and headers that contradict themselves or what follows are errors."""
    assert refused(file)


@given(st.binary(min_size=1, max_size=300), st.lists(st.integers(0, 300)))
def test_no_bytes_break_the_reader(data: bytes, cuts: list[int]) -> None:
    """Any bytes give samples or a ClientError."""
    for start in (b"", b"RIFF\xff\xff\xff\xffWAVE", riff(chunk(b"fmt ", fmt(PCM)), size=0)):
        with contextlib.suppress(ClientError):
            decode(start + data, cuts)


def test_an_empty_stream_is_no_error() -> None:
    """A stream without any audio is no error."""
    assert decode(b"") == (None, b"")


@given(st.integers(1, 8), st.binary(max_size=200), st.lists(st.integers(0, 200)))
def test_odd_pieces_of_raw_audio_are_joined(channels: int, audio: bytes, cuts: list[int]) -> None:
    """Bytes of an unfinished sample wait for the next frame; the last ones of the stream are dropped."""
    parser = RawParser(PcmFormat(16_000, channels))
    outputs = [parser.parse(piece) for piece in pieces(audio, cuts)]
    assert all(len(output) % (2 * channels) == 0 for output in outputs)
    assert b"".join(outputs) == audio[: len(audio) - len(audio) % (2 * channels)]
