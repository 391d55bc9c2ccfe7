from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from personalive.batch import storage
from personalive.batch.workspace import InputCache, Workspace
from personalive.errors import MediaError
from tests.signals import KILL


def test_a_folder_of_its_own_gone_afterwards(tmp_path: Path) -> None:
    with Workspace(tmp_path / "root") as one, Workspace(tmp_path / "root") as two:
        (one.make_folder("a", "b") / "c").write_bytes(b"x")
        assert one.path != two.path
        assert (one.path / "a/b/c").exists()
    assert list((tmp_path / "root").iterdir()) == []


def test_what_a_killed_worker_left_is_removed(tmp_path: Path) -> None:
    code = (
        "import time; from pathlib import Path; from personalive.batch.workspace import Workspace\n"
        f"with Workspace(Path({str(tmp_path)!r})):\n    print('in', flush=True); time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        with Workspace(tmp_path):
            assert len(list(tmp_path.iterdir())) == 2, "one that lives is left alone"
        process.send_signal(KILL)
    with Workspace(tmp_path) as ours:
        assert list(tmp_path.iterdir()) == [ours.path]


def test_paths_are_used_as_they_are(tmp_path: Path) -> None:
    with InputCache(tmp_path, 0).open_local("/some/where.png") as path:
        assert path == Path("/some/where.png")


def test_copies_are_kept_within_bounds(tmp_path: Path, store: str) -> None:
    for name in "abcd":
        storage.write_bytes(f"{store}/{name}.bin", name.encode() * 100)
    cache = InputCache(tmp_path, 250)

    def kept() -> set[str]:
        return {path.name for path in tmp_path.glob("*/*")}

    with cache.open_local(f"{store}/a.bin") as first, cache.open_local(f"{store}/b.bin"):
        assert first.read_bytes() == b"a" * 100
    assert kept() == {"a.bin", "b.bin"}
    with cache.open_local(f"{store}/a.bin") as again:
        assert again == first
        inode = first.stat().st_ino
    with cache.open_local(f"{store}/c.bin"):
        pass
    assert kept() == {"a.bin", "c.bin"}, "the least recently used went"
    with (
        cache.open_local(f"{store}/a.bin"),
        cache.open_local(f"{store}/b.bin"),
        cache.open_local(f"{store}/d.bin"),
    ):
        assert first.stat().st_ino == inode
        assert kept() >= {"a.bin", "b.bin", "d.bin"}, "what is in use stays"
    assert len(kept()) == 2


def test_a_changed_file_is_fetched_anew(tmp_path: Path, store: str) -> None:
    cache = InputCache(tmp_path, 10**6)
    for data in (b"one", b"other"):
        storage.write_bytes(f"{store}/a.bin", data)
        with cache.open_local(f"{store}/a.bin") as path:
            assert path.read_bytes() == data


def test_a_missing_one_is_said(tmp_path: Path, store: str) -> None:
    with (
        pytest.raises(MediaError, match="no such file"),
        InputCache(tmp_path, 0).open_local(f"{store}/a.bin"),
    ):
        pass
