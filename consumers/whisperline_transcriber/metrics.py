"""The transcriber's metrics, for Prometheus. docs/metrics.md lists them."""

from prometheus_client import Counter, Gauge, Histogram

# Seconds. People notice a delay of half a second, and give up after ten.
LATENCY_BUCKETS = (0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1, 1.5, 2, 3, 5, 10, 30)

EVENTS = Counter("whisperline_transcriber_events_total", "Events published", ["type"])
PARTIALS = Counter(
    "whisperline_transcriber_partials_total",
    "Partials that were asked for: sent, or shed because Triton or Kafka was too slow",
    ["outcome"],
)
SPECULATIONS = Counter(
    "whisperline_transcriber_speculations_total",
    "Segments that were decoded before they closed: used as the final, discarded because speech went on, or failed",
    ["outcome"],
)
DEAD_LETTERS = Counter("whisperline_transcriber_dead_letters_total", "Records that could not be read")
STALE_RECORDS = Counter("whisperline_transcriber_stale_records_total", "Records of sessions that are over or unknown")
SUPERSEDED_DECISIONS = Counter(
    "whisperline_transcriber_superseded_decisions_total", "Decisions that another process had made first"
)
TRITON_RETRIES = Counter("whisperline_transcriber_triton_retries_total", "Requests to Triton that were sent again")
REROUTED_REQUESTS = Counter(
    "whisperline_transcriber_rerouted_requests_total", "Requests whose model version had just been unloaded"
)
ANSWERS = Counter(
    "whisperline_transcriber_answers_total",
    "Requests to a version of the model: answered, failed, refused, or gone (it is not served any more)",
    ["version", "outcome"],
)
SESSIONS = Gauge("whisperline_transcriber_sessions", "Sessions in memory")
BUFFERED_AUDIO = Gauge("whisperline_transcriber_buffered_audio_seconds", "Audio in memory")
UNTRANSCRIBED_AUDIO = Gauge(
    "whisperline_transcriber_untranscribed_audio_seconds",
    "Audio received that waits for voice activity or for a decision",
)
LAG_RECORDS = Gauge("whisperline_transcriber_lag_records", "Records not yet read", ["partition"])
LAG_SECONDS = Gauge("whisperline_transcriber_lag_seconds", "Age of the oldest record not yet read", ["partition"])
REQUESTS_IN_FLIGHT = Gauge("whisperline_transcriber_requests_in_flight", "Requests to Triton under way", ["lane"])
VAD_BATCH_SESSIONS = Histogram(
    "whisperline_transcriber_vad_batch_sessions",
    "Sessions in one voice-activity call",
    buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256),
)
DECODE_SECONDS = Histogram(
    "whisperline_transcriber_decode_seconds", "Time that Triton took", ["lane"], buckets=LATENCY_BUCKETS[:-1]
)
FINAL_SECONDS = Histogram(
    "whisperline_transcriber_final_seconds",
    "Time from the close of a segment to its final being durable",
    ["priority"],
    buckets=LATENCY_BUCKETS,
)
FIRST_PARTIAL_SECONDS = Histogram(
    "whisperline_transcriber_first_partial_seconds",
    "Time from the arrival in Kafka of a segment's first sample to its first partial",
    buckets=LATENCY_BUCKETS,
)
SPEECH_END_TO_FINAL_SECONDS = Histogram(
    "whisperline_transcriber_speech_end_to_final_seconds",
    "Time from the arrival in Kafka of the end of speech to its final being durable",
    ["priority"],
    buckets=LATENCY_BUCKETS,
)
