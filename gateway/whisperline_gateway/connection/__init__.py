"""One connection, whatever its protocol.

connection   its life: open, stream, finish
uplink       its audio, on the way into Kafka
acks         tells the client which audio is durable
downlink     its events, on the way to the client
outbox       messages that wait for the client, and what writes them
"""
