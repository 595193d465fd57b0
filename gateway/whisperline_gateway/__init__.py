"""The gateway: client protocols in front, Kafka behind. `python -m whisperline_gateway` runs it."""
