"""Connect to Kafka, in plain text or with TLS and a password. Every Kafka client here gets its options from this."""

import asyncio
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.conn import collect_hosts, create_conn  # not in aiokafka's documented API; test_producer.py checks them
from aiokafka.errors import (
    IllegalSaslStateError,
    KafkaConnectionError,
    KafkaError,
    SaslAuthenticationFailed,
    UnsupportedSaslMechanismError,
)
from pydantic import SecretStr

from whisperline_runtime.errors import BrokerRefusedError, StartupError
from whisperline_runtime.retry import retrying

Protocol = Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"]
Client = TypeVar("Client", AIOKafkaConsumer, AIOKafkaProducer)
Mechanism = Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"]

# Errors that waiting does not fix. aiokafka's clients treat them like an unavailable broker and retry for ever.
_REFUSALS = (ssl.SSLError, SaslAuthenticationFailed, UnsupportedSaslMechanismError, IllegalSaslStateError)
_CONNECT_MS = 10_000


@dataclass(frozen=True)
class Broker:
    """Kafka's address and this process's credentials. `ProcessSettings` has checked that they are consistent."""

    bootstrap: str  # host:port, comma separated
    protocol: Protocol = "PLAINTEXT"
    mechanism: Mechanism | None = None
    username: str | None = None
    password: SecretStr | None = None
    ca_file: Path | None = None  # None: the machine's own authorities

    def client_options(self) -> dict[str, Any]:
        """Return the arguments that every aiokafka client needs to reach this broker."""
        return {"bootstrap_servers": self.bootstrap, **self._security()}

    async def reach(self) -> None:
        """Return once a broker has accepted this client.

        Raises `BrokerRefusedError` if a broker refuses it, and `KafkaConnectionError` if none answers.
        """
        errors: list[Exception] = []
        for host, port, _ in collect_hosts(self.bootstrap):
            try:
                connection = await create_conn(host, port, request_timeout_ms=_CONNECT_MS, **self._security())
            except (OSError, KafkaError) as error:
                errors.append(error)
            else:
                connection.close()
                return
        refusal = next((error for error in errors if isinstance(error, _REFUSALS)), None)
        if refusal is not None:
            user = f", user {self.username}, {self.mechanism}" if self.username else ""
            raise BrokerRefusedError(
                f"Kafka at {self.bootstrap} refuses this client ({self.protocol}{user}): {refusal}"
            ) from refusal
        raise KafkaConnectionError(f"no broker at {self.bootstrap} answers: {errors[0]!r}") from errors[0]

    async def wait_until_reachable(self, limit_s: float) -> None:
        """Wait until a broker accepts this client. Raises `StartupError` after `limit_s`, or at once if refused."""
        try:
            async with asyncio.timeout(limit_s):
                async for attempt in retrying(KafkaConnectionError, what="reaching Kafka"):
                    with attempt:
                        await self.reach()
        except TimeoutError:
            raise StartupError(
                f"Kafka at {self.bootstrap} did not answer within {limit_s:g} s: "
                "check the address, and that the broker is up"
            ) from None

    def _security(self) -> dict[str, Any]:
        options: dict[str, Any] = {"security_protocol": self.protocol}
        if self.protocol.endswith("SSL"):
            options["ssl_context"] = tls_context(self.ca_file)
        if self.protocol.startswith("SASL"):
            options["sasl_mechanism"] = self.mechanism
            options["sasl_plain_username"] = self.username
            options["sasl_plain_password"] = self.password.get_secret_value() if self.password else None
        return options


async def start_client(new: Callable[[], Client]) -> Client:
    """Return a started client made by `new`; the caller stops it. Retries while Kafka is unavailable.

    Each attempt makes a new client, because one that failed to start cannot be started again. Waits as long as it
    takes: limit it with `asyncio.timeout`.
    """
    async for attempt in retrying(KafkaError, what="starting a Kafka client"):
        with attempt:
            client = new()
            try:
                await client.start()
            except BaseException:
                await client.stop()
                raise
    return client


def tls_context(ca_file: Path | None) -> ssl.SSLContext:
    """Return a context that checks certificates and host names. Raises `OSError` if `ca_file` cannot be used."""
    return ssl.create_default_context(cafile=ca_file)
