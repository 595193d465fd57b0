"""The state of a session that outlives its connections. No I/O."""

from dataclasses import replace

from whisperline_client import events
from whisperline_client.buffer import CaptureTimes, UnackedAudio
from whisperline_client.errors import ConnectionLost
from whisperline_client.options import ListenOptions
from whisperline_client.retry import Outage, RetryPolicy


class SessionState:
    """Holds the audio that is not durable yet, the latest resume token, and the index of the next final to deliver."""

    def __init__(self, options: ListenOptions, retry: RetryPolicy, buffer_s: float) -> None:
        limit_bytes = int(buffer_s * options.sample_rate) * options.frame_bytes
        self.options = options
        self.session_id: str | None = None
        self.next_segment_index = 0
        self.buffer = UnackedAudio(options.frame_bytes, limit_bytes)
        self.outage = Outage(retry)
        self._times = CaptureTimes(options.sample_rate)
        self._resume_token: str | None = None

    def query(self) -> dict[str, str | list[str]]:
        """Return the query of the next connection, which opens the session or resumes it."""
        query = self.options.query()
        # Without a session id this connection opens the session.
        if self.session_id is not None and self._resume_token is not None:
            query |= {"session_id": self.session_id, "resume_token": self._resume_token}
            query["finals_from"] = str(self.next_segment_index)
        return query

    def append_audio(self, data: bytes, now_s: float) -> None:
        """Add the audio that follows what was appended before."""
        self.buffer.append(data)
        self._times.record(self.buffer.end, now_s)

    def apply_message(self, message: events.Message, now_s: float) -> events.Event | None:
        """Update the state, and return the event for the caller; None if it is nothing new for the caller.

        Raises `ConnectionLost` if a final is missing: the next connection asks for it.
        """
        match message:
            case events.Started() | events.Resumed():
                self.session_id, self._resume_token = message.session_id, message.resume_token
                self.outage.session_open = True
            case events.Ack():
                # An Ack that covers no new audio is not progress, so the outage continues.
                if message.position > self.buffer.start:
                    self.outage.note_progress()
                self._resume_token = message.resume_token
                self.buffer.acknowledge(message.position)
            case events.Partial():
                return message if message.segment_index >= self.next_segment_index else None
            case events.Final():
                return self._next_final(message, now_s)
            case events.Metadata():
                if message.segment_count > self.next_segment_index:
                    raise ConnectionLost(f"only {self.next_segment_index} of {message.segment_count} finals came")
                return None
            case events.Fault():
                return None
        return message

    def _next_final(self, final: events.Final, now_s: float) -> events.Final | None:
        """Return the final with its delay, or None if it was delivered before: gateways deliver at least once."""
        if final.segment_index > self.next_segment_index:
            raise ConnectionLost(f"final {final.segment_index} came before final {self.next_segment_index}")
        if final.segment_index < self.next_segment_index:
            return None
        self.next_segment_index += 1
        self.outage.note_progress()
        # The silence that closed the segment is not a part of the delay.
        spoken_ms = final.words[-1].end_ms if final.words else final.end_ms
        return replace(final, delay_s=self._times.delay_s(spoken_ms, now_s))
