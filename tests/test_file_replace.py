from __future__ import annotations

from pathlib import Path

import pytest

from personalive import file_replace
from personalive.errors import MediaError
from personalive.file_replace import is_file_in_use, replace_file
from personalive.media.output import OutputFile


class RefusedError(PermissionError):
    """As Windows raises it while another program has the file open."""

    winerror = 32


class Held:
    """Refuses to replace files for the first `times` tries."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, times: float) -> None:
        self.tries = 0
        plain = Path.replace

        def replace(source: Path, target: Path) -> Path:
            self.tries += 1
            if self.tries <= times:
                raise RefusedError(13, "Permission denied")
            return plain(source, target)

        monkeypatch.setattr(Path, "replace", replace)


@pytest.fixture
def new(tmp_path: Path) -> Path:
    (tmp_path / "old").write_bytes(b"old")
    (tmp_path / "new").write_bytes(b"new")
    return tmp_path / "new"


def test_a_file_that_is_open_for_a_moment_is_tried_again(new: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held = Held(monkeypatch, 3)
    replace_file(new, new.with_name("old"))
    assert new.with_name("old").read_bytes() == b"new"
    assert held.tries == 4


def test_what_stays_open_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_replace, "_RETRY_TIMEOUT_S", 0.1)
    Held(monkeypatch, float("inf"))
    (tmp_path / "out.mp4").write_bytes(b"old")
    with (
        pytest.raises(MediaError, match=r"another program has it open, a player perhaps\. Close it there"),
        OutputFile(tmp_path / "out.mp4", overwrite=True) as output,
    ):
        output.partial.write_bytes(b"new")
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("out.mp4", b"old")]


def test_other_refusals_are_raised_at_once(new: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RefusedError, "winerror", None)
    held = Held(monkeypatch, 1)
    with pytest.raises(PermissionError):
        replace_file(new, new.with_name("old"))
    assert held.tries == 1
    assert not is_file_in_use(FileNotFoundError())
