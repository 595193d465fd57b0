"""The plumbing that every Whisperline process has in common, written once.

    settings       what a process is told: environment variables and files, read once at start
    process        how it starts, and how it stops
    broker         how it reaches Kafka; `create_topics` makes the topics
    producer       how it writes to Kafka until the record is durable, and what happens to records it cannot read
    retry          how long it waits between two attempts
    probes         how an orchestrator and Prometheus look at it
    logs, tracing  what it says about its work

The package knows nothing about audio, text or sessions. Its errors are drawn in `errors`.
"""
