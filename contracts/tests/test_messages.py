"""Messages are read back equal, and unreadable ones raise one error with a reason."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from whisperline_contracts import (
    AudioChunk,
    AudioKind,
    DeadLetter,
    Event,
    Final,
    Finalized,
    Partial,
    Progress,
    Resumed,
    SegmentEnd,
    SessionEnd,
    SessionStart,
    SpeechStarted,
    StreamOptions,
    UnreadableMessage,
    UtteranceEnd,
    Word,
    decode_event,
    decode_progress,
    encode_event,
    encode_progress,
)
from whisperline_contracts.topics import (
    AUDIO_CHUNKS,
    MAX_AUDIO_BYTES,
    MAX_MESSAGE_BYTES,
    SESSION_PROGRESS,
    topics,
)

texts = st.text(st.characters(codec="utf-8"), max_size=80)
names = st.text(st.characters(codec="utf-8"), min_size=1, max_size=128)
naturals = st.integers(0, 2**62)
milliseconds = st.integers(-(2**62), 2**62)
probabilities = st.floats(0, 1)
sample_rates = st.integers(8_000, 48_000)
channels = st.integers(1, 8)

options = st.builds(
    StreamOptions,
    language=st.none() | st.from_regex(r"[a-z]{2,3}", fullmatch=True),
    interim_results=st.booleans(),
    priority=st.sampled_from(["live", "file"]),
    endpointing_ms=st.integers(100, 5_000),
    utterance_end_ms=st.none() | st.integers(1_000, 10_000),
)

_origin = {"session_id": texts, "connection_id": texts, "client_id": texts, "time_ms": milliseconds}
_span = {"segment_index": naturals, "start_ms": milliseconds, "end_ms": milliseconds}

words = st.builds(Word, word=texts, start_ms=milliseconds, end_ms=milliseconds, confidence=probabilities)
finals = st.builds(
    Final,
    **_origin,
    **_span,
    text=texts,
    words=st.lists(words, max_size=4).map(tuple),
    language=texts,
    confidence=probabilities,
    reason=st.sampled_from(SegmentEnd),
    model=texts,
    model_version=texts,
    position=naturals,
)
session_starts = st.builds(SessionStart, **_origin, sample_rate=sample_rates, channels=channels, options=options)
session_ends = st.builds(
    SessionEnd,
    **_origin,
    segment_count=naturals,
    duration_ms=milliseconds,
    reason=st.sampled_from(["closed", "idle", "unknown"]),
)
events: st.SearchStrategy[Event] = st.one_of(
    session_starts,
    finals,
    session_ends,
    st.builds(SpeechStarted, **_origin, segment_index=naturals, start_ms=milliseconds),
    st.builds(Partial, **_origin, **_span, text=texts, stable_text=texts),
    st.builds(Finalized, **_origin, position_ms=milliseconds),
    st.builds(UtteranceEnd, **_origin, last_word_end_ms=milliseconds),
    st.builds(Resumed, **_origin, position=naturals, next_segment_index=naturals),
)

progresses = st.builds(
    Progress,
    session_id=texts,
    connection_id=texts,
    client_id=texts,
    reply_partition=naturals,
    sample_rate=sample_rates,
    channels=channels,
    options=options,
    revision=st.integers(1, 2**62),
    owner=texts,
    attached_at=naturals,
    base=naturals,
    next_segment_index=naturals,
    last_word_end_ms=st.none() | milliseconds,
    final=st.none() | finals,
    end=st.none() | session_ends,
)


@st.composite
def chunks(draw: st.DrawFn) -> AudioChunk:
    """Draw a record of `audio_chunks` that a gateway may write: only AUDIO carries samples, and whole ones."""
    kind = draw(st.sampled_from(AudioKind))
    channel_count = draw(channels)
    samples = draw(st.integers(0, 64)) if kind is AudioKind.AUDIO else 0
    size_bytes = samples * 2 * channel_count
    return AudioChunk(
        session_id=draw(names),
        connection_id=draw(names),
        client_id=draw(names),
        kind=kind,
        sequence=draw(naturals),
        position=draw(naturals),
        sample_rate=draw(sample_rates),
        reply_partition=draw(naturals),
        channels=channel_count,
        options=draw(options),
        traceparent=draw(st.none() | texts),
        data=draw(st.binary(min_size=size_bytes, max_size=size_bytes)),
    )


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
unknown_fields = st.dictionaries(texts.map(lambda name: f"new_{name}"), json_values, min_size=1, max_size=3)
newer_minors = st.integers(1, 999_999).map(lambda minor: f"1.{minor}")
other_majors = st.integers(0, 999_999).filter(lambda major: major != 1).map(lambda major: f"{major}.0")
no_versions = st.text(max_size=12).filter(lambda text: not (text.replace(".", "", 1).isdigit() and "." in text))
any_headers = st.lists(st.tuples(st.text(max_size=20), st.none() | st.binary(max_size=40)), max_size=20)


@given(chunks())
def test_a_chunk_is_read_as_it_was_written(chunk: AudioChunk) -> None:
    """A chunk's headers and bytes give the chunk back."""
    assert AudioChunk.from_record(chunk.headers(), chunk.data) == chunk


@given(events)
def test_an_event_is_read_as_it_was_written(event: Event) -> None:
    """An event's JSON gives the event back, of the same type and with every float exact."""
    decoded = decode_event(encode_event(event))
    assert decoded == event
    assert type(decoded) is type(event)


@given(progresses)
def test_progress_is_read_as_it_was_written(progress: Progress) -> None:
    """A session's progress, with the final and the end that it carries, is read back equal."""
    assert decode_progress(encode_progress(progress)) == progress


@given(chunks(), newer_minors, st.dictionaries(texts.map(lambda name: f"new_{name}"), texts.map(str.encode)))
def test_a_chunk_of_a_newer_minor_is_read(chunk: AudioChunk, version: str, added: dict[str, bytes]) -> None:
    """Readers ignore headers and options that a newer minor version added."""
    headers = {**dict(chunk.headers()), "schema": version.encode(), **added}
    headers["options"] = json.dumps({**json.loads(headers["options"]), "new_option": 1}).encode()
    assert AudioChunk.from_record(headers.items(), chunk.data) == chunk


@given(events, newer_minors, unknown_fields)
def test_an_event_of_a_newer_minor_is_read(event: Event, version: str, added: dict[str, Any]) -> None:
    """Readers ignore fields that a newer minor version added, and keep the version of the message."""
    value = json.dumps({**json.loads(encode_event(event)), **added, "schema": version}).encode()
    assert decode_event(value) == event.model_copy(update={"schema_version": version})


@given(progresses, newer_minors, unknown_fields)
def test_progress_of_a_newer_minor_is_read(progress: Progress, version: str, added: dict[str, Any]) -> None:
    """Readers ignore fields that a newer minor version added to the progress."""
    value = json.dumps({**json.loads(encode_progress(progress)), **added, "schema": version}).encode()
    assert decode_progress(value) == progress.model_copy(update={"schema_version": version})


@given(chunks(), events, progresses, other_majors | no_versions)
def test_another_major_is_refused(chunk: AudioChunk, event: Event, progress: Progress, version: str) -> None:
    """A message of another major version, or without a version, is refused with a reason that names the version."""
    with pytest.raises(UnreadableMessage, match="schema version"):
        AudioChunk.from_record({**dict(chunk.headers()), "schema": version.encode()}.items(), chunk.data)
    with pytest.raises(UnreadableMessage, match="schema version"):
        decode_event(json.dumps({**json.loads(encode_event(event)), "schema": version}).encode())
    with pytest.raises(UnreadableMessage, match="schema version"):
        decode_progress(json.dumps({**json.loads(encode_progress(progress)), "schema": version}).encode())


@given(events, json_values)
def test_the_version_is_judged_before_the_rest(event: Event, other: Any) -> None:
    """A newer major version is the reason for the refusal, whatever its fields hold."""
    value = dict.fromkeys(json.loads(encode_event(event)), other)
    with pytest.raises(UnreadableMessage, match=r"schema version 2\.0"):
        decode_event(json.dumps({**value, "schema": "2.0"}).encode())
    with pytest.raises(UnreadableMessage, match=r"schema version 2\.0"):
        decode_progress(json.dumps({**value, "schema": "2.0"}).encode())


@given(any_headers, st.none() | st.binary(max_size=200))
def test_any_headers_and_bytes_are_a_chunk_or_unreadable(headers: list[tuple[str, bytes]], value: bytes | None) -> None:
    """Reading arbitrary bytes and headers of `audio_chunks` raises nothing but `UnreadableMessage`."""
    with pytest.raises(UnreadableMessage):
        AudioChunk.from_record(headers, value)


@given(chunks(), st.data())
def test_a_chunk_with_a_wrong_header_is_a_chunk_or_unreadable(chunk: AudioChunk, data: st.DataObject) -> None:
    """Reading a record with one arbitrary header gives a chunk or raises `UnreadableMessage`."""
    headers = dict(chunk.headers())
    name = data.draw(st.sampled_from(sorted(headers)))
    headers[name] = data.draw(st.binary(max_size=40) | texts.map(str.encode) | naturals.map(lambda n: str(n).encode()))
    _chunk_or_unreadable(headers, data.draw(st.binary(max_size=40)))


@given(chunks(), st.data())
def test_a_missing_header_is_named(chunk: AudioChunk, data: st.DataObject) -> None:
    """A record without one of the headers is refused, and the reason names it."""
    headers = dict(chunk.headers())
    name = data.draw(st.sampled_from(sorted(headers.keys() - {"traceparent"})))
    del headers[name]
    with pytest.raises(UnreadableMessage, match=f"'{name}' is missing"):
        AudioChunk.from_record(headers.items(), chunk.data)


@given(st.none() | st.binary(max_size=200))
def test_any_bytes_are_no_event(value: bytes | None) -> None:
    """Arbitrary bytes are refused with `UnreadableMessage`."""
    with pytest.raises(UnreadableMessage):
        decode_event(value)
    with pytest.raises(UnreadableMessage):
        decode_progress(value or b"")


@given(events, progresses, st.data())
def test_any_value_of_a_field_is_read_or_unreadable(event: Event, progress: Progress, data: st.DataObject) -> None:
    """Reading a message with one arbitrary field raises nothing but `UnreadableMessage`."""
    for value, decode in ((encode_event(event), decode_event), (encode_progress(progress), decode_progress)):
        fields = json.loads(value)
        fields[data.draw(st.sampled_from(sorted(fields)))] = data.draw(json_values)
        try:
            decode(json.dumps(fields).encode())
        except UnreadableMessage as error:
            assert error.reason  # noqa: PT017 - either outcome is right


@given(events, st.data())
def test_a_cut_event_is_unreadable(event: Event, data: st.DataObject) -> None:
    """A truncated event is refused."""
    value = encode_event(event)
    with pytest.raises(UnreadableMessage):
        decode_event(value[: data.draw(st.integers(0, len(value) - 1))])


@pytest.mark.parametrize(
    ("changes", "value", "reason"),
    [
        ({"kind": b"audio"}, b"odd", "no whole number"),
        ({"kind": b"audio"}, bytes(MAX_AUDIO_BYTES + 2), "the limit is"),
        ({"kind": b"end"}, b"ab", "must not carry audio"),
        ({"kind": b"shout"}, b"", "is not known"),
        ({"encoding": b"opus"}, b"", "is not known"),
        ({"sample_rate": b"7999"}, b"", "not a whole number from 8000 to 48000"),
        ({"sample_rate": "\N{FULLWIDTH DIGIT NINE}000".encode()}, b"", "not a whole number"),
        ({"channels": b"0"}, b"", "not a whole number"),
        ({"position": b"-1"}, b"", "not a whole number"),
        ({"session_id": b""}, b"", "1 to 128 characters"),
        ({"session_id": b"x" * 129}, b"", "1 to 128 characters"),
        ({"client_id": b"\xff"}, b"", "not UTF-8"),
        ({"options": b"{"}, b"", "'options' is wrong"),
        ({"options": b'{"priority": "now"}'}, b"", "'options' is wrong"),
    ],
)
def test_what_is_wrong_with_a_chunk_is_said(changes: dict[str, bytes], value: bytes, reason: str) -> None:
    """The reason of an unreadable chunk tells a person what to look for."""
    chunk = AudioChunk("s", "c", "me", AudioKind.AUDIO, 0, 0, 16_000, 0)
    with pytest.raises(UnreadableMessage, match=reason):
        AudioChunk.from_record({**dict(chunk.headers()), **changes}.items(), value)


@given(chunks())
def test_a_chunk_knows_its_samples(chunk: AudioChunk) -> None:
    """A chunk's samples are counted per channel."""
    assert chunk.samples * 2 * chunk.channels == len(chunk.data)


@given(any_headers.map(tuple), texts, naturals, naturals)
def test_a_dead_letter_keeps_the_record_and_says_where_it_lay(
    original: tuple[tuple[str, bytes], ...], reason: str, partition: int, offset: int
) -> None:
    """A dead letter's headers are those of the record, then the reason and the origin."""
    headers = DeadLetter(reason, "transcriptions", partition, offset, "persistence").headers(original)
    assert tuple(headers[: len(original)]) == original
    assert dict(headers[len(original) :]) == {
        "dead_letter.reason": reason.encode(),
        "dead_letter.topic": b"transcriptions",
        "dead_letter.partition": str(partition).encode(),
        "dead_letter.offset": str(offset).encode(),
        "dead_letter.consumer": b"persistence",
    }


@given(st.lists(progresses, min_size=1, max_size=6))
def test_progress_counts_once_for_each_revision(written: list[Progress]) -> None:
    """Only the first record of a revision counts, and no revision is skipped."""
    counted: Progress | None = None
    revisions = []
    for progress in written:
        if progress.follows(counted):
            counted = progress
            revisions.append(progress.revision)
    assert revisions == list(range(written[0].revision, written[0].revision + len(revisions)))


@given(st.integers(1, 64), st.integers(1, 64))
def test_a_session_has_one_partition_number(audio_partitions: int, reply_partitions: int) -> None:
    """Audio and progress have the same number of partitions, and every topic accepts the largest message."""
    by_name = {topic.name: topic for topic in topics(audio_partitions, reply_partitions)}
    assert by_name[AUDIO_CHUNKS].partitions == by_name[SESSION_PROGRESS].partitions == audio_partitions
    assert {topic.config["max.message.bytes"] for topic in by_name.values()} == {str(MAX_MESSAGE_BYTES)}


def _chunk_or_unreadable(headers: dict[str, bytes], value: bytes) -> None:
    try:
        chunk = AudioChunk.from_record(headers.items(), value)
    except UnreadableMessage as error:
        assert error.reason  # noqa: PT017 - either outcome is right
    else:
        assert chunk.samples >= 0
