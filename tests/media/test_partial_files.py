from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from personalive.media import open_writer
from personalive.media.output import OutputFile
from personalive.media.partial_files import PartialFileLock, partial_path, remove_stale_partials
from tests.signals import KILL

from .clips import PROVENANCE, patches

WRITES = """
import sys, time
from pathlib import Path
from personalive.media import Provenance, open_writer
import numpy as np
writer = open_writer(Path(sys.argv[1]), width=64, height=48, fps=25, provenance=Provenance("a", "b", "c" * 64))
for _ in range(5):
    writer.write(np.zeros((48, 64, 3), np.uint8))
print("writing", flush=True)
time.sleep(60)
"""


def ended() -> int:
    """The id of a process that is gone."""
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    return process.pid


@pytest.mark.parametrize("name", ["out.mp4", "out.webm", "out.gif", "frames"])
def test_what_a_killed_run_left_is_swept_by_the_next(tmp_path: Path, name: str) -> None:
    command = [sys.executable, "-c", WRITES, str(tmp_path / name)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "writing\n"
        (left,) = tmp_path.iterdir()
        remove_stale_partials(tmp_path)
        assert left.exists()  # it is being written to
        process.send_signal(KILL)
    assert left.exists()
    with open_writer(tmp_path / "next.mp4", width=64, height=48, fps=25, provenance=PROVENANCE) as writer:
        writer.write(patches())
    assert [path.name for path in tmp_path.iterdir()] == ["next.mp4"]


def test_only_what_nobody_writes_is_swept(tmp_path: Path) -> None:
    gone = ended()
    kept = ["notes.txt", f".a.partial-{gone}", f"b.partial-{gone}-0.mp4", f".c.partial-{os.getppid()}-0.mp4",
            f".d.partial-{2**40}-0.mp4"]  # fmt: skip
    left = [f".{stem}.partial-{gone}-{number}{suffix}" for stem, number, suffix in
            (("a", 0, ".mp4"), ("b.c", 17, ""), ("ü 🎭", 3, ".png"))]  # fmt: skip
    ours = f".before.partial-{os.getpid()}-999999.mp4"  # of a process that had our number
    for name in (*kept, *left, ours):
        (tmp_path / name).touch()
    (tmp_path / f".folder.partial-{gone}-1").mkdir()
    (tmp_path / f".folder.partial-{gone}-1" / "00001.png").touch()
    with OutputFile(tmp_path / "out.txt", overwrite=False) as output:
        remove_stale_partials(tmp_path)
        assert output.partial.exists()
    assert {path.name for path in tmp_path.iterdir()} == {*kept, "out.txt"}


@pytest.mark.skipif(sys.platform == "win32", reason="what is open cannot be removed there")
def test_what_is_held_elsewhere_is_kept_though_its_process_is_not_seen(tmp_path: Path) -> None:
    for left in (tmp_path / f".a.partial-{ended()}-0.mp4", tmp_path / f".b.partial-{ended()}-0"):
        left.mkdir() if left.suffix == "" or left.name.startswith(".b") else left.touch()
        hold = PartialFileLock(left)  # as another container would
        remove_stale_partials(tmp_path)
        assert left.exists()
        hold.release()
        remove_stale_partials(tmp_path)
        assert not left.exists()


def test_a_folder_that_may_not_be_read_is_no_obstacle(tmp_path: Path) -> None:
    remove_stale_partials(tmp_path / "none")
    assert partial_path(tmp_path / "a.mp4") != partial_path(tmp_path / "a.mp4")


def test_time_is_not_wasted_in_full_folders(tmp_path: Path) -> None:
    for number in range(2000):
        (tmp_path / f"{number}.png").touch()
    begun = time.perf_counter()
    remove_stale_partials(tmp_path)
    assert time.perf_counter() - begun < 5
