"""WAV as it comes from a socket: the header is read from pieces of any size, and no audio is kept.

The standard library's `wave` reads neither a stream whose length is unknown nor WAVE_FORMAT_EXTENSIBLE.

Sources: Microsoft and IBM, "Multimedia Programming Interface and Data Specifications 1.0", RIFF WAVE; for
WAVE_FORMAT_EXTENSIBLE the Windows SDK's mmreg.h. Programs that write to a pipe cannot know the lengths, and write 0 or
0xFFFFFFFF instead: the audio then lasts until the stream ends.
"""

import struct

from whisperline_contracts.audio import BYTES_PER_SAMPLE, MAX_CHANNELS, MAX_SAMPLE_RATE, MIN_SAMPLE_RATE

from whisperline_gateway.errors import unreadable_audio
from whisperline_gateway.protocol.pcm import PcmFormat, RawParser

MAX_SKIPPED_BYTES = 1024 * 1024  # of chunks that are not audio, before and after it
_UNKNOWN_LENGTHS = (0, 0xFFFFFFFF)
_FORMAT = struct.Struct("<HHIIHH")
_MAX_FORMAT_BYTES = 1024
_PCM, _EXTENSIBLE = 1, 0xFFFE
_PCM_GUID_TAIL = bytes.fromhex("000000001000800000aa00389b71")  # KSDATAFORMAT_SUBTYPE_PCM, after the format's code
_RIFF_BYTES = 12  # "RIFF", the file's length, "WAVE"
_CHUNK_HEADER_BYTES = 8


class WavParser:
    """Parses one WAV file of 16-bit PCM, 1 to 8 channels, 8,000 to 48,000 Hz. See `pcm.AudioParser`.

    A file that ends before its announced length is accepted as it is (the speaker stopped). Audio beyond the announced
    length is an error, and so is a header that contradicts itself: words would be lost silently.
    """

    def __init__(self) -> None:
        self.format: PcmFormat | None = None
        self._samples: RawParser | None = None  # once the header is complete
        self._header = bytearray()
        self._skip_bytes = 0  # what is left of a chunk that is being skipped
        self._seen_bytes = 0  # before `_header`
        self._skipped_bytes = 0
        self._riff_end: int | None = None  # where the file says that it ends, if it says so
        self._left_bytes: int | None = None  # of audio that is still announced; None: until the stream ends

    def parse(self, data: bytes) -> bytes:
        """Return the whole samples in `data`; nothing while the header is incomplete."""
        if self._samples is None:
            self._header += data
            while self._samples is None and self._read_header():
                pass
            if self._samples is None:
                return b""
            data = bytes(self._header)
            self._header.clear()
        if self._left_bytes is None:
            return self._samples.parse(data)
        audio, trailer = data[: self._left_bytes], data[self._left_bytes :]
        self._left_bytes -= len(audio)
        if trailer:  # chunks of text may follow the audio, within the length of the file
            self._seen_bytes += len(trailer)
            self._skipped_bytes += len(trailer)
            beyond = self._riff_end is not None and self._seen_bytes > self._riff_end
            if beyond or self._skipped_bytes > MAX_SKIPPED_BYTES:
                raise unreadable_audio("more audio came than the WAV header announces")
        return self._samples.parse(audio)

    def finish(self) -> None:
        """Raise `ClientError` if the stream ended within the header. An empty stream has none."""
        if self._samples is None and (self._header or self._seen_bytes):
            raise unreadable_audio("it ended within the header of the WAV file")

    def _read_header(self) -> bool:
        """Read one step of the header; return False if more bytes are needed, or the audio begins."""
        if self._seen_bytes == 0:
            return self._read_riff()
        if self._skip_bytes:
            count = min(self._skip_bytes, len(self._header))
            self._consume(count)
            self._skip_bytes -= count
            return self._skip_bytes == 0
        if len(self._header) < _CHUNK_HEADER_BYTES:
            return False
        name, size = struct.unpack_from("<4sI", self._header)
        if name == b"fmt ":
            return self._read_format(size)
        self._consume(_CHUNK_HEADER_BYTES)
        if name == b"data":
            self._begin_audio(size)
            return False
        self._skip_bytes = size + size % 2  # chunks are padded to an even length
        self._skipped_bytes += self._skip_bytes
        if self._skipped_bytes > MAX_SKIPPED_BYTES:
            raise unreadable_audio(f"its WAV header has more than {MAX_SKIPPED_BYTES} bytes before the audio")
        return True

    def _read_riff(self) -> bool:
        start = bytes(self._header[:_RIFF_BYTES])
        if not b"RIFF".startswith(start[:4]) or not b"WAVE".startswith(start[8:]):
            raise unreadable_audio("it does not begin with the header of a WAV file (RIFF ... WAVE)")
        if len(start) < _RIFF_BYTES:
            return False
        size = int.from_bytes(start[4:8], "little")
        self._riff_end = None if size in _UNKNOWN_LENGTHS else size + _CHUNK_HEADER_BYTES
        self._consume(_RIFF_BYTES)
        return True

    def _read_format(self, size: int) -> bool:
        if not _FORMAT.size <= size <= _MAX_FORMAT_BYTES:
            raise unreadable_audio(f"the WAV header's format chunk has {size} bytes")
        if len(self._header) < _CHUNK_HEADER_BYTES + size:
            return False
        if self.format is not None:
            raise unreadable_audio("the WAV header has two format chunks")
        self._consume(_CHUNK_HEADER_BYTES)
        self.format = read_format(bytes(self._header[:size]))
        self._consume(size)
        self._skip_bytes = size % 2
        return True

    def _begin_audio(self, size: int) -> None:
        if self.format is None:
            raise unreadable_audio("the WAV header has no format chunk before the audio")
        if size not in _UNKNOWN_LENGTHS:
            if self._riff_end is not None and self._seen_bytes + size > self._riff_end:
                raise unreadable_audio(f"the WAV header announces {size} bytes of audio in a file too short for them")
            self._left_bytes = size
            self._seen_bytes += size
        self._samples = RawParser(self.format)

    def _consume(self, count: int) -> None:
        del self._header[:count]
        self._seen_bytes += count


def read_format(chunk: bytes) -> PcmFormat:
    """Read a `fmt ` chunk of at least 16 bytes. Raises `ClientError` unless it is PCM that can be transcribed."""
    code, channels, sample_rate, byte_rate, block_bytes, bits = _FORMAT.unpack_from(chunk)
    if code == _EXTENSIBLE and len(chunk) >= 40 and chunk[26:40] == _PCM_GUID_TAIL:
        code = int.from_bytes(chunk[24:26], "little")
    if code != _PCM or bits != 8 * BYTES_PER_SAMPLE:
        raise unreadable_audio(f"the WAV file has format {code:#x} with {bits} bits a sample; 16-bit PCM is needed")
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
