"""Test the rights of charts/data on a real Kafka and a real PostgreSQL: each process has enough, and no more."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
import pytest
import pytest_asyncio
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import GroupAuthorizationFailedError, TopicAuthorizationFailedError
from aiokafka.protocol.admin import CreateAclsRequest
from pydantic import SecretStr
from rendering import of_kind, render
from secure_kafka import PASSWORD, USER, SecureKafka, secure_kafka
from stacks import local_settings
from websockets.asyncio.client import connect
from whisperline_contracts.topics import (
    AUDIO_CHUNKS,
    AUDIO_CHUNKS_DEAD,
    SESSION_PROGRESS,
    TRANSCRIPTIONS,
    TRANSCRIPTIONS_DEAD,
    topics,
)
from whisperline_local import Stack
from whisperline_local.assets import SILERO, fetch
from whisperline_local.kafka import fetch_broker
from whisperline_local.probes import http_ok
from whisperline_persistence import Store
from whisperline_runtime.broker import Broker
from whisperline_runtime.create_topics import create_topics

pytestmark = [pytest.mark.integration, pytest.mark.asyncio(loop_scope="module")]

LIMIT_S = 90.0
DEPLOYABLES = ("gateway", "transcriber", "persistence")
PASSWORDS = {f"kafka-{name}": f"the-word-of-{name}" for name in DEPLOYABLES}
PORTS = {"gateway": 19_480, "transcriber": 19_481, "persistence": 19_482}
READY = "/health/ready"
OBJECTS = render("data")
# Kafka's own codes: ResourceType, PatternType, AclOperation, AclPermissionType.
TYPES, LITERAL, OPERATIONS, ALLOW = {"topic": 2, "group": 3}, 3, {"Read": 3, "Write": 4}, 3


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def postgres(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    """Yield a server with the roles of the rendered Cluster, and with Whisperline's tables, made by their owner."""
    settings = local_settings(tmp_path_factory.mktemp("postgres"), name="charts, rights")
    async with Stack(settings, services=("postgres",)) as running:
        await asyncio.to_thread(make_database, url(running, "postgres", "postgres"))
        owner = {"WHISPERLINE_PERSISTENCE_DATABASE_URL": database_url(running, "whisperline")}
        async with process(
            "persistence", {**owner, **kafka_settings("persistence", nowhere())}, "migrate"
        ) as migrating:
            assert await migrating.wait() == 0
        yield running


def make_database(superuser: str) -> None:
    """Create what CloudNativePG creates with a cluster: the owner, its database, the SQL after it, the managed role."""
    (spec,) = (found["spec"] for found in of_kind(OBJECTS, "Cluster"))
    initdb, (role,) = spec["bootstrap"]["initdb"], spec["managed"]["roles"]
    with psycopg.connect(superuser, autocommit=True) as connection:
        connection.execute(f"CREATE ROLE {initdb['owner']} LOGIN PASSWORD '{PASSWORD}'")
        connection.execute(f"CREATE DATABASE rights OWNER {initdb['owner']}")
    with psycopg.connect(superuser.replace("/postgres?", "/rights?"), autocommit=True) as connection:
        for statement in initdb["postInitApplicationSQL"]:
            connection.execute(statement)
        connection.execute(f"ALTER ROLE {role['name']} LOGIN PASSWORD '{PASSWORD}'")


def url(running: Stack, user: str, database: str) -> str:
    """Return the server's URL for another user or database."""
    parts = psycopg.conninfo.conninfo_to_dict(running.database_url)
    password = parts["password"] if user == "postgres" else PASSWORD
    return f"postgresql://{user}:{password}@{parts['host']}:{parts['port']}/{database}?connect_timeout=10"


def database_url(running: Stack, user: str) -> str:
    return url(running, user, "rights")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def kafka(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[SecureKafka]:
    """Yield a broker with the topics, and with the users of the rendered KafkaUsers and their rights."""
    folder = tmp_path_factory.mktemp("kafka")
    jars = await fetch_broker(local_settings(folder))
    with secure_kafka(jars, folder, PASSWORDS) as running:
        async with asyncio.timeout(LIMIT_S):
            await create_topics(broker(running, USER), topics(2, 2))
            await allow(running)
        yield running


async def allow(running: SecureKafka) -> None:
    """Give every user its rights, as Strimzi's user operator does."""
    admin = AIOKafkaAdminClient(**broker(running, USER).client_options())
    await admin.start()
    try:
        for user in of_kind(OBJECTS, "KafkaUser"):
            for acl in user["spec"]["authorization"]["acls"]:
                for operation in acl["operations"]:
                    resource = acl["resource"]
                    assert resource["patternType"] == "literal"
                    what = (TYPES[resource["type"]], resource["name"], LITERAL)
                    who = (f"User:{user['metadata']['name']}", "*", OPERATIONS[operation], ALLOW)
                    answer = await admin._send_request(CreateAclsRequest(*what, *who))
                    assert [code for code, _ in answer.creation_responses] == [0]
    finally:
        await admin.close()


def broker(running: SecureKafka, user: str) -> Broker:
    password = SecretStr(PASSWORD if user == USER else PASSWORDS[user])
    return Broker(running.bootstrap, "SASL_SSL", "SCRAM-SHA-512", user, password, running.ca_file)


def nowhere() -> SecureKafka:
    return SecureKafka("127.0.0.1:1", Path(__file__))


def kafka_settings(name: str, running: SecureKafka) -> dict[str, str]:
    """Return a process's Kafka settings with its own user."""
    prefix = f"WHISPERLINE_{name.upper()}_KAFKA_"
    if running.bootstrap == nowhere().bootstrap:
        return {f"{prefix}BOOTSTRAP": running.bootstrap}
    return {
        f"{prefix}BOOTSTRAP": running.bootstrap,
        f"{prefix}SECURITY_PROTOCOL": "SASL_SSL",
        f"{prefix}SASL_MECHANISM": "SCRAM-SHA-512",
        f"{prefix}SASL_USERNAME": f"kafka-{name}",
        f"{prefix}SASL_PASSWORD": PASSWORDS[f"kafka-{name}"],
        f"{prefix}CA_FILE": str(running.ca_file),
    }


@asynccontextmanager
async def process(name: str, env: dict[str, str], *arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run a process with these settings and no others."""
    command = (sys.executable, "-m", f"whisperline_{name}", *arguments)
    running = await asyncio.create_subprocess_exec(*command, env=env)
    try:
        yield running
    finally:
        if running.returncode is None:
            running.kill()
        await running.wait()


@asynccontextmanager
async def client(opened: Any) -> AsyncIterator[Any]:
    await opened.start()
    try:
        yield opened
    finally:
        await opened.stop()


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(LIMIT_S):
        while not await condition():  # noqa: ASYNC110 - what another process does sets no event here
            await asyncio.sleep(0.1)


async def test_each_deployable_does_all_its_work_with_its_own_rights(
    kafka: SecureKafka, postgres: Stack, tmp_path: Path
) -> None:
    """A session is stored, its progress is logged, and every reader moves aside what it cannot read."""
    model = await fetch(SILERO, local_settings(tmp_path)) / SILERO.members[0]
    service = database_url(postgres, "whisperline_service")
    own = {
        "gateway": {"TOKEN_SECRET": "the secret of the tests", "DATABASE_URL": service, "PORT": str(PORTS["gateway"])},
        "transcriber": {"VAD_MODEL": str(model), "METRICS_PORT": str(PORTS["transcriber"])},
        "persistence": {"DATABASE_URL": service, "METRICS_PORT": str(PORTS["persistence"])},
    }
    async with AsyncExitStack() as running, Store.open(service) as store:
        for name in DEPLOYABLES:
            settings = {f"WHISPERLINE_{name.upper()}_{key}": value for key, value in own[name].items()}
            await running.enter_async_context(process(name, {**settings, **kafka_settings(name, kafka)}))
        for name in DEPLOYABLES:
            await until(partial(http_ok, PORTS[name], READY))
        session = await streamed()
        await until(partial(ended, store, session))
        await spoil(kafka)
        letters = await read(kafka, {AUDIO_CHUNKS_DEAD: 1, TRANSCRIPTIONS_DEAD: 2, SESSION_PROGRESS: 1})
    consumers = [dict(record.headers)["dead_letter.consumer"] for record in letters if "dead" in record.topic]
    assert sorted(consumers) == [b"gateway-0", b"persistence", b"transcriber"]


async def streamed() -> str:
    """Stream a second of silence and return the session's id."""
    listen = f"ws://127.0.0.1:{PORTS['gateway']}/v1/listen?encoding=linear16&sample_rate=16000&acks=true"
    async with connect(listen, proxy=None) as socket, asyncio.timeout(LIMIT_S):
        await socket.send(bytes(32_000))
        await socket.send(json.dumps({"type": "CloseStream"}))
        messages = [json.loads(message) async for message in socket]
    assert messages[-1]["type"] == "Metadata"
    return str(messages[-1]["request_id"])


async def ended(store: Store, session: str) -> bool:
    found = await store.session(session)
    return found is not None and found.duration_ms == 1000


async def spoil(running: SecureKafka) -> None:
    """Write an unreadable record to both topics."""
    async with client(AIOKafkaProducer(**broker(running, USER).client_options())) as producer:
        for topic in (AUDIO_CHUNKS, TRANSCRIPTIONS):
            await producer.send_and_wait(topic, b"{", partition=0)


async def read(running: SecureKafka, wanted: dict[str, int]) -> list[Any]:
    """Read topics from their beginning until each has given this many records."""
    options = broker(running, USER).client_options()
    found: list[Any] = []
    async with (
        client(AIOKafkaConsumer(*wanted, **options, auto_offset_reset="earliest", group_id=None)) as consumer,
        asyncio.timeout(LIMIT_S),
    ):
        while any(sum(record.topic == topic for record in found) < count for topic, count in wanted.items()):
            found.append(await consumer.getone())
    return found


@pytest.mark.parametrize(
    ("user", "topic"),
    [
        ("kafka-gateway", TRANSCRIPTIONS),
        ("kafka-gateway", SESSION_PROGRESS),
        ("kafka-gateway", AUDIO_CHUNKS_DEAD),
        ("kafka-persistence", TRANSCRIPTIONS),
        ("kafka-persistence", AUDIO_CHUNKS),
        ("kafka-transcriber", TRANSCRIPTIONS_DEAD),
    ],
)
async def test_a_user_cannot_write_what_is_not_its_own(kafka: SecureKafka, user: str, topic: str) -> None:
    """Only the transcriber may write transcripts and progress."""
    async with client(AIOKafkaProducer(**broker(kafka, user).client_options())) as producer:
        with pytest.raises(TopicAuthorizationFailedError):
            await producer.send_and_wait(topic, b"{}", partition=0)


@pytest.mark.parametrize(
    ("user", "topic", "group", "refusal"),
    [
        ("kafka-gateway", AUDIO_CHUNKS, None, TopicAuthorizationFailedError),
        ("kafka-persistence", AUDIO_CHUNKS, None, TopicAuthorizationFailedError),
        ("kafka-transcriber", TRANSCRIPTIONS, None, TopicAuthorizationFailedError),
        ("kafka-persistence", TRANSCRIPTIONS, "transcriber", GroupAuthorizationFailedError),
        ("kafka-gateway", TRANSCRIPTIONS, "persistence", GroupAuthorizationFailedError),
    ],
)
async def test_a_user_cannot_read_what_is_not_its_own(
    kafka: SecureKafka, user: str, topic: str, group: str | None, refusal: type[Exception]
) -> None:
    """Only the transcriber may read audio, and nobody may join another's consumer group."""
    options = broker(kafka, user).client_options()
    consumer = AIOKafkaConsumer(topic, **options, group_id=group, auto_offset_reset="earliest")
    with pytest.raises(refusal):
        async with client(consumer), asyncio.timeout(LIMIT_S):
            await consumer.getone()


@pytest.mark.parametrize(
    "statement",
    ["DROP TABLE words", "CREATE TABLE mine (id int)", "ALTER TABLE sessions ADD mine int", "TRUNCATE words"],
)
async def test_the_service_role_owns_nothing(postgres: Stack, statement: str) -> None:
    """The gateway's role may change rows, but no tables."""
    async with await psycopg.AsyncConnection.connect(database_url(postgres, "whisperline_service")) as connection:
        await connection.execute("SELECT count(*) FROM sessions")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            await connection.execute(statement)
