"""What the transcriber measures, for Prometheus."""

from prometheus_client import Counter, Gauge, Histogram

EVENTS = Counter("whisperline_transcriber_events_total", "Events published", ["type"])
SHED = Counter("whisperline_transcriber_shed_total", "Partials and lively events not sent", ["reason"])
DEAD_LETTERS = Counter("whisperline_transcriber_dead_letters_total", "Records that could not be read")
STALE = Counter("whisperline_transcriber_stale_records_total", "Records of sessions that are over or unknown")
SUPERSEDED = Counter("whisperline_transcriber_superseded_total", "Decisions that another process had made first")
RETRIES = Counter("whisperline_transcriber_triton_retries_total", "Requests to Triton that were sent again")
REROUTED = Counter("whisperline_transcriber_rerouted_total", "Requests whose model version had just been unloaded")
ANSWERS = Counter(
    "whisperline_transcriber_answers_total",
    "Requests to a version of the model: answered, failed, refused, or gone (it is not served any more)",
    ["version", "outcome"],
)
SESSIONS = Gauge("whisperline_transcriber_sessions", "Sessions in memory")
BUFFERED = Gauge("whisperline_transcriber_buffered_seconds", "Audio in memory")
BACKLOG = Gauge("whisperline_transcriber_backlog_seconds", "Audio in memory that waits to be heard or decided")
LAG = Gauge("whisperline_transcriber_lag_records", "Records not yet read", ["partition"])
LAG_AGE = Gauge("whisperline_transcriber_lag_seconds", "Age of the oldest record not yet read", ["partition"])
IN_FLIGHT = Gauge("whisperline_transcriber_in_flight", "Requests to Triton under way", ["lane"])
VAD_BATCH = Histogram(
    "whisperline_transcriber_vad_batch",
    "Sessions in one voice-activity call",
    buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256),
)
DECODE = Histogram(
    "whisperline_transcriber_decode_seconds",
    "Time that Triton took",
    ["lane"],
    buckets=(0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1, 1.5, 2, 3, 5, 10),
)
FINAL = Histogram(
    "whisperline_transcriber_final_seconds",
    "Time from the close of a segment to its final being durable",
    ["priority"],
    buckets=(0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1, 1.5, 2, 3, 5, 10, 30),
)
