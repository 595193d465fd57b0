"""Return the text that a live client gets for a recording, without a broker, a gateway or a clock.

Finals depend on the samples alone, not on when they arrive. So this module drives the transcriber's own `Session` over
the recording and asks the engine as the transcriber asks Triton: what comes out is the live text.
"""

from collections.abc import Generator
from dataclasses import dataclass
from functools import cache

import numpy as np
from clips import Pcm
from in_process import Answer, Ask
from ours import CACHE
from recordings import Recording
from whisperline_contracts import AudioChunk, AudioKind, Final, StreamOptions
from whisperline_local.assets import SILERO
from whisperline_transcriber.decoding.triton import Lane, request_of
from whisperline_transcriber.settings import Settings
from whisperline_transcriber.stream.context import Window
from whisperline_transcriber.stream.hypothesis import Transcript
from whisperline_transcriber.stream.offline import Offline
from whisperline_transcriber.stream.session import Session
from whisperline_transcriber.stream.vad import VoiceActivity

CHUNK_S = 1.0  # of audio in a record; any length gives the same finals


@dataclass(frozen=True)
class Change:
    """What happens to the samples before they are sent: `gain_db` of amplification, then `offset` (full scale is 1)."""

    gain_db: float = 0.0
    offset: float = 0.0


def live_text(
    recording: Recording,
    options: StreamOptions,
    change: Change | None = None,
    at_pauses: list[tuple[Window, Transcript]] | None = None,
) -> Generator[Ask, Answer, list[Final]]:
    """Return the finals of a recording as a task of `InProcess`.

    If there is a list `at_pauses`, every pause is decoded, and what was decoded is appended.
    """
    change = change or Change()
    pcm, rate = recording.read()
    if change != Change():
        changed = pcm * 10 ** (change.gain_db / 20) + change.offset * 32_768
        pcm = changed.round().clip(-32_768, 32_767).astype(np.int16)
    records = _records(recording.id, pcm, rate, options)
    session = Session.started(records[0], _settings().segmentation(options.endpointing_ms))
    offline = Offline(session, _voice_activity(), eagerly=at_pauses is not None)
    for offset, record in enumerate(records):
        session.append_record(record, offset)
        windows = offline.go_on()
        try:
            window = next(windows)
            while True:
                request = request_of(session, window)
                answer = yield Ask(session.read(window), request.options(Lane.FINAL))
                transcript = Transcript.model_validate(answer)
                if at_pauses is not None:
                    at_pauses.append((window, transcript))
                window = windows.send(transcript)
        except StopIteration:
            pass
    return offline.finals


def _records(session_id: str, pcm: Pcm, rate: int, options: StreamOptions) -> list[AudioChunk]:
    """Return the records of a session: its START, its audio, and its END."""
    step = int(CHUNK_S * rate)
    parts = [(AudioKind.START, 0, b"")]
    parts += [(AudioKind.AUDIO, at, pcm[at : at + step].tobytes()) for at in range(0, len(pcm), step)]
    parts += [(AudioKind.END, len(pcm), b"")]
    return [
        AudioChunk(session_id, "bench", "bench", kind, number, at, rate, 0, options=options, data=data)
        for number, (kind, at, data) in enumerate(parts)
    ]


@cache
def _settings() -> Settings:
    return Settings(vad_model=CACHE / SILERO.folder / SILERO.members[0])


@cache
def _voice_activity() -> VoiceActivity:
    return VoiceActivity(_settings().vad_model)
