"""Run WhisperLive's server on loopback: the peer in `make bench-text` and `make bench-live`, in its own environment.

    python whisper_live_server.py MODEL_FOLDER PORT

Every client shares one model, as with WhisperLive's own command for a model of one's own; all else is its default.
"""

import sys

from whisper_live.server import TranscriptionServer

if __name__ == "__main__":
    folder, port = sys.argv[1:]
    TranscriptionServer().run(
        "127.0.0.1",
        port=int(port),
        backend="faster_whisper",
        faster_whisper_custom_model_path=folder,
        single_model=True,
        max_clients=1_000,
        max_connection_time=3_600,
    )
