"""Deepgram's live API: `WS /v1/listen`. Everything in its shapes is in this package.

Source: Deepgram's reference of its live API (listen-streaming) and the types of its Python SDK 7.17
(`deepgram.listen.v1.types`). docs/protocol.md marks what is added to that API.
"""

from whisperline_gateway.protocol.deepgram.listen import DeepgramListen

PROTOCOL = DeepgramListen
