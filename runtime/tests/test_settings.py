"""Settings come from the environment and from files, and a wrong one is named."""

import subprocess
from pathlib import Path

import pytest
from pydantic import SecretStr
from pydantic_settings import SettingsConfigDict
from whisperline_runtime.errors import SettingsError
from whisperline_runtime.settings import ProcessSettings


class Settings(ProcessSettings):
    """The settings of a deployable with a secret of its own."""

    model_config = SettingsConfigDict(env_prefix="WHISPERLINE_EXAMPLE_")

    database_url: SecretStr
    limits: tuple[int, ...] = ()


SASL = {
    "KAFKA_SECURITY_PROTOCOL": "SASL_SSL",
    "KAFKA_SASL_MECHANISM": "SCRAM-SHA-512",
    "KAFKA_SASL_USERNAME": "whisperline",
    "KAFKA_SASL_PASSWORD": "secret-word",
}


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    """An environment with the required settings and an empty folder of secrets."""
    monkeypatch.setenv("WHISPERLINE_SECRETS_DIR", str(tmp_path))
    monkeypatch.setenv("WHISPERLINE_EXAMPLE_DATABASE_URL", "postgresql://environment")
    return monkeypatch


def tell(environment: pytest.MonkeyPatch, variables: dict[str, str]) -> None:
    for name, value in variables.items():
        environment.setenv(f"WHISPERLINE_EXAMPLE_{name}", value)


def certificate(folder: Path) -> Path:
    """Make a self-signed certificate."""
    file = folder / "ca.pem"
    command = "openssl req -x509 -newkey rsa:2048 -nodes -keyout /dev/null -subj /CN=example -out"
    subprocess.run([*command.split(), file], check=True, capture_output=True)
    return file


def test_by_default_kafka_is_reached_in_the_clear(environment: pytest.MonkeyPatch) -> None:
    """By default Kafka is reached without TLS and without a password."""
    options = Settings.read().broker.client_options()
    assert options == {"bootstrap_servers": "127.0.0.1:9192", "security_protocol": "PLAINTEXT"}


def test_with_a_name_and_a_certificate_every_client_is_given_both(
    environment: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Clients get the user name and a context that checks host names and trusts only the named authority."""
    tell(environment, {**SASL, "KAFKA_CA_FILE": str(certificate(tmp_path))})
    options = Settings.read().broker.client_options()
    context = options.pop("ssl_context")
    assert context.check_hostname
    assert [dict(part[0] for part in ca["subject"]) for ca in context.get_ca_certs()] == [{"commonName": "example"}]
    assert options == {
        "bootstrap_servers": "127.0.0.1:9192",
        "security_protocol": "SASL_SSL",
        "sasl_mechanism": "SCRAM-SHA-512",
        "sasl_plain_username": "whisperline",
        "sasl_plain_password": "secret-word",
    }


def test_without_a_named_authority_those_of_the_machine_are_trusted(environment: pytest.MonkeyPatch) -> None:
    """Without a CA file the machine's authorities are trusted, so a public certificate needs no file."""
    tell(environment, {"KAFKA_SECURITY_PROTOCOL": "SSL"})
    context = Settings.read().broker.client_options()["ssl_context"]
    assert context.check_hostname
    assert context.verify_mode.name == "CERT_REQUIRED"


@pytest.mark.parametrize(
    ("variables", "line"),
    [
        (SASL | {"KAFKA_SASL_USERNAME": ""}, "KAFKA_SASL_USERNAME: needed when KAFKA_SECURITY_PROTOCOL is SASL_SSL"),
        (SASL | {"KAFKA_SASL_PASSWORD": ""}, "KAFKA_SASL_PASSWORD: needed when KAFKA_SECURITY_PROTOCOL is SASL_SSL"),
        (SASL | {"KAFKA_SASL_MECHANISM": ""}, "KAFKA_SASL_MECHANISM: needed when KAFKA_SECURITY_PROTOCOL is SASL_SSL"),
        (SASL | {"KAFKA_SASL_MECHANISM": "GSSAPI"}, "KAFKA_SASL_MECHANISM: Input should be 'PLAIN', "),
        (
            {"KAFKA_SASL_PASSWORD": "secret-word"},
            "KAFKA_SASL_PASSWORD: has no use when KAFKA_SECURITY_PROTOCOL is PLAINTEXT",
        ),
        (
            {"KAFKA_SECURITY_PROTOCOL": "SSL", "KAFKA_SASL_USERNAME": "me"},
            "KAFKA_SASL_USERNAME: has no use when KAFKA_SECURITY_PROTOCOL is SSL",
        ),
        ({"KAFKA_SECURITY_PROTOCOL": "TLS"}, "KAFKA_SECURITY_PROTOCOL: Input should be 'PLAINTEXT', "),
        ({"KAFKA_CA_FILE": __file__}, "KAFKA_CA_FILE: has no use when KAFKA_SECURITY_PROTOCOL is PLAINTEXT"),
        (SASL | {"KAFKA_CA_FILE": __file__}, f"KAFKA_CA_FILE: {__file__} has no certificates that can be read"),
        (SASL | {"KAFKA_CA_FILE": "/no/such/file"}, "KAFKA_CA_FILE: Path does not point to a file"),
    ],
)
def test_a_wrong_combination_is_named(environment: pytest.MonkeyPatch, variables: dict[str, str], line: str) -> None:
    """The error names the wrong setting in one line and never shows its value."""
    tell(environment, variables)
    with pytest.raises(SettingsError) as told:
        Settings.read()
    assert str(told.value).startswith(f"WHISPERLINE_EXAMPLE_{line}")
    assert "\n" not in str(told.value)
    assert "secret-word" not in str(told.value)


def test_a_setting_may_come_from_a_file(environment: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A setting is read from the file with its variable's name in lower case, without the final newline."""
    environment.delenv("WHISPERLINE_EXAMPLE_DATABASE_URL")
    (tmp_path / "whisperline_example_database_url").write_text("postgresql://file\n")
    (tmp_path / "whisperline_example_limits").write_text("[1, 2]")
    settings = Settings.read()
    assert settings.database_url.get_secret_value() == "postgresql://file"
    assert settings.limits == (1, 2)


def test_the_environment_wins_over_a_file(environment: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A variable wins over a file, unless the variable is empty."""
    (tmp_path / "whisperline_example_database_url").write_text("postgresql://file")
    assert Settings.read().database_url.get_secret_value() == "postgresql://environment"
    environment.setenv("WHISPERLINE_EXAMPLE_DATABASE_URL", "")
    assert Settings.read().database_url.get_secret_value() == "postgresql://file"


def test_other_files_of_the_folder_are_not_looked_at(environment: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Other files in the folder, such as those of Kubernetes and other deployables, are ignored."""
    (tmp_path / "kubernetes.io").mkdir()
    (tmp_path / "whisperline_other_database_url").write_bytes(b"\xff\xfe")
    (tmp_path / "whisperline_example_no_such_setting").write_text("x")
    assert Settings.read().database_url.get_secret_value() == "postgresql://environment"


def test_a_folder_that_is_not_there_is_named(environment: pytest.MonkeyPatch) -> None:
    """A missing folder of secrets is named in the error, rather than the settings that it would hold."""
    environment.setenv("WHISPERLINE_SECRETS_DIR", "/no/such/folder")
    with pytest.raises(SettingsError, match=r"^WHISPERLINE_SECRETS_DIR: there is no folder /no/such/folder$"):
        Settings.read()


def test_a_file_that_is_not_text_is_named(environment: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The line names the setting and what is wrong with its file."""
    environment.delenv("WHISPERLINE_EXAMPLE_DATABASE_URL")
    (tmp_path / "whisperline_example_database_url").write_bytes(b"\xff")
    with pytest.raises(SettingsError, match=r'(?s)"database_url".*utf-8'):
        Settings.read()


def test_what_is_missing_is_named(environment: pytest.MonkeyPatch) -> None:
    """Each missing setting has a line in the error."""
    environment.delenv("WHISPERLINE_EXAMPLE_DATABASE_URL")
    tell(environment, {"KAFKA_SECURITY_PROTOCOL": "SASL_SSL"})
    with pytest.raises(SettingsError) as told:
        Settings.read()
    assert [line.partition(":")[0].removeprefix("WHISPERLINE_EXAMPLE_") for line in str(told.value).splitlines()] == [
        "KAFKA_SASL_MECHANISM",
        "KAFKA_SASL_USERNAME",
        "KAFKA_SASL_PASSWORD",
        "DATABASE_URL",
    ]
