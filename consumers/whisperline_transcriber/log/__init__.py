"""The log: what is read from Kafka, decided there, and written to it."""
