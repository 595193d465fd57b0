"""How Kafka is reached: in the clear, or with TLS and a name and password. One place for every client of ours."""

import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from aiokafka.conn import collect_hosts, create_conn
from aiokafka.errors import (
    IllegalSaslStateError,
    KafkaConnectionError,
    KafkaError,
    SaslAuthenticationFailed,
    UnsupportedSaslMechanismError,
)
from pydantic import SecretStr

Protocol = Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"]
Mechanism = Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"]

# What no waiting cures. aiokafka's own clients take these for a broker that is away, and try for ever.
_REFUSALS = (ssl.SSLError, SaslAuthenticationFailed, UnsupportedSaslMechanismError, IllegalSaslStateError)
_CONNECT_MS = 10_000


class BrokerRefused(Exception):
    """Kafka is there, and it or we refuse: a wrong password, mechanism or certificate. Waiting does not help."""


@dataclass(frozen=True)
class Broker:
    """Where Kafka is and how it lets us in; valid by the checks of `DeployableSettings`."""

    bootstrap: str  # host:port, several with commas
    protocol: Protocol = "PLAINTEXT"
    mechanism: Mechanism | None = None
    username: str | None = None
    password: SecretStr | None = None
    ca_file: Path | None = None  # None: the machine's own authorities

    def client_options(self) -> dict[str, Any]:
        """Return what every client of aiokafka must be given to reach this broker."""
        return {"bootstrap_servers": self.bootstrap, **self._security()}

    async def reach(self) -> None:
        """Return once a broker has let us in. Raises `BrokerRefused`, and `KafkaConnectionError` when none answers."""
        errors: list[Exception] = []
        for host, port, _ in collect_hosts(self.bootstrap):
            error = await self._try(host, port)
            if error is None:
                return
            errors.append(error)
        refusal = next((error for error in errors if isinstance(error, _REFUSALS)), None)
        if refusal is not None:
            raise BrokerRefused(f"Kafka at {self.bootstrap} refuses {self._described()}: {refusal}") from refusal
        raise KafkaConnectionError(f"no broker at {self.bootstrap} answers: {errors[0]!r}") from errors[0]

    async def _try(self, host: str, port: int) -> Exception | None:
        try:
            connection = await create_conn(host, port, request_timeout_ms=_CONNECT_MS, **self._security())
        except (OSError, KafkaError) as error:
            return error
        connection.close()
        return None

    def _security(self) -> dict[str, Any]:
        options: dict[str, Any] = {"security_protocol": self.protocol}
        if self.protocol.endswith("SSL"):
            options["ssl_context"] = tls_context(self.ca_file)
        if self.protocol.startswith("SASL"):
            options["sasl_mechanism"] = self.mechanism
            options["sasl_plain_username"] = self.username
            options["sasl_plain_password"] = self.password.get_secret_value() if self.password else None
        return options

    def _described(self) -> str:
        user = f", user {self.username}, {self.mechanism}" if self.username else ""
        return f"this client ({self.protocol}{user})"


def tls_context(ca_file: Path | None) -> ssl.SSLContext:
    """Return a context that checks certificates and host names. Raises `OSError` if `ca_file` cannot be used."""
    return ssl.create_default_context(cafile=ca_file)
