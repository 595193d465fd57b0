"""The transcriber's settings, read once at start from WHISPERLINE_TRANSCRIBER_…"""

from pydantic import Field, FilePath
from pydantic_settings import SettingsConfigDict
from whisperline_contracts.settings import DeployableSettings

from whisperline_transcriber.stream.segmentation import Segmentation


class Settings(DeployableSettings):
    """Every setting, with its unit in its name. The README's table says the same."""

    model_config = SettingsConfigDict(env_prefix="WHISPERLINE_TRANSCRIBER_")

    group: str = "transcriber"
    instance_id: str | None = None  # static membership: a restart within the session timeout moves no partition
    session_timeout_ms: int = Field(default=10_000, ge=6_000)
    triton_url: str = "127.0.0.1:8101"  # host:port of Triton's gRPC
    model: str = "whisper"
    rollout_keep_s: float = Field(
        default=2, ge=0
    )  # how long a session's model version is held before it is asked again
    vad_model: FilePath  # Silero's ONNX file
    metrics_host: str = "127.0.0.1"
    metrics_port: int = Field(default=8120, ge=0, le=65_535)

    pre_roll_ms: int = Field(default=300, ge=0, le=2_000)
    max_length_ms: int = Field(default=28_000, ge=5_000, le=28_000)
    partial_cadence_ms: int = Field(default=700, ge=100)
    finals_in_flight: int = Field(default=16, ge=1)  # requests to Triton for live finals; half as many for files
    partials_in_flight: int = Field(default=4, ge=0)  # requests to Triton; 0 turns partials off
    max_buffered_s: int = Field(default=3_600, ge=60)  # audio that waits in memory, of all sessions, at the most
    idle_timeout_s: float = Field(default=90, gt=0)  # a session without records for so long is ended
    remember_s: float = Field(default=600, ge=0)  # a session that is over still answers a client that comes back
    commit_interval_s: float = Field(default=1, gt=0)
    dead_letters_in_a_row: int = Field(default=20, ge=1)  # as many stop the process
    drain_deadline_s: float = Field(default=10, gt=0)
    vad_noise: float = Field(default=0, ge=0)  # for tests only: deviation of noise on every probability

    def segmentation(self, end_silence_ms: int) -> Segmentation:
        """Return how a session is cut whose client asked for `end_silence_ms`."""
        return Segmentation(
            pre_roll_ms=self.pre_roll_ms, max_length_ms=self.max_length_ms, end_silence_ms=end_silence_ms
        )
