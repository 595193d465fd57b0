"""Every deployable works with a real Kafka over TLS with a password, or says why Kafka refuses it."""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
import pytest_asyncio
import trustme
from pydantic import SecretStr
from secure_kafka import PASSWORD, USER, SecureKafka, secure_kafka
from stacks import local_settings
from websockets.asyncio.client import connect
from whisperline_contracts.topics import topics
from whisperline_local.assets import SILERO, fetch
from whisperline_local.kafka import fetch_broker
from whisperline_local.probes import http_ok
from whisperline_runtime.broker import Broker
from whisperline_runtime.create_topics import create_topics

pytestmark = [pytest.mark.integration, pytest.mark.asyncio(loop_scope="module")]

LIMIT_S = 60.0
GATEWAY_PORT, TRANSCRIBER_PORT = 19_380, 19_381
PREFIXES = {
    "whisperline_runtime": "WHISPERLINE_TOPICS_",
    "whisperline_gateway": "WHISPERLINE_GATEWAY_",
    "whisperline_transcriber": "WHISPERLINE_TRANSCRIBER_",
    "whisperline_persistence": "WHISPERLINE_PERSISTENCE_",
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def voice_activity_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The voice-activity model, which a transcriber needs to start."""
    return await fetch(SILERO, local_settings(tmp_path_factory.mktemp("silero"))) / SILERO.members[0]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def kafka(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[SecureKafka]:
    """A broker with the topics, which were created over TLS with the mechanism PLAIN."""
    folder = tmp_path_factory.mktemp("kafka")
    jars = await fetch_broker(local_settings(folder))
    with secure_kafka(jars, folder) as running:
        password = SecretStr(PASSWORD)
        broker = Broker(running.bootstrap, "SASL_SSL", "PLAIN", USER, password, running.ca_file)
        async with asyncio.timeout(LIMIT_S):
            await create_topics(broker, topics(2, 2))
        yield running


@pytest.fixture
def secrets_dir(tmp_path: Path) -> Path:
    """A folder of secrets with the right password for every deployable."""
    for prefix in PREFIXES.values():
        (tmp_path / f"{prefix}kafka_sasl_password".lower()).write_text(PASSWORD + "\n")
    (tmp_path / "whisperline_gateway_token_secret").write_text("the secret of the tests")
    return tmp_path


def environment(module: str, kafka: SecureKafka, secrets_dir: Path, model: Path) -> dict[str, str]:
    own = {
        "whisperline_runtime": {"AUDIO_PARTITIONS": "2", "REPLY_PARTITIONS": "2"},
        "whisperline_gateway": {"DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none", "PORT": str(GATEWAY_PORT)},
        "whisperline_transcriber": {"VAD_MODEL": str(model), "METRICS_PORT": str(TRANSCRIBER_PORT)},
        "whisperline_persistence": {"DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none", "METRICS_PORT": "0"},
    }
    settings = {
        "KAFKA_BOOTSTRAP": kafka.bootstrap,
        "KAFKA_SECURITY_PROTOCOL": "SASL_SSL",
        "KAFKA_SASL_MECHANISM": "SCRAM-SHA-512",
        "KAFKA_SASL_USERNAME": USER,
        "KAFKA_CA_FILE": str(kafka.ca_file),
        **own[module],
    }
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("WHISPERLINE_")}
    prefixed = {f"{PREFIXES[module]}{name}": value for name, value in settings.items()}
    return {**inherited, **prefixed, "WHISPERLINE_SECRETS_DIR": str(secrets_dir)}


@asynccontextmanager
async def process(module: str, env: dict[str, str]) -> AsyncIterator[asyncio.subprocess.Process]:
    command = (sys.executable, "-m", module)
    running = await asyncio.create_subprocess_exec(*command, env=env, stderr=asyncio.subprocess.PIPE)
    try:
        yield running
    finally:
        if running.returncode is None:
            running.kill()
        await running.communicate()


async def ended(module: str, env: dict[str, str]) -> tuple[int | None, str]:
    async with process(module, env) as running, asyncio.timeout(LIMIT_S):
        _, errors = await running.communicate()
    return running.returncode, errors.decode()


async def until_ready(port: int, path: str) -> None:
    async with asyncio.timeout(LIMIT_S):
        while not await http_ok(port, path):  # noqa: ASYNC110 - what another process does sets no event here
            await asyncio.sleep(0.05)


async def test_a_stream_goes_through_gateway_and_transcriber_over_tls(
    kafka: SecureKafka, secrets_dir: Path, voice_activity_model: Path
) -> None:
    """With the right password in a file, silence is made durable and read, and the session's end comes back."""
    async with AsyncExitStack() as running:
        for module in ("whisperline_gateway", "whisperline_transcriber"):
            env = environment(module, kafka, secrets_dir, voice_activity_model)
            await running.enter_async_context(process(module, env))
        await until_ready(GATEWAY_PORT, "/health/ready")
        await until_ready(TRANSCRIBER_PORT, "/health/ready")
        url = f"ws://127.0.0.1:{GATEWAY_PORT}/v1/listen?encoding=linear16&sample_rate=16000&acks=true"
        async with connect(url, proxy=None) as socket, asyncio.timeout(LIMIT_S):
            await socket.send(bytes(32_000))
            await socket.send(json.dumps({"type": "CloseStream"}))
            messages = [json.loads(message) async for message in socket]
    assert messages[-1]["type"] == "Metadata"
    assert messages[-1]["duration"] == 1.0


async def test_persistence_joins_its_group_over_tls(
    kafka: SecureKafka, secrets_dir: Path, voice_activity_model: Path
) -> None:
    """Persistence joins its group over TLS and gets every partition of `transcriptions`."""
    module = "whisperline_persistence"
    async with process(module, environment(module, kafka, secrets_dir, voice_activity_model)) as running:
        assert running.stderr is not None
        async with asyncio.timeout(LIMIT_S):
            while b"assigned partitions [0, 1]" not in (line := await running.stderr.readline()):
                assert line, "the process ended"


async def test_the_command_finds_its_topics_over_tls(
    kafka: SecureKafka, secrets_dir: Path, voice_activity_model: Path
) -> None:
    """The topics command, run a second time over TLS, changes nothing and ends with 0."""
    module = "whisperline_runtime"
    code, errors = await ended(module, environment(module, kafka, secrets_dir, voice_activity_model))
    assert (code, "all topics are there" in errors, "created" in errors) == (0, True, False)


@pytest.mark.parametrize("module", PREFIXES)
async def test_a_wrong_password_ends_the_process_at_once(
    kafka: SecureKafka, secrets_dir: Path, voice_activity_model: Path, module: str
) -> None:
    """A wrong password ends the process at once, with a line that names the user but not the password."""
    (secrets_dir / f"{PREFIXES[module]}kafka_sasl_password".lower()).write_text("a-wrong-word")
    code, errors = await ended(module, environment(module, kafka, secrets_dir, voice_activity_model))
    assert code == 1, errors
    assert f"refuses this client (SASL_SSL, user {USER}, SCRAM-SHA-512)" in errors
    assert "Authentication failed" in errors
    assert "a-wrong-word" not in errors
    assert "Traceback" not in errors


async def test_a_certificate_of_another_authority_is_not_believed(
    kafka: SecureKafka, secrets_dir: Path, voice_activity_model: Path, tmp_path: Path
) -> None:
    """A certificate of another authority is refused, so that nothing between us and Kafka gets the password."""
    trustme.CA().cert_pem.write_to_path(tmp_path / "other.pem")
    env = environment("whisperline_gateway", kafka, secrets_dir, voice_activity_model)
    code, errors = await ended(
        "whisperline_gateway", {**env, "WHISPERLINE_GATEWAY_KAFKA_CA_FILE": f"{tmp_path}/other.pem"}
    )
    assert code == 1
    assert "certificate verify failed" in errors
