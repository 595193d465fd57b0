"""A Java that Kafka cannot use is reported before Kafka is started."""

import sys
from pathlib import Path

import pytest
from whisperline_local.errors import StepFailed
from whisperline_local.kafka import find_java, parse_java_version
from whisperline_local.settings import LocalSettings


@pytest.mark.parametrize(
    ("output", "major"),
    [
        ('openjdk version "17.0.15" 2025-04-15', 17),
        ('openjdk version "21" 2023-09-19', 21),
        ('java version "1.8.0_392"', 8),
        ("no such thing", 0),
    ],
)
def test_the_version_of_java_is_read(output: str, major: int) -> None:
    """The major version is read from both the old (1.8) and the new numbering."""
    assert parse_java_version(output) == major


@pytest.mark.parametrize("java", ["no-such-java", sys.executable])
async def test_a_missing_or_wrong_java_is_reported(tmp_path: Path, java: str) -> None:
    """If Java is missing or too old, the error says what to install."""
    with pytest.raises(StepFailed, match=r"(?s)finding Java.*Install Java 17"):
        await find_java(LocalSettings(state_dir=tmp_path, java=java))
