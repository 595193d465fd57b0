"""A real Kafka that accepts only clients with TLS, a user name and a password."""

import base64
import shutil
import socket
import subprocess
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import trustme
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

USER = "whisperline"
PASSWORD = "the-right-word"  # noqa: S105 - for a broker that lives as long as its test
_JAAS = "org.apache.kafka.common.security"
_RIGHTS = (
    "authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer",
    f"super.users=User:{USER};User:ANONYMOUS",  # the broker's own connections have no user name
)


@dataclass(frozen=True)
class SecureKafka:
    """The broker's address and the authority of its certificate."""

    bootstrap: str
    ca_file: Path


@contextmanager
def secure_kafka(class_path: list[Path], folder: Path, users: Mapping[str, str] | None = None) -> Iterator[SecureKafka]:
    """Run a broker; it may not answer yet when this yields. `class_path`: Kafka's jars.

    `users` are further ones with their passwords. With them only `USER` may do everything: they need to be allowed.
    """
    port, inside, controller = _free_ports(3)
    authority = trustme.CA()
    authority.cert_pem.write_to_path(folder / "ca.pem")
    _write_key_store(authority, folder / "broker.pem")
    properties = folder / "server.properties"
    properties.write_text("\n".join([*_properties(folder, port, inside, controller), *(_RIGHTS if users else [])]))
    java = [shutil.which("java") or "java", "-Xmx256m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-cp"]
    java.append(":".join(map(str, class_path)))
    _format(java, properties, {USER: PASSWORD, **(users or {})})
    with (folder / "kafka.log").open("wb") as log:
        broker = subprocess.Popen([*java, "kafka.Kafka", str(properties)], stdout=log, stderr=log)
        try:
            yield SecureKafka(f"127.0.0.1:{port}", folder / "ca.pem")
        finally:
            broker.kill()
            broker.wait()


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def _write_key_store(authority: trustme.CA, file: Path) -> None:
    """Write the broker's key (PKCS 8) and then its certificate, as Kafka reads them."""
    certificate = authority.issue_cert("127.0.0.1")
    key = load_pem_private_key(certificate.private_key_pem.bytes(), password=None)
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    file.write_bytes(pem + b"".join(blob.bytes() for blob in certificate.cert_chain_pems))


def _properties(folder: Path, port: int, inside: int, controller: int) -> Iterator[str]:
    secure = "listener.name.secure"
    yield "process.roles=broker,controller"
    yield "node.id=1"
    yield f"controller.quorum.voters=1@127.0.0.1:{controller}"
    yield f"listeners=SECURE://127.0.0.1:{port},INSIDE://127.0.0.1:{inside},CONTROLLER://127.0.0.1:{controller}"
    yield f"advertised.listeners=SECURE://127.0.0.1:{port},INSIDE://127.0.0.1:{inside}"
    yield "listener.security.protocol.map=SECURE:SASL_SSL,INSIDE:PLAINTEXT,CONTROLLER:PLAINTEXT"
    yield "inter.broker.listener.name=INSIDE"
    yield "controller.listener.names=CONTROLLER"
    yield f"{secure}.ssl.keystore.type=PEM"
    yield f"{secure}.ssl.keystore.location={folder / 'broker.pem'}"
    yield f"{secure}.sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-512"
    yield f'{secure}.plain.sasl.jaas.config={_JAAS}.plain.PlainLoginModule required user_{USER}="{PASSWORD}";'
    yield f"{secure}.scram-sha-512.sasl.jaas.config={_JAAS}.scram.ScramLoginModule required;"
    yield f"log.dirs={folder / 'data'}"
    yield "auto.create.topics.enable=false"
    yield "offsets.topic.replication.factor=1"
    yield "offsets.topic.num.partitions=1"
    yield "group.initial.rebalance.delay.ms=0"


def _format(java: list[str], properties: Path, users: Mapping[str, str]) -> None:
    cluster = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
    added = [f"--add-scram=SCRAM-SHA-512=[name={name},password={password}]" for name, password in users.items()]
    tool = [*java, "kafka.tools.StorageTool", "format", f"--cluster-id={cluster}", "--config", str(properties)]
    subprocess.run([*tool, *added], check=True, capture_output=True)
