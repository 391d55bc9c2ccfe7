from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import personalive
from personalive.face import model_bundle

if TYPE_CHECKING:
    from tests.cli.conftest import Call

_FOLDER = Path(personalive.__file__).parent / "samples"
SAMPLES = (_FOLDER / "portrait.jpg", _FOLDER / "driving.mp4")


def test_all_is_well_here(personalive: Call) -> None:
    done = personalive("doctor")
    assert done.code == 0, done.out
    (failed,) = [line for line in done.out.splitlines() if line.startswith("problem")]
    assert failed.startswith("problem  pipeline personalive  there are no weights in ")
    assert "to do: Run: personalive download\n" in done.out
    assert done.out.endswith("Portraits can be animated here.\n")
    for word in (
        "Python",
        "CPU cores",
        "memory",
        "libx264",
        "libopus",
        "finds a test face",
        "pipeline preview",
    ):
        assert word in done.out


def test_json_holds_the_same(personalive: Call) -> None:
    done = personalive("doctor", "--json")
    told = json.loads(done.out)
    assert told["ready"] is True
    assert {"level", "name", "ok", "detail", "remedy", "required"} == set(told["checks"][0])
    assert {check["level"] for check in told["checks"]} == {"ok", "note", "problem"}


@pytest.mark.slow
def test_an_altered_face_model_fails_it(
    personalive: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "face_landmarker.task").write_bytes(b"PK altered")
    model_bundle.read_model_bundle.cache_clear()
    monkeypatch.setattr(model_bundle, "files", lambda _package: tmp_path)
    done = personalive("doctor")
    model_bundle.read_model_bundle.cache_clear()
    assert done.code == 1
    assert "problem  face landmark model" in done.out
    assert done.out.endswith("Portraits cannot be animated here.\n")


@pytest.mark.slow
@pytest.mark.usefixtures("plugins")
def test_pipelines_that_cannot_run_say_why_but_do_not_fail_it(personalive: Call) -> None:
    done = personalive("doctor")
    assert done.code == 0
    assert "pipeline missing      its weights are missing." in done.out
    assert "to do: Run `download_models --pipeline missing`." in done.out
    assert "No module named 'no_such_module_anywhere'" in done.out


@pytest.mark.slow
def test_a_gpu_is_reported_by_its_driver(
    personalive: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 'Some GPU, 24576, 24000, 550.1, 8.6'\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert "GPU                   Some GPU, compute capability 8.6, 24.0 GiB, 23.4 free, driver 550.1" in (
        personalive("doctor").out
    )
    program.write_text("#!/bin/sh\necho 'no devices' >&2\nexit 9\n")
    assert "nvidia-smi finds none: no devices" in personalive("doctor").out


@pytest.mark.slow
def test_a_cache_folder_that_cannot_be_written_is_told(
    personalive: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("PERSONALIVE_HOME", str(tmp_path / "file"))
    done = personalive("doctor")
    assert "not writable" in done.out
    assert "Set PERSONALIVE_HOME" in done.out
    assert done.code == 0


@pytest.mark.slow
@pytest.mark.parametrize("library", ["av", "cv2", "ai_edge_litert", "numpy", "PIL", "pydantic"])
def test_a_library_that_does_not_import_is_a_finding(library: str, tmp_path: Path) -> None:
    broken = tmp_path / library
    broken.mkdir()
    (broken / "__init__.py").write_text(
        f"raise ImportError('libxcb.so.1: cannot open shared object file', name={library!r})"
    )
    environment = os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
    for command in (["doctor"], ["animate", *map(str, SAMPLES), "-o", "out.mp4", "--max-frames", "4"]):
        done = subprocess.run(
            [sys.executable, "-m", "personalive", *command],
            check=False, capture_output=True, text=True, env=environment, cwd=tmp_path, timeout=120,
        )  # fmt: skip
        assert "Traceback" not in done.stderr, done.stderr
        # Options are parsed with pydantic: without it there is no doctor either.
        able = command == ["doctor"] and library != "pydantic"
        assert done.returncode == (1 if able else 2)
        assert "pip install" in done.stdout + done.stderr
