"""What a client knows of its session, whatever connections come and go. No I/O."""

from dataclasses import replace

from whisperline_client import events
from whisperline_client.buffer import HandInTimes, UnackedAudio
from whisperline_client.errors import ConnectionLost
from whisperline_client.options import ListenOptions
from whisperline_client.retry import Outage, RetryPolicy


class Session:
    """The audio that is not durable yet, the latest resume token, and the next final to deliver."""

    def __init__(self, options: ListenOptions, retry: RetryPolicy, buffer_s: float) -> None:
        limit_bytes = int(buffer_s * options.sample_rate) * options.frame_bytes
        self.options = options
        self.session_id: str | None = None
        self.next_segment_index = 0
        self.buffer = UnackedAudio(options.frame_bytes, limit_bytes)
        self.outage = Outage(retry)
        self._times = HandInTimes(options.sample_rate)
        self._resume_token: str | None = None

    def query(self) -> dict[str, str]:
        """Return the query of the next connection: a new session's, or one that resumes this one."""
        query = self.options.query()
        if self.session_id is not None and self._resume_token is not None:
            query |= {"session_id": self.session_id, "resume_token": self._resume_token}
            query["finals_from"] = str(self.next_segment_index)
        return query

    def hand_in(self, data: bytes, now_s: float) -> None:
        """Add audio that follows what was handed in before."""
        self.buffer.append(data)
        self._times.note(self.buffer.end, now_s)

    def take(self, message: events.Message, now_s: float) -> events.Event | None:
        """Return what the caller should hear of a message; None for what it has heard already.

        Raises `ConnectionLost` if a final is missing: a new connection asks for it.
        """
        match message:
            case events.Started() | events.Resumed():
                self.session_id, self._resume_token = message.session_id, message.resume_token
                self.outage.session_open = True
            case events.Ack():
                self._acknowledge(message)
            case events.Partial():
                return message if message.segment_index >= self.next_segment_index else None
            case events.Final():
                return self._next_final(message, now_s)
            case events.Metadata():
                self._check_complete(message)
                return None
            case events.Fault():
                return None
        return message

    def _check_complete(self, summary: events.Metadata) -> None:
        if summary.segment_count > self.next_segment_index:
            raise ConnectionLost(f"only {self.next_segment_index} of {summary.segment_count} finals came")

    def _acknowledge(self, ack: events.Ack) -> None:
        if ack.position > self.buffer.start:
            self.outage.over()
        self._resume_token = ack.resume_token
        self.buffer.acknowledge(ack.position)

    def _next_final(self, final: events.Final, now_s: float) -> events.Final | None:
        if final.segment_index > self.next_segment_index:
            raise ConnectionLost(f"final {final.segment_index} came before final {self.next_segment_index}")
        if final.segment_index < self.next_segment_index:
            return None
        self.next_segment_index += 1
        self.outage.over()
        spoken_ms = final.words[-1].end_ms if final.words else final.end_ms
        return replace(final, delay_s=self._times.delay_s(spoken_ms, now_s))
