"""Read a process's settings from environment variables, and from files for secrets."""

import os
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, FilePath, SecretStr, ValidationError, ValidationInfo, field_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SecretsSettingsSource,
    SettingsConfigDict,
)
from pydantic_settings import SettingsError as SourceError

from whisperline_runtime.broker import Broker, Mechanism, Protocol, tls_context
from whisperline_runtime.errors import SettingsError
from whisperline_runtime.logs import LogFormat

SECRETS_DIR = "WHISPERLINE_SECRETS_DIR"
_USUAL_SECRETS_DIR = Path("/run/secrets")


class ProcessSettings(BaseSettings):
    """The settings of every process. Each process adds its own, and the prefix of its variables.

    A setting may also come from a file, named like its variable in lower case, in the folder that the variable
    WHISPERLINE_SECRETS_DIR names, or in /run/secrets. The environment wins. Other files there are ignored.
    """

    model_config = SettingsConfigDict(frozen=True, extra="forbid", env_ignore_empty=True)

    kafka_bootstrap: str = Field(default="127.0.0.1:9192", min_length=1, description="host:port, comma separated")
    kafka_security_protocol: Protocol = Field(default="PLAINTEXT", description="with or without TLS and a user name")
    kafka_sasl_mechanism: Mechanism | None = Field(
        default=None, validate_default=True, description="how the user name is proven"
    )
    kafka_sasl_username: str | None = Field(default=None, validate_default=True, description="user name in Kafka")
    kafka_sasl_password: SecretStr | None = Field(default=None, validate_default=True, description="its password")
    kafka_ca_file: FilePath | None = Field(default=None, description="PEM of the brokers' certificate authority")
    start_timeout_s: float = Field(default=60, gt=0, description="longest wait for Kafka at start; then exit status 1")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(default="INFO", description="lowest level logged")
    log_format: LogFormat = Field(default="auto", description="auto: text on a terminal, JSON elsewhere")

    @classmethod
    def read(cls) -> Self:
        """Read the environment and the files. Raises `SettingsError`."""
        try:
            return cls()
        except ValidationError as error:
            prefix = cls.model_config.get("env_prefix", "")
            # Each line names the setting and never shows its value, which may be a secret.
            raise SettingsError(
                "\n".join(
                    f"{prefix}{'_'.join(map(str, wrong['loc'])).upper()}: {wrong['msg'].removeprefix('Value error, ')}"
                    for wrong in error.errors(include_input=False, include_url=False)
                )
            ) from error
        except SourceError as error:
            raise SettingsError(f"{error}: {error.__cause__}" if error.__cause__ else str(error)) from error

    @property
    def broker(self) -> Broker:
        """The address of Kafka and the credentials for it."""
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
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - replaced below, because the folder is only known now
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Read arguments first, then the environment, then files."""
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
            try:
                tls_context(value)
            except OSError as error:
                raise ValueError(f"{value} has no certificates that can be read: {error}") from error
        return value


class ConsumerSettings(ProcessSettings):
    """The settings of a process that reads Kafka."""

    dead_letters_in_a_row: int = Field(
        default=20,
        ge=1,
        description="unusable records in a row that stop the process: a bad release must not drain the log",
    )


def _secrets_dir() -> Path | None:
    named = os.environ.get(SECRETS_DIR)
    if not named:
        return _USUAL_SECRETS_DIR if _USUAL_SECRETS_DIR.is_dir() else None
    if not Path(named).is_dir():
        raise SourceError(f"{SECRETS_DIR}: there is no folder {named}")
    return Path(named)
