"""Where there is no home, or one that may not be entered, there is a folder all the same, and nobody else's."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import pytest

from personalive.errors import InputError
from personalive.paths import cache_dir, expand_user, user_tag
from tests.signals import IS_ROOT

NOWHERE = "Could not determine home directory."


@pytest.fixture
def homeless(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user without a home, as a number without a name in a container; what stands for it is given."""

    def fail() -> Path:
        raise RuntimeError(NOWHERE)

    monkeypatch.delenv("PERSONALIVE_HOME", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", fail)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path / f"personalive-{user_tag()}"


def test_what_the_environment_says_counts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("PERSONALIVE_HOME", raising=False)
    monkeypatch.setattr("sys.platform", "linux")
    assert cache_dir() == tmp_path / "personalive"
    monkeypatch.setenv("PERSONALIVE_HOME", str(tmp_path / "own"))
    assert cache_dir() == tmp_path / "own"


def test_without_a_home_it_is_among_temporary_files(homeless: Path) -> None:
    assert cache_dir() == homeless
    assert homeless.stat().st_mode & 0o777 == 0o700
    assert cache_dir() == homeless


def test_a_home_that_may_not_be_entered_is_none(homeless: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path) -> bool:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "home", lambda: Path("/root"))
    monkeypatch.setattr(Path, "exists", refuse)
    assert cache_dir() == homeless


def test_others_may_write_there(homeless: Path) -> None:
    homeless.mkdir()
    homeless.chmod(0o777)
    with pytest.raises(InputError, match=r"open to others.*PERSONALIVE_HOME"):
        cache_dir()


def test_a_link_leads_to_somebody_elses(homeless: Path, tmp_path: Path) -> None:
    homeless.symlink_to(tmp_path)
    with pytest.raises(InputError, match="open to others"):
        cache_dir()


@pytest.mark.skipif(not IS_ROOT, reason="only root gives files away")
def test_somebody_else_made_it(homeless: Path) -> None:
    homeless.mkdir(mode=0o700)
    if sys.platform != "win32":
        os.chown(homeless, 12345, 0)
    with pytest.raises(InputError, match="open to others"):
        cache_dir()


def test_where_nothing_can_be_made_it_says_what_to_do(
    homeless: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(homeless / "missing"))
    with pytest.raises(InputError, match="PERSONALIVE_HOME"):
        cache_dir()


def test_names_of_nobody_are_refused() -> None:
    with pytest.raises(InputError, match="no such home folder"):
        expand_user(Path("~nobody-of-that-name/video.mp4"))
    assert expand_user(Path("video.mp4")) == Path("video.mp4")
