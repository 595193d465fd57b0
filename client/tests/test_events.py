import dataclasses
import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from whisperline_client import events
from whisperline_client.errors import ProtocolError

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
)
TYPES = ["SessionStarted", "Resumed", "Ack", "SpeechStarted", "Results", "UtteranceEnd", "Metadata", "Error", "Other"]
FIELDS = [
    "session_id",
    "connection_id",
    "resume_token",
    "position",
    "timestamp",
    "code",
    "message",
    "action",
    "is_final",
    "start",
    "duration",
    "channel",
    "segment_index",
    "segment_count",
    "last_word_end",
]


def results(**changes: Any) -> dict[str, Any]:
    """Return a final as the gateway sends it."""
    word = {"word": "ask", "punctuated_word": "Ask,", "start": 3.12, "end": 3.4, "confidence": 0.9}
    best = {"transcript": "Ask, not.", "confidence": 0.8, "languages": ["en"], "words": [word]}
    flags = {"is_final": True, "speech_final": True, "from_finalize": False, "segment_index": 2}
    return {"type": "Results", "start": 3.1, "duration": 1.2, "channel": {"alternatives": [best]}, **flags, **changes}


def test_a_final() -> None:
    """A final has its text, its words with their punctuation, and whole milliseconds."""
    final = events.decode(json.dumps(results()))
    assert final == events.Final(2, 3100, 4300, "Ask, not.", (events.Word("Ask,", 3120, 3400, 0.9),), 0.8, True, False)


def test_a_partial() -> None:
    """An interim result has its stable prefix, words and confidence."""
    word = {"word": "ask", "punctuated_word": "ask", "start": 3.1, "end": 3.3, "confidence": 0.6}
    best = {"transcript": "ask not what", "stable_transcript": "ask not", "words": [word], "confidence": 0.7}
    partial = events.decode(json.dumps(results(is_final=False, channel={"alternatives": [best]})))
    words = (events.Word("ask", 3100, 3300, 0.6),)
    assert partial == events.Partial(2, 3100, 4300, "ask not what", "ask not", words, 0.7)


def test_the_answer_to_finalize_without_speech() -> None:
    """A final result without a segment is the answer to a Finalize, not a final."""
    assert isinstance(events.decode(json.dumps(results(segment_index=None))), events.Finalized)


def test_an_unknown_type() -> None:
    """A message type of a later version is ignored."""
    assert events.decode('{"type": "Weather", "sequence_id": 3}') is None


@given(st.sampled_from(TYPES), st.dictionaries(st.sampled_from(FIELDS), JSON))
def test_damaged_messages(kind: str, fields: dict[str, Any]) -> None:
    """Any JSON from a gateway is refused, or read with the types that events declare."""
    with suppress(ProtocolError):
        event = events.decode(json.dumps({**results(), **fields, "type": kind}))
        for declared in dataclasses.fields(event) if event is not None else ():
            expected = {"int": int, "str": str, "bool": bool, "float": float}.get(
                getattr(declared.type, "__name__", ""), object
            )
            assert isinstance(getattr(event, declared.name), expected)


@given(st.text(max_size=40) | st.binary(max_size=40))
def test_garbage(text: str | bytes) -> None:
    """Text that is not a message is refused, and the error quotes its beginning."""
    with pytest.raises(ProtocolError, match="the gateway sent"):
        events.decode(text)


def test_tokens_are_not_shown() -> None:
    """A resume token does not reach logs through an event's representation."""
    assert "secret" not in repr(events.Ack(5, "secret"))
