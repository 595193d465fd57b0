"""How a deployable is told what to do: environment variables, and files for what must not be in them."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Self

from pydantic import Field, FilePath, SecretStr, ValidationError, ValidationInfo, field_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SecretsSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from whisperline_contracts.broker import Broker, Mechanism, Protocol, tls_context

SECRETS_DIR = "WHISPERLINE_SECRETS_DIR"
_USUAL_SECRETS_DIR = Path("/run/secrets")


class WrongSettings(Exception):
    """The process cannot start; the message has a line for each wrong setting, which begins with its name."""


class DeployableSettings(BaseSettings):
    """What every deployable of ours is told: how to reach Kafka. Each adds its own, and the prefix of its variables.

    A setting may also come from a file, named as its variable in lower case, in the folder that the variable
    WHISPERLINE_SECRETS_DIR names, or in /run/secrets. The environment wins; other files there are not looked at.
    """

    model_config = SettingsConfigDict(frozen=True, extra="forbid", env_ignore_empty=True)

    kafka_bootstrap: str = Field(default="127.0.0.1:9192", min_length=1, description="host:port, comma separated")
    kafka_security_protocol: Protocol = Field(default="PLAINTEXT", description="whether with TLS, whether with a name")
    kafka_sasl_mechanism: Mechanism | None = Field(default=None, validate_default=True, description="of the name")
    kafka_sasl_username: str | None = Field(default=None, validate_default=True, description="name in Kafka")
    kafka_sasl_password: SecretStr | None = Field(default=None, validate_default=True, description="its password")
    kafka_ca_file: FilePath | None = Field(default=None, description="PEM of who signed the brokers' certificates")

    @classmethod
    def read(cls) -> Self:
        """Read environment and files. Raises `WrongSettings`."""
        try:
            return cls()
        except ValidationError as error:
            raise WrongSettings("\n".join(_lines(error, cls.model_config.get("env_prefix", "")))) from error
        except SettingsError as error:
            raise WrongSettings(f"{error}: {error.__cause__}" if error.__cause__ else str(error)) from error

    @property
    def broker(self) -> Broker:
        """How to reach Kafka."""
        return Broker(
            bootstrap=self.kafka_bootstrap,
            protocol=self.kafka_security_protocol,
            mechanism=self.kafka_sasl_mechanism,
            username=self.kafka_sasl_username,
            password=self.kafka_sasl_password,
            ca_file=self.kafka_ca_file,
        )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - the base class names it
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - its folder is known only now
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Look at arguments, then at the environment, then at files."""
        return init_settings, env_settings, SecretsSettingsSource(settings_cls, secrets_dir=_secrets_dir())

    @field_validator("kafka_sasl_mechanism", "kafka_sasl_username", "kafka_sasl_password")
    @classmethod
    def _goes_with_sasl(cls, value: object, info: ValidationInfo) -> object:
        protocol = info.data.get("kafka_security_protocol", "")
        if protocol.startswith("SASL") and not value:
            raise ValueError(f"needed when KAFKA_SECURITY_PROTOCOL is {protocol}")
        if protocol in ("PLAINTEXT", "SSL") and value:
            raise ValueError(f"has no use when KAFKA_SECURITY_PROTOCOL is {protocol}; SASL_SSL would use it")
        return value

    @field_validator("kafka_ca_file")
    @classmethod
    def _goes_with_tls(cls, value: Path | None, info: ValidationInfo) -> Path | None:
        protocol = info.data.get("kafka_security_protocol", "SSL")
        if value is not None and not protocol.endswith("SSL"):
            raise ValueError(f"has no use when KAFKA_SECURITY_PROTOCOL is {protocol}; SSL or SASL_SSL would use it")
        if value is not None:
            _check_certificates(value)
        return value


def _check_certificates(ca_file: Path) -> None:
    try:
        tls_context(ca_file)
    except OSError as error:
        raise ValueError(f"{ca_file} has no certificates that can be read: {error}") from error


def _secrets_dir() -> Path | None:
    named = os.environ.get(SECRETS_DIR)
    if not named:
        return _USUAL_SECRETS_DIR if _USUAL_SECRETS_DIR.is_dir() else None
    if not Path(named).is_dir():
        raise SettingsError(f"{SECRETS_DIR}: there is no folder {named}")
    return Path(named)


def _lines(error: ValidationError, prefix: str) -> Iterator[str]:
    """Name each wrong setting; never its value, which may be a secret."""
    for problem in error.errors(include_input=False, include_url=False):
        name = "_".join(str(part) for part in problem["loc"]).upper()
        yield f"{prefix}{name}: {problem['msg'].removeprefix('Value error, ')}"
