"""The commands, run by code that sees nothing of what Windows lacks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from personalive.media import VideoReader
from tests.server.running import free_port
from tests.windows.lacking import lacking

HERE = Path(__file__).parent
SAMPLES = HERE.parents[1] / "src" / "personalive" / "samples"
PORTRAIT, DRIVER = str(SAMPLES / "portrait.jpg"), str(SAMPLES / "driving.mp4")
SHORT = ("--pipeline", "preview", "--size", "256")


@pytest.fixture(scope="module")
def environment() -> dict[str, str]:
    path = os.pathsep.join([str(HERE), *(entry for entry in sys.path if entry)])
    names = json.dumps({module: sorted(names) for module, names in lacking().items()})
    return {**os.environ, "PYTHONPATH": path, "HIDDEN_NAMES": names}


def run(environment: dict[str, str], *arguments: str, cwd: Path) -> str:
    command = [sys.executable, "-m", "personalive", *arguments]
    done = subprocess.run(
        command, env=environment, cwd=cwd, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def frames(path: Path) -> int:
    with VideoReader(path) as reader:
        return sum(1 for _ in reader)


def test_the_emulation_hides_what_windows_lacks(environment: dict[str, str]) -> None:
    code = (
        "import sys, types, os\n"
        "ours = {'__package__': 'personalive', '__builtins__': __builtins__}\n"
        "for line in ('import fcntl', 'import os; os.getuid()', 'from os import fork'):\n"
        "    try: exec(line, dict(ours))\n"
        "    except (ImportError, AttributeError): pass\n"
        "    else: raise SystemExit(line)\n"
        'exec(\'import os, sys; assert (sys.platform, os.name) == ("win32", "nt")\', dict(ours))\n'
        "import fcntl; os.getuid(); assert sys.platform != 'win32'\n"
    )
    subprocess.run([sys.executable, "-c", code], env=environment, check=True, timeout=60)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="nothing is emulated there")
@pytest.mark.parametrize("resume", [[], ["--resume"]])
def test_animate(environment: dict[str, str], tmp_path: Path, resume: list[str]) -> None:
    run(
        environment,
        "animate",
        PORTRAIT,
        DRIVER,
        "-o",
        "out.mp4",
        "--end",
        "0.3",
        *SHORT,
        *resume,
        cwd=tmp_path,
    )
    assert frames(tmp_path / "out.mp4") > 3
    assert [path.name for path in tmp_path.iterdir()] == ["out.mp4"]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="nothing is emulated there")
def test_batch(environment: dict[str, str], tmp_path: Path) -> None:
    row = {"reference": PORTRAIT, "driving": DRIVER, "end": 0.3, "pipeline": "preview", "output": "one.mp4"}
    (tmp_path / "jobs.jsonl").write_text(json.dumps(row) + "\n", encoding="utf-8")
    for _ in range(2):  # the second finds it done
        run(environment, "batch", "jobs.jsonl", "-o", "out", cwd=tmp_path)
    assert frames(tmp_path / "out" / "one.mp4") > 3


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="nothing is emulated there")
def test_serve(environment: dict[str, str], tmp_path: Path) -> None:
    port = free_port()
    command = [sys.executable, "-m", "personalive", "serve", "--port", str(port), "--pipeline", "preview"]
    with subprocess.Popen(
        command, env=environment, cwd=tmp_path, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        told = []
        for line in process.stderr:
            told.append(line)
            if "pipeline_loaded" in line or "pipeline loaded" in line:
                break
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=20) as answer:
            assert answer.status == 200
        process.terminate()
        told.append(process.communicate(timeout=30)[1])
    assert process.returncode == 0, "".join(told)
