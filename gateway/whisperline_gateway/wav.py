"""WAV as it comes from a socket: the header is read from pieces of any size, and nothing is kept of the audio.

Source: Microsoft and IBM, "Multimedia Programming Interface and Data Specifications 1.0", RIFF WAVE; for
WAVE_FORMAT_EXTENSIBLE the Windows SDK's mmreg.h. Programs that write to a pipe cannot know the lengths, and
write 0 or 0xFFFFFFFF for them: then the audio lasts until the stream ends.
"""

import struct

from whisperline_contracts.audio import BYTES_PER_SAMPLE, MAX_CHANNELS, MAX_SAMPLE_RATE, MIN_SAMPLE_RATE

from whisperline_gateway.errors import unreadable_audio
from whisperline_gateway.pcm import PcmFormat, RawDecoder

MAX_SKIPPED_BYTES = 1024 * 1024  # of chunks that are not audio, before and after it
_STREAMING = (0, 0xFFFFFFFF)
_FORMAT = struct.Struct("<HHIIHH")
_MAX_FORMAT_BYTES = 1024
_PCM, _EXTENSIBLE = 1, 0xFFFE
_PCM_GUID_TAIL = bytes.fromhex("000000001000800000aa00389b71")  # of KSDATAFORMAT_SUBTYPE_PCM, after its code
_CHUNK_HEADER_BYTES = 8


class WavDecoder:
    """Reads one WAV file of 16-bit PCM, 1 to 8 channels, 8,000 to 48,000 Hz. See `pcm.Decoder`.

    A file that ends before its announced length is taken as it is (the speaker stopped). Audio beyond the announced
    length is an error, as is a header that contradicts itself: words would be lost without a sign.
    """

    def __init__(self) -> None:
        self.format: PcmFormat | None = None
        self._samples: RawDecoder | None = None
        self._header = bytearray()
        self._skip = 0  # bytes of a chunk that is being skipped
        self._seen = 0  # bytes before `_header`
        self._skipped = 0
        self._riff_end: int | None = None  # where the file says that it ends; None: it does not
        self._left: int | None = None  # bytes of audio that are still announced; None: until the stream ends
        self._riff_read = False

    def feed(self, data: bytes) -> bytes:
        """Return the whole samples among `data`; empty while the header is not complete."""
        if self._samples is None:
            self._header += data
            data = self._read_header()
        return b"" if self._samples is None else self._audio(self._samples, data)

    def finish(self) -> None:
        """Raise `ClientError` if the stream ended within the header. An empty stream is none."""
        if self._samples is None and (self._header or self._seen):
            raise unreadable_audio("it ended within the header of the WAV file")

    def _audio(self, samples: RawDecoder, data: bytes) -> bytes:
        if self._left is None:
            return samples.feed(data)
        audio, rest = data[: self._left], data[self._left :]
        self._left -= len(audio)
        if rest:
            self._trailer(len(rest))
        return samples.feed(audio)

    def _trailer(self, count: int) -> None:
        """Count what follows the audio: chunks of text, as far as the file says that it goes."""
        self._seen += count
        self._skipped += count
        beyond = self._riff_end is not None and self._seen > self._riff_end
        if beyond or self._skipped > MAX_SKIPPED_BYTES:
            raise unreadable_audio("more audio came than the WAV header announces")

    def _read_header(self) -> bytes:
        """Read as much of the header as is there; return the bytes after it."""
        while self._samples is None and self._read_chunk():
            pass
        if self._samples is None:
            return b""
        rest = bytes(self._header)
        self._header.clear()
        return rest

    def _read_chunk(self) -> bool:
        """Read one step of the header; return whether another one may be there."""
        if not self._riff_read:
            return self._read_riff()
        if self._skip:
            return self._read_skipped()
        if len(self._header) < _CHUNK_HEADER_BYTES:
            return False
        name, size = struct.unpack_from("<4sI", self._header)
        if name == b"data":
            self._take(_CHUNK_HEADER_BYTES)
            self._start_audio(size)
            return False
        if name == b"fmt ":
            return self._read_format(size)
        self._take(_CHUNK_HEADER_BYTES)
        self._skip_chunk(size)
        return True

    def _read_riff(self) -> bool:
        start = bytes(self._header[:12])
        if not b"RIFF".startswith(start[:4]) or not b"WAVE".startswith(start[8:12]):
            raise unreadable_audio("it does not begin with the header of a WAV file (RIFF ... WAVE)")
        if len(start) < 12:
            return False
        size = int.from_bytes(start[4:8], "little")
        self._riff_end = None if size in _STREAMING else size + _CHUNK_HEADER_BYTES
        self._riff_read = True
        self._take(12)
        return True

    def _read_format(self, size: int) -> bool:
        if not _FORMAT.size <= size <= _MAX_FORMAT_BYTES:
            raise unreadable_audio(f"the WAV header's format chunk has {size} bytes")
        if len(self._header) < _CHUNK_HEADER_BYTES + size:
            return False
        if self.format is not None:
            raise unreadable_audio("the WAV header has two format chunks")
        self.format = read_format(bytes(self._header[_CHUNK_HEADER_BYTES : _CHUNK_HEADER_BYTES + size]))
        self._take(_CHUNK_HEADER_BYTES + size)
        self._skip = size % 2
        return True

    def _skip_chunk(self, size: int) -> None:
        self._skip = size + size % 2  # chunks are padded to an even length
        self._skipped += self._skip
        if self._skipped > MAX_SKIPPED_BYTES:
            raise unreadable_audio(f"its WAV header has more than {MAX_SKIPPED_BYTES} bytes before the audio")

    def _read_skipped(self) -> bool:
        count = min(self._skip, len(self._header))
        self._take(count)
        self._skip -= count
        return self._skip == 0

    def _start_audio(self, size: int) -> None:
        if self.format is None:
            raise unreadable_audio("the WAV header has no format chunk before the audio")
        self._left = None if size in _STREAMING else size
        if self._left is not None:
            if self._riff_end is not None and self._seen + size > self._riff_end:
                raise unreadable_audio(f"the WAV header announces {size} bytes of audio in a file too short for them")
            self._seen += size
        self._samples = RawDecoder(self.format)

    def _take(self, count: int) -> None:
        del self._header[:count]
        self._seen += count


def read_format(chunk: bytes) -> PcmFormat:
    """Read a `fmt ` chunk of at least 16 bytes. Raises `ClientError` unless it is PCM that can be transcribed."""
    code, channels, sample_rate, byte_rate, block_bytes, bits = _FORMAT.unpack_from(chunk)
    if code == _EXTENSIBLE and len(chunk) >= 40 and chunk[26:40] == _PCM_GUID_TAIL:
        code = int.from_bytes(chunk[24:26], "little")
    if code != _PCM or bits != 8 * BYTES_PER_SAMPLE:
        raise unreadable_audio(f"the WAV file has format {code:#x} with {bits} bits a sample; needed is 16-bit PCM")
    if not 1 <= channels <= MAX_CHANNELS:
        raise unreadable_audio(f"the WAV file has {channels} channels; 1 to {MAX_CHANNELS} are possible")
    if not MIN_SAMPLE_RATE <= sample_rate <= MAX_SAMPLE_RATE:
        raise unreadable_audio(
            f"the WAV file has {sample_rate} Hz; {MIN_SAMPLE_RATE} to {MAX_SAMPLE_RATE} Hz are possible"
        )
    pcm = PcmFormat(sample_rate, channels)
    if block_bytes != pcm.frame_bytes or byte_rate != pcm.bytes_per_s:
        raise unreadable_audio("the WAV header contradicts itself: its rates do not fit its channels and bits")
    return pcm
