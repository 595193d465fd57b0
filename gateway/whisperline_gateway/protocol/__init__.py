"""The client protocols: pure translations between their own messages and the core's, without I/O.

    messages            the core's messages, and the interface that every protocol implements
    pcm, wav, tokens    what protocols share: audio in pieces, and signed resume tokens
    deepgram/           Deepgram's live API

A protocol is a package in this folder with a `PROTOCOL`, its class. `protocols` finds it, so adding one touches its own
folder and nothing else.
"""

from importlib import import_module
from pkgutil import iter_modules

from whisperline_gateway.protocol.messages import ClientProtocol


def protocols() -> dict[str, type[ClientProtocol]]:
    """Return every protocol by the path of its WebSocket."""
    packages = [module.name for module in iter_modules(__path__) if module.ispkg]
    found: list[type[ClientProtocol]] = [import_module(f"{__name__}.{name}").PROTOCOL for name in packages]
    return {protocol.path: protocol for protocol in found}
