"""How a batch that started workers ends: by our exit codes, and with nothing left of Ray."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from importlib.resources import files
from pathlib import Path

import pytest

pytest.importorskip("ray")

SAMPLES = Path(str(files("personalive") / "samples"))


def descendants(pid: int) -> set[int]:
    """Processes that this one has started, and those that they have."""
    parents = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:  # it has just ended
            continue
    found = {pid}
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return found - {pid}


@pytest.mark.cluster
@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_stopped_it_takes_its_ray_with_it(tmp_path: Path, number: int, code: int) -> None:
    command = [sys.executable, "-c", "from personalive.cli.app import main; main()", "batch"]
    command += [str(SAMPLES / "portrait.jpg"), str(SAMPLES / "driving.mp4"), "--out", str(tmp_path)]
    command += ["--pipeline", "preview", "--segment-frames", "8", "--size", "256", "--workers", "2"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        while not list(tmp_path.glob(".*.resume/segment-00001.*")):
            assert process.poll() is None
            time.sleep(0.05)
        started = descendants(process.pid)
        assert any("raylet" in Path(f"/proc/{pid}/cmdline").read_text() for pid in started)
        process.send_signal(number)
        out, said = process.communicate(timeout=60)
    assert (process.returncode, out) == (code, "")
    assert "Traceback" not in said
    assert list(tmp_path.glob(".*.resume/segment-00000.*"))
    deadline = time.monotonic() + 20
    while any(Path(f"/proc/{pid}").exists() for pid in started) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not [pid for pid in started if Path(f"/proc/{pid}").exists()]
