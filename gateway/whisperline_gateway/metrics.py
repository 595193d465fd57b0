"""The gateway's metrics, for Prometheus at `/metrics`."""

from prometheus_client import Counter, Gauge, Histogram

_LATENCY_BUCKETS_S = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60)

CONNECTIONS = Gauge("whisperline_gateway_connections", "Open sockets of /v1/listen")
DETACHED = Gauge("whisperline_gateway_detached_sessions", "Sessions whose client is away and may resume")
SESSIONS = Counter("whisperline_gateway_sessions_total", "Connections that began to stream", ["kind"])
RECEIVED_BYTES = Counter("whisperline_gateway_received_bytes_total", "Bytes in binary frames from clients")
STORED_BYTES = Counter("whisperline_gateway_stored_bytes_total", "Bytes of audio that Kafka has acknowledged")
SENT = Counter("whisperline_gateway_sent_messages_total", "Messages written to clients", ["type"])
DROPPED_PARTIALS = Counter("whisperline_gateway_dropped_partials_total", "Partials that a newer one replaced unread")
ERRORS = Counter("whisperline_gateway_errors_total", "Connections that ended with an error", ["code"])
VANISHED = Counter("whisperline_gateway_vanished_clients_total", "Connections that ended without CloseStream")
BACKFILLED = Counter("whisperline_gateway_backfilled_finals_total", "Finals that were read from the database")
UNROUTED = Counter("whisperline_gateway_unrouted_events_total", "Events of sessions that are not connected here")
DEAD_LETTERS = Counter("whisperline_gateway_dead_letters_total", "Events that cannot be read, in the dead letters")
ACK_LATENCY = Histogram(
    "whisperline_gateway_ack_seconds", "From a record's hand-over to Kafka to its ack", buckets=_LATENCY_BUCKETS_S
)
FINAL_LATENCY = Histogram(
    "whisperline_gateway_final_delivery_seconds",
    "From the making of a final to its hand-over to the socket",
    buckets=_LATENCY_BUCKETS_S,
)
