"""Comparison with the reference implementations, which run in an environment of their own."""

import os
from pathlib import Path

import numpy as np
import pytest
from reference_tools.parity import TOLERANCE, Parity, compare, weighed_error
from whisperline_models.gate import Clip
from whisperline_models.weights import Checkpoint

MOST_WORD_ERROR_S = 0.02  # one frame, median


@pytest.fixture(scope="session")
def oracle() -> Path:
    """The interpreter of the oracle's environment."""
    default = Path(__file__).parents[2] / ".tools" / "oracle" / "bin" / "python"
    python = Path(os.environ.get("WHISPERLINE_ORACLE_PYTHON", default))
    if not python.is_file():
        pytest.skip(f"no oracle at {python}: make .tools/oracle/.installed, or set WHISPERLINE_ORACLE_PYTHON")
    return python


def _assert_equal(parity: Parity) -> None:
    assert parity.differing == {}
    assert parity.mel_error <= TOLERANCE
    assert parity.holds
    assert parity.differing_timed == {}
    assert parity.median_word_error_s <= MOST_WORD_ERROR_S


def test_an_error_is_forgiven_only_where_rounding_alone_is_as_large() -> None:
    """In a frame where the oracle's own error is large, twice that error is allowed, and nowhere else."""
    exact = np.zeros((1, 3, 2), np.float32)
    rounded = exact + np.array([0, 2 * TOLERANCE, 0])[:, None]
    assert weighed_error(exact, rounded, exact + np.array([0, 3.9 * TOLERANCE, 0])[:, None]) < TOLERANCE
    assert weighed_error(exact, rounded, exact + np.array([0, 4.1 * TOLERANCE, 0])[:, None]) > TOLERANCE
    assert weighed_error(exact, rounded, exact + np.array([1.1 * TOLERANCE, 0, 0])[:, None]) > TOLERANCE


@pytest.mark.oracle
def test_a_sample_is_the_references_token_for_token(
    checkpoint: Checkpoint, english: list[Clip], oracle: Path, tmp_path: Path
) -> None:
    """Outputs agree within 1e-3, and greedy tokens, with and without timestamps, and word times are the same."""
    _assert_equal(compare(checkpoint, english[:: len(english) // 6][:6], oracle, tmp_path, n_deep=3))


@pytest.mark.oracle
def test_every_english_clip_is_the_references_token_for_token(
    checkpoint: Checkpoint, english: list[Clip], oracle: Path, tmp_path: Path
) -> None:
    """On all clips of up to 30 s, every result agrees with the reference."""
    _assert_equal(compare(checkpoint, english, oracle, tmp_path, n_deep=40))


@pytest.mark.oracle
def test_other_languages_are_the_references_token_for_token(
    multilingual: Checkpoint, romance: list[Clip], oracle: Path, tmp_path: Path
) -> None:
    """`base`, which is multilingual, agrees with the reference on French, Spanish and Italian clips."""
    _assert_equal(compare(multilingual, romance, oracle, tmp_path, n_deep=8))
