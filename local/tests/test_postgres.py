"""PostgreSQL's folders: their place, and the users that can reach them."""

from pathlib import Path

import pytest
from whisperline_local import postgres
from whisperline_local.settings import LocalSettings


def test_a_closed_folder_on_the_way_is_noticed(tmp_path: Path) -> None:
    """A path is reachable only if any user may traverse each of its existing parent folders."""
    outer, inner = tmp_path / "outer", tmp_path / "outer/inner"
    inner.mkdir(parents=True)
    for folder in (outer, inner):
        folder.chmod(0o755)
    above = postgres.is_reachable(tmp_path)
    assert postgres.is_reachable(inner / "not there yet") == above
    outer.chmod(0o700)
    assert not postgres.is_reachable(inner)


def test_data_outside_the_state_folder_belongs_to_one_password(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A state folder that was made again, with a new password, does not use the data of the old one."""
    monkeypatch.setattr(postgres, "server_user_id", lambda: 65534)
    monkeypatch.setattr(postgres, "is_reachable", lambda _path: False)
    settings = LocalSettings(state_dir=tmp_path)
    folder = postgres.postgres_folder(settings, "one")
    assert folder.parent == postgres.SHARED
    assert folder == postgres.postgres_folder(settings, "one")
    assert folder != postgres.postgres_folder(settings, "other")


def test_data_in_reach_is_in_the_state_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Started by an ordinary user, PostgreSQL keeps its data with the rest of the state."""
    monkeypatch.setattr(postgres, "server_user_id", lambda: None)
    assert postgres.postgres_folder(LocalSettings(state_dir=tmp_path), "one") == tmp_path / "postgres"
