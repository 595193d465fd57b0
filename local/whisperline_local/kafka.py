"""Apache Kafka as one KRaft node: broker and controller in one process, sized for two cores."""

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
from whisperline_contracts.topics import MAX_MESSAGE_BYTES, topics
from whisperline_runtime.broker import Broker
from whisperline_runtime.create_topics import create_topics
from whisperline_runtime.errors import StartupError

from whisperline_local import probes
from whisperline_local.errors import StepFailed
from whisperline_local.ports import PortUse
from whisperline_local.process import ReportStep, ignore_step, run_tool
from whisperline_local.service import Service
from whisperline_local.settings import ENV_PREFIX, HOST, MAX_REPLICAS, LocalSettings

OLDEST_JAVA = 17
JAVA_HINT = (
    f"Install Java {OLDEST_JAVA} or newer (Debian, Ubuntu: apt-get install openjdk-17-jre-headless; Fedora: "
    f"dnf install java-17-openjdk-headless), or name one with {ENV_PREFIX}JAVA."
)
TOPICS_LIMIT_S = 20.0
CHATTY_LOGGERS = (  # these would fill the log of every start at INFO
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
    """Return the broker, which is healthy once it has the topics."""
    folder = settings.state / "kafka"
    return Service(
        name="kafka",
        command=(java_command(settings), f"@{folder / 'java.args'}", "kafka.Kafka", str(folder / "server.properties")),
        ports=(
            PortUse("kafka", settings.ports.kafka, "kafka_port"),
            PortUse("kafka's controller", settings.ports.kafka_controller, "kafka_controller_port"),
        ),
        prepare=partial(prepare_kafka, settings, folder),
        ready=lambda _pid: probes.kafka_ok(settings.kafka_bootstrap),
        on_ready=partial(create_all_topics, settings),
        stop_limit_s=30.0,
        hint=f"If its data is broken and may go: remove {folder}.",
    )


async def create_all_topics(settings: LocalSettings) -> None:
    """Create the topics for the largest number of gateways and transcribers. Raises `StepFailed`."""
    try:
        async with asyncio.timeout(TOPICS_LIMIT_S):
            await create_topics(Broker(settings.kafka_bootstrap), topics(MAX_REPLICAS, MAX_REPLICAS))
    except (KafkaError, StartupError, TimeoutError) as error:
        raise StepFailed("creating the topics", str(error) or type(error).__name__) from error


def java_command(settings: LocalSettings) -> str:
    """Return the path of the java command, or the configured name if it is not found."""
    return shutil.which(settings.java) or settings.java


async def prepare_kafka(settings: LocalSettings, folder: Path, report_step: ReportStep) -> None:
    """Fetch the broker, write its configuration, and format its data folder if it is new."""
    java_version = await find_java(settings)
    jars = await fetch_broker(settings, report_step)
    archive = settings.cache / f"kafka-{lock_digest()}-java{java_version}.jsa"
    properties = folder / "server.properties"
    await asyncio.to_thread(folder.mkdir, parents=True, exist_ok=True)
    (folder / "java.args").write_text(java_arguments(settings, jars, archive))
    properties.write_text(server_properties(settings, folder / "data"))
    if not (folder / "data" / "meta.properties").exists():
        cluster_id = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        java = (java_command(settings), "-XX:TieredStopAtLevel=1", "-cp", ":".join(map(str, jars)))
        tool = ("kafka.tools.StorageTool", "format", f"--cluster-id={cluster_id}", "--config", str(properties))
        log = settings.logs / "kafka-format.log"
        await run_tool("formatting Kafka's data folder", (*java, *tool), log, report_step)


async def fetch_broker(settings: LocalSettings, report_step: ReportStep = ignore_step) -> list[Path]:
    """Return the jars of the class path. The first call fetches and checks them; later calls read a list of paths."""
    class_path = settings.cache / f"kafka-{lock_digest()}.classpath"
    if not class_path.exists():
        from whisperline_local.kafka_jars import fetch_jars  # noqa: PLC0415 - jgo is slow to import, and rarely used

        report_step("fetching Apache Kafka")
        jars = await asyncio.to_thread(fetch_jars, settings.cache / "maven")
        class_path.write_text("\n".join(str(jar.relative_to(settings.cache)) for jar in jars))
    return [settings.cache / line for line in class_path.read_text().splitlines()]


async def find_java(settings: LocalSettings) -> int:
    """Return the major version of Java, such as 21. Raises `StepFailed` if there is no Java, or it is too old."""
    java = java_command(settings)
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
    """Return the major version in the output of `java -version`, or 0 if there is none. Java 8 calls itself 1.8."""
    found = re.search(r'version "(?:1\.)?(\d+)', output)
    return int(found[1]) if found else 0


def java_arguments(settings: LocalSettings, jars: list[Path], archive: Path) -> str:
    """Return the java command's argument file: a small heap, the serial collector, an archive of classes.

    The archive (class-data sharing) is written when the first broker exits, and makes later starts a third faster.
    Java ignores an archive that does not match its version or class path.
    """
    try:
        with archive.open("rb") as file:
            is_whole = any(file.read(4))  # Java writes the header last
    except FileNotFoundError:
        is_whole = False
    sharing = "SharedArchiveFile" if is_whole else "ArchiveClassesAtExit"
    arguments = (
        f"-Xmx{settings.kafka_heap_mb}m",
        "-XX:+UseSerialGC",
        "-XX:TieredStopAtLevel=1",  # saves a third of the CPU time at start, and is fast enough for one machine
        "-Xlog:disable",
        "-Xlog:all=error:stderr",
        f"-XX:{sharing}={archive}",
        "-Dorg.slf4j.simpleLogger.showDateTime=true",
        "-Dorg.slf4j.simpleLogger.dateTimeFormat=yyyy-MM-dd/HH:mm:ss.SSS",
        "-Dorg.slf4j.simpleLogger.showThreadName=false",
        *(f"-Dorg.slf4j.simpleLogger.log.{logger}=warn" for logger in CHATTY_LOGGERS),
        '-cp "' + ":".join(map(str, jars)) + '"',
    )
    return "\n".join(arguments)


def server_properties(settings: LocalSettings, data: Path) -> str:
    """Return the broker's configuration file; `data` is its data folder."""
    broker, controller = settings.ports.kafka, settings.ports.kafka_controller
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
        # With one broker, every topic that is replicated by default must have one copy.
        "offsets.topic.replication.factor": 1,
        "offsets.topic.num.partitions": 8,
        "transaction.state.log.replication.factor": 1,
        "transaction.state.log.min.isr": 1,
        "transaction.state.log.num.partitions": 4,
        "share.coordinator.state.topic.replication.factor": 1,
        "share.coordinator.state.topic.min.isr": 1,
        "group.initial.rebalance.delay.ms": 0,  # the default waits 3 s for more members
        "num.network.threads": 2,
        "num.io.threads": 4,
        "background.threads": 2,
        "log.segment.bytes": 64 * 1024 * 1024,  # retention deletes whole segments only
        "log.cleaner.dedupe.buffer.size": 16 * 1024 * 1024,  # the default would take a third of the heap
        # After a kill the broker cannot register again until its old session has expired: 9 s by default.
        "broker.session.timeout.ms": 3000,
        "broker.heartbeat.interval.ms": 500,
    }
    return "".join(f"{key}={value}\n" for key, value in properties.items())


def lock_digest() -> str:
    """Return a digest that names the set of jars in `kafka.lock`."""
    return hashlib.sha256(files(__package__).joinpath("kafka.lock").read_bytes()).hexdigest()[:8]
