"""The plumbing that every Whisperline process has in common, written once.

    settings       reads environment variables and files, once at start
    process        runs a process from its start to its stop
    broker         connects to Kafka; `create_topics` creates the topics
    producer       writes to Kafka until records are durable; the dead-letter policy
    retry          waits between attempts
    probes         answers an orchestrator's probes and Prometheus
    logs, tracing  structured logs and OpenTelemetry traces

The package knows nothing about audio, text or sessions. Its errors are drawn in `errors`.
"""
