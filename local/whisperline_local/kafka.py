"""Apache Kafka as one KRaft node, broker and controller in one process, sized for two cores."""

import asyncio
import base64
import hashlib
import re
import shutil
import subprocess
import uuid
from functools import partial
from importlib.resources import files
from pathlib import Path

from aiokafka.errors import KafkaError
from whisperline_contracts.broker import Broker
from whisperline_contracts.create_topics import PartitionsDiffer, create_topics
from whisperline_contracts.topics import MAX_MESSAGE_BYTES, topics

from whisperline_local import probes
from whisperline_local.errors import StepFailed
from whisperline_local.ports import PortUse
from whisperline_local.process import Tell, run_tool, tell_nobody
from whisperline_local.service import Service
from whisperline_local.settings import ENV_PREFIX, HOST, MAX_REPLICAS, LocalSettings

OLDEST_JAVA = 17
JAVA_HINT = (
    f"Install Java {OLDEST_JAVA} or newer (Debian, Ubuntu: apt-get install openjdk-17-jre-headless; Fedora: "
    f"dnf install java-17-openjdk-headless), or name one with {ENV_PREFIX}JAVA."
)
TOPICS_LIMIT_S = 20.0
CHATTY_LOGGERS = (
    "state.change.logger",
    "kafka.cluster.Partition",
    "kafka.log.LogManager",
    "kafka.server.KafkaConfig",
    "org.apache.kafka.common",
    "org.apache.kafka.controller",
    "org.apache.kafka.image",
    "org.apache.kafka.raft",
    "org.apache.kafka.server.config",
    "org.apache.kafka.storage",
)


def kafka_service(settings: LocalSettings) -> Service:
    """The broker, whose topics are there once it is healthy."""
    folder = settings.state / "kafka"
    return Service(
        name="kafka",
        command=(_java(settings), f"@{folder / 'java.args'}", "kafka.Kafka", str(folder / "server.properties")),
        ports=(
            PortUse("kafka", settings.port("kafka_port"), "kafka_port"),
            PortUse("kafka's controller", settings.port("kafka_controller_port"), "kafka_controller_port"),
        ),
        prepare=partial(_prepare, settings, folder),
        ready=lambda _pid: probes.kafka_ok(settings.port("kafka_port")),
        on_ready=partial(_create_topics, settings),
        stop_limit_s=30.0,
        hint=f"If its data is broken and may go: remove {folder}.",
    )


async def _create_topics(settings: LocalSettings) -> None:
    try:
        async with asyncio.timeout(TOPICS_LIMIT_S):
            await create_topics(Broker(settings.kafka_bootstrap), topics(MAX_REPLICAS, MAX_REPLICAS))
    except (KafkaError, PartitionsDiffer, TimeoutError) as error:
        raise StepFailed("creating the topics", str(error) or type(error).__name__) from error


def _java(settings: LocalSettings) -> str:
    return shutil.which(settings.java) or settings.java


async def _prepare(settings: LocalSettings, folder: Path, tell: Tell) -> None:
    java_version = await find_java(settings)
    jars = await fetch_broker(settings, tell)
    archive = settings.cache / f"kafka-{_lock_digest()}-java{java_version}.jsa"
    _write_configuration(settings, folder, jars, archive)
    if not (folder / "data" / "meta.properties").exists():
        await _format(settings, folder, jars, tell)


def _write_configuration(settings: LocalSettings, folder: Path, jars: list[Path], archive: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "java.args").write_text(_java_arguments(settings, jars, archive))
    (folder / "server.properties").write_text(_properties(settings, folder / "data"))


async def fetch_broker(settings: LocalSettings, tell: Tell = tell_nobody) -> list[Path]:
    """Fetch and check the jars once; later calls only read the class path that was written then."""
    class_path = settings.cache / f"kafka-{_lock_digest()}.classpath"
    if not class_path.exists():
        from whisperline_local.kafka_jars import fetch_jars  # noqa: PLC0415 - jgo is slow to import, and rarely used

        tell("fetching Apache Kafka")
        jars = await asyncio.to_thread(fetch_jars, settings.cache / "maven")
        class_path.write_text("\n".join(str(jar.relative_to(settings.cache)) for jar in jars))
    return [settings.cache / line for line in class_path.read_text().splitlines()]


async def find_java(settings: LocalSettings) -> int:
    """Return the version of the Java to use, as 17 or 21; raises `StepFailed` when there is none, or an older one."""
    java = _java(settings)
    try:
        process = await asyncio.create_subprocess_exec(java, "-version", stderr=subprocess.PIPE)
    except OSError as error:
        raise StepFailed("finding Java", f"there is no {java}", hint=JAVA_HINT) from error
    _, output = await process.communicate()
    major = parse_java_version(output.decode(errors="replace"))
    if major < OLDEST_JAVA:
        raise StepFailed("finding Java", f"{java} is Java {major or 'of an unknown version'}", hint=JAVA_HINT)
    return major


def parse_java_version(output: str) -> int:
    """Return the major version in the output of `java -version`, 0 when there is none (Java 8 calls itself 1.8)."""
    found = re.search(r'version "(?:1\.)?(\d+)', output)
    return int(found[1]) if found else 0


def _java_arguments(settings: LocalSettings, jars: list[Path], archive: Path) -> str:
    """The java command's argument file: small heap, the collector with no threads, and an archive of classes.

    The archive (class-data sharing) is written when the first broker exits, and takes a third off later starts.
    Java ignores one that does not fit its version or class path.
    """
    sharing = "SharedArchiveFile" if _is_whole_archive(archive) else "ArchiveClassesAtExit"
    arguments = (
        f"-Xmx{settings.kafka_heap_mb}m",
        "-XX:+UseSerialGC",
        "-XX:TieredStopAtLevel=1",  # starts with two thirds of the processor time, and is fast enough for one machine
        "-Xlog:disable",
        "-Xlog:all=error:stderr",
        f"-XX:{sharing}={archive}",
        "-Dorg.slf4j.simpleLogger.showDateTime=true",
        "-Dorg.slf4j.simpleLogger.dateTimeFormat=yyyy-MM-dd/HH:mm:ss.SSS",
        "-Dorg.slf4j.simpleLogger.showThreadName=false",
        *(f"-Dorg.slf4j.simpleLogger.log.{logger}=warn" for logger in CHATTY_LOGGERS),
        '-cp "' + _class_path(jars) + '"',
    )
    return "\n".join(arguments)


def _is_whole_archive(archive: Path) -> bool:
    """Tell whether Java finished writing an archive of classes: its header comes last."""
    try:
        with archive.open("rb") as file:
            return any(file.read(4))
    except FileNotFoundError:
        return False


def _properties(settings: LocalSettings, data: Path) -> str:
    broker, controller = settings.port("kafka_port"), settings.port("kafka_controller_port")
    properties = {
        "process.roles": "broker,controller",
        "node.id": 1,
        "controller.quorum.voters": f"1@{HOST}:{controller}",
        "listeners": f"BROKER://{HOST}:{broker},CONTROLLER://{HOST}:{controller}",
        "advertised.listeners": f"BROKER://{HOST}:{broker}",
        "listener.security.protocol.map": "BROKER:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "inter.broker.listener.name": "BROKER",
        "controller.listener.names": "CONTROLLER",
        "log.dirs": data,
        "auto.create.topics.enable": "false",
        "message.max.bytes": MAX_MESSAGE_BYTES,
        "offsets.topic.replication.factor": 1,
        "offsets.topic.num.partitions": 8,
        "transaction.state.log.replication.factor": 1,
        "transaction.state.log.min.isr": 1,
        "transaction.state.log.num.partitions": 4,
        "share.coordinator.state.topic.replication.factor": 1,
        "share.coordinator.state.topic.min.isr": 1,
        "group.initial.rebalance.delay.ms": 0,
        "num.network.threads": 2,
        "num.io.threads": 4,
        "background.threads": 2,
        "log.segment.bytes": 64 * 1024 * 1024,  # retention deletes whole segments only
        "log.cleaner.dedupe.buffer.size": 16 * 1024 * 1024,  # the default alone is a third of the heap
        # A killed broker may register anew only when its old session is over: 9 s by default.
        "broker.session.timeout.ms": 3000,
        "broker.heartbeat.interval.ms": 500,
    }
    return "".join(f"{key}={value}\n" for key, value in properties.items())


async def _format(settings: LocalSettings, folder: Path, jars: list[Path], tell: Tell) -> None:
    cluster_id = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
    java = (_java(settings), "-XX:TieredStopAtLevel=1", "-cp", _class_path(jars), "kafka.tools.StorageTool")
    arguments = ("format", f"--cluster-id={cluster_id}", "--config", str(folder / "server.properties"))
    await run_tool("formatting Kafka's data folder", (*java, *arguments), settings.logs / "kafka-format.log", tell)


def _class_path(jars: list[Path]) -> str:
    return ":".join(map(str, jars))


def _lock_digest() -> str:
    """Another set of jars has another digest."""
    return hashlib.sha256(files(__package__).joinpath("kafka.lock").read_bytes()).hexdigest()[:8]
