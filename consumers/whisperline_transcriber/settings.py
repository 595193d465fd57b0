"""The transcriber's settings, read once at start from WHISPERLINE_TRANSCRIBER_…"""

from pydantic import Field, FilePath
from pydantic_settings import SettingsConfigDict
from whisperline_runtime.settings import ConsumerSettings

from whisperline_transcriber.stream.segmentation import Segmentation


class Settings(ConsumerSettings):
    """The transcriber's settings, each with its unit in its name. The README's table describes the same settings."""

    model_config = SettingsConfigDict(env_prefix="WHISPERLINE_TRANSCRIBER_")

    group: str = Field(default="transcriber", description="consumer group")
    instance_id: str | None = Field(
        default=None, description="static membership: a restart within the session timeout moves no partition"
    )
    session_timeout_ms: int = Field(
        default=10_000, ge=6_000, description="a process without a heartbeat for this long loses its partitions"
    )
    triton_url: str = Field(default="127.0.0.1:8101", description="host:port of Triton's gRPC")
    model: str = Field(default="whisper", description="the model's name in Triton")
    rollout_keep_s: float = Field(
        default=2, ge=0, description="how long a session's model version is cached before it is looked up again"
    )
    vad_model: FilePath = Field(description="Silero's ONNX file")
    metrics_host: str = Field(default="127.0.0.1", description="address of the probes and metrics")
    metrics_port: int = Field(default=8120, ge=0, le=65_535, description="port of the probes and metrics")

    pre_roll_ms: int = Field(
        default=300, ge=0, le=1_500, description="audio before an onset and its soft beginning that is in the segment"
    )
    longest_pause_ms: int = Field(
        default=1_500, ge=500, le=5_000, description="silence that ends a turn, whatever was said before it"
    )
    max_length_ms: int = Field(default=28_000, ge=5_000, le=28_000, description="longest segment")
    partial_cadence_ms: int = Field(default=700, ge=100, description="least new audio between two partials")
    finals_in_flight: int = Field(
        default=16, ge=1, description="requests to Triton for live finals; files have half as many of their own"
    )
    speculations_in_flight: int = Field(
        default=4,
        ge=0,
        description="a segment that may be over is decoded early while fewer live finals are in flight; 0: never",
    )
    partials_in_flight: int = Field(default=4, ge=0, description="requests to Triton for partials; 0: no partials")
    max_buffered_s: int = Field(
        default=3_600,
        ge=60,
        description="most audio that waits in memory for voice activity or Triton, of all sessions",
    )
    idle_timeout_s: float = Field(default=90, gt=0, description="a session without records for this long is ended")
    remember_s: float = Field(
        default=600, ge=0, description="how long a client that comes back to an ended session still gets its end"
    )
    commit_interval_s: float = Field(default=1, gt=0, description="time between two commits of the low watermark")
    drain_deadline_s: float = Field(
        default=10, gt=0, description="at SIGTERM, the time for closed segments to become finals"
    )
    vad_noise: float = Field(
        default=0, ge=0, description="for tests only: deviation of noise added to every probability"
    )

    def segmentation(self, closing_ms: int | None) -> Segmentation:
        """Return the segmentation rules for a session whose client chose `closing_ms`, or none."""
        return Segmentation(
            pre_roll_ms=self.pre_roll_ms,
            max_length_ms=self.max_length_ms,
            closing_ms=closing_ms,
            longest_closing_ms=self.longest_pause_ms,
        )
