from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.cli.conftest import Call


PLUGIN = Path(__file__).parents[1] / "plugin"
PROGRAM = "import sys; from personalive.cli.app import main; sys.argv[0] = 'personalive'; main()"


@pytest.mark.parametrize("arguments", [["--help"], ["-h"], []])
def test_help_names_every_command_and_gives_examples(personalive: Call, arguments: list[str]) -> None:
    done = personalive(*arguments)
    assert done.code == 0
    for word in ("animate", "doctor", "pipelines", "version", "Examples:"):
        assert word in done.out


@pytest.mark.parametrize("arguments", [["version"], ["--version"]])
def test_version(personalive: Call, arguments: list[str]) -> None:
    done = personalive(*arguments)
    assert (done.code, done.out, done.err) == (0, f"personalive {version('personalive')}\n", "")


@pytest.mark.parametrize("module", ["numpy", "cv2", "av", "ai_edge_litert", "pydantic", "PIL"])
def test_help_imports_nothing_heavy(module: str) -> None:
    check = f"import sys, personalive.cli.app; assert {module!r} not in sys.modules"
    subprocess.run([sys.executable, "-c", check], check=True, timeout=30)


def test_help_imports_little() -> None:
    """Most of the time that `--help` takes goes into imports; today they are some 350 modules."""
    count = "import sys, atexit; atexit.register(lambda: print(len(sys.modules), file=sys.stderr)); "
    done = subprocess.run(
        [sys.executable, "-c", count + PROGRAM, "--help"],
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert int(done.stderr.split()[-1]) < 500


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nonesuch"], ["nonesuch"]),
        (["animate"], ["REFERENCE", "See: personalive animate --help"]),
        (["animate", "a.png", "b.mp4", "--sizes", "3"], ["--sizes"]),
        (["animate", "a.png", "b.mp4", "--size", "large"], ["--size", "valid integer"]),
        (["animate", "a.png", "b.mp4", "-o", "x.mp4", "--set", "gain"], ["NAME=VALUE"]),
        (["doctor", "now"], ["now"]),
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_2(
    personalive: Call, arguments: list[str], words: list[str]
) -> None:
    done = personalive(*arguments)
    assert done.code == 2
    assert done.out == ""
    assert done.err.startswith("error: ")
    assert done.err.count("\n") == 1
    for word in words:
        assert word in done.err


def environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(PLUGIN)}


HANGUP: signal.Signals = getattr(signal, "SIGHUP", signal.SIGTERM)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (HANGUP, 143)])
def test_a_signal_ends_it_within_a_second_and_leaves_nothing(
    portrait_file: Path, clip: Path, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    command = [sys.executable, "-c", PROGRAM, "animate", str(portrait_file), str(clip), "--pipeline", "echo"]
    command += ["-o", str(tmp_path / "out.mp4"), "--set", "pause=0.3"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment()
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("animating"):
                break
        assert [path.name[:4] for path in tmp_path.iterdir()] == [".out"]
        begun = time.monotonic()
        process.send_signal(number)
        _, err = process.communicate(timeout=20)
        assert time.monotonic() - begun < 5
    assert process.returncode == code
    assert "Traceback" not in err
    assert ("interrupted" in err) == (number is signal.SIGINT)
    assert list(tmp_path.iterdir()) == []


def test_a_defect_of_ours_keeps_its_traceback(portrait_file: Path, clip: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-c", PROGRAM, "animate", str(portrait_file), str(clip), "--pipeline", "echo"]
    command += ["-o", str(tmp_path / "out.mp4"), "--set", "fail_at=3"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment(), timeout=60, check=False)
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert "broke down as told" in done.stderr
    assert list(tmp_path.iterdir()) == []
