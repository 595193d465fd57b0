"""One connection, whatever its protocol.

connection   the life of a connection: open, stream, finish
uplink       the audio on its way into Kafka
acks         the Acks that tell the client which audio is durable
downlink     the session's events on their way to the client
outbox       the messages that wait for the client, and the task that writes them
"""
