"""The choice of a session's version: pure, stable, and the same in every process."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from whisperline_models.cli.console import parse_share
from whisperline_models.errors import VersionError
from whisperline_models.routing import state
from whisperline_models.routing.state import Canary, Rollout, RolloutError

versions = st.integers(1, 1000)
shares = st.floats(0.01, 1)
rollouts = st.builds(
    Rollout,
    default=versions,
    canary=st.none() | st.builds(Canary, versions, shares),
    previous=st.lists(versions, max_size=5).map(tuple),
    changed_unix_s=st.floats(0, 2**40),
)


@given(session=st.text(), shares=st.lists(shares, min_size=2, max_size=2).map(sorted))
def test_a_growing_share_takes_no_session_away_from_the_canary(session: str, shares: list[float]) -> None:
    """A session on the canary at one share is on it at every larger share, and at 100 % every session is."""
    on_canary = [Rollout(1).with_canary(2, share).version_of(session) == 2 for share in shares]
    assert on_canary[1] or not on_canary[0]
    assert Rollout(1).with_canary(2, 1).version_of(session) == 2


@pytest.mark.parametrize("share", [0.01, 0.1, 0.5, 0.9])
def test_the_share_is_near_the_asked_one(share: float) -> None:
    """The canary gets its share of 20,000 sessions, within half a point."""
    rollout = Rollout(1).with_canary(2, share)
    found = sum(rollout.version_of(f"session-{n}") == 2 for n in range(20_000)) / 20_000
    assert abs(found - share) < 0.005


def test_each_canary_tries_other_sessions() -> None:
    """The sessions of one canary are no more likely than others to be on the next."""
    sessions = [f"session-{n}" for n in range(10_000)]
    first, second = (Rollout(1).with_canary(version, 0.2) for version in (2, 3))
    both = sum(first.version_of(s) == 2 and second.version_of(s) == 3 for s in sessions)
    assert abs(both / 10_000 - 0.04) < 0.01


def test_a_session_has_the_same_place_in_another_process() -> None:
    """The hash does not depend on the interpreter's random seed."""
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); from state import Rollout; "
        "print([Rollout(1).with_canary(2, 0.5).version_of(f's{n}') for n in range(50)])"
    )
    folder = str(Path(state.__file__).parent)
    done = subprocess.run([sys.executable, "-c", code, folder], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == [Rollout(1).with_canary(2, 0.5).version_of(f"s{n}") for n in range(50)]


@given(rollout=rollouts)
def test_what_is_written_is_read(rollout: Rollout) -> None:
    """A state that is written and read is unchanged."""
    assert Rollout.from_json(rollout.to_json()) == rollout


@given(text=st.text() | st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists).map(json.dumps))
def test_what_is_no_state_is_refused(text: str) -> None:
    """Any other text raises `RolloutError`."""
    with pytest.raises(RolloutError, match="is not the state"):
        Rollout.from_json(text)


@pytest.mark.parametrize(
    "fields",
    [
        {"default": 0},
        {"default": True},
        {"default": "1"},
        {"default": 1, "canary": {"version": 2}},
        {"default": 1, "canary": {"version": 2, "share": 1.5}},
        {"default": 1, "canary": 2},
        {"default": 1, "previous": 3},
        {"default": 1, "previous": [None]},
        {"default": 1, "changed_unix_s": "now"},
    ],
)
def test_a_wrong_field_is_refused(fields: dict[str, object]) -> None:
    """A state with a field of the wrong type or out of range is refused."""
    with pytest.raises(RolloutError):
        Rollout.from_json(json.dumps(fields))


def test_a_rollout_goes_forth_and_back() -> None:
    """Promotion remembers the previous default; rolling back drops the canary first, then returns to that default."""
    promoted = Rollout(1).with_canary(2, 0.1).promoted()
    assert promoted == Rollout(2, None, (1,))
    trying = promoted.with_canary(3, 0.5)
    assert trying.rolled_back() == promoted
    assert trying.rolled_back().rolled_back() == Rollout(1)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda: Rollout(1).promoted(), "no canary to promote"),
        (lambda: Rollout(1).rolled_back(), "none to go back to"),
        (lambda: Rollout(1).with_canary(1, 0.1), "is the default already"),
        (lambda: Rollout(1).with_canary(2, 0), "above 0"),
        (lambda: Rollout(1).with_canary(2, 1.01), "at most 100 %"),
        (lambda: Rollout(1).with_canary(2, float("nan")), "above 0"),
        (lambda: Rollout(1).without(1), "is the default"),
        (lambda: Rollout(1).with_canary(2, 0.1).without(2), "is the canary"),
    ],
)
def test_changes_that_would_break_service_are_refused(change: object, reason: str) -> None:
    """A change that would leave sessions without a version is refused with the reason."""
    with pytest.raises(RolloutError, match=reason):
        change()  # type: ignore[operator]


@pytest.mark.parametrize(("text", "share"), [("10%", 0.1), ("2.5 %", 0.025), ("0.1", 0.1), ("100%", 1.0)])
def test_a_share_is_read_as_people_write_it(text: str, share: float) -> None:
    """A share may be written as a percentage or as a fraction."""
    assert parse_share(text) == pytest.approx(share)


def test_a_share_that_is_none_is_refused() -> None:
    """The refusal of an invalid share shows valid examples."""
    with pytest.raises(VersionError, match="such as 10%"):
        parse_share("a few")
