from __future__ import annotations

import os
import signal
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from personalive.jobs import motion as jobs
from personalive.media import open_driving

if TYPE_CHECKING:
    from tests.cli.conftest import Call

SAMPLES = Path(str(files("personalive") / "samples"))
PORTRAIT, CLIP = SAMPLES / "portrait.jpg", SAMPLES / "driving.mp4"
SMALL = ("--set", "width=64", "--set", "height=64")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def test_extract_and_drive(personalive: Call, test_weights: Path, here: Path) -> None:
    done = personalive("motion", "extract", CLIP, "--weights", test_weights, "--end", "0.1", *SMALL)
    assert done.code == 0
    assert done.out.startswith("driving.safetensors: ")
    assert "looking at the driver" in done.err
    done = personalive(
        "motion", "drive", PORTRAIT, "driving.safetensors", "--weights", test_weights, "-q", *SMALL
    )
    assert (done.code, done.out) == (0, "")
    with open_driving(here / "portrait_driving.mp4") as source:
        assert (source.info.width, source.info.height) == (64, 64)
    assert {path.name for path in here.iterdir()} == {"driving.safetensors", "portrait_driving.mp4"}


@pytest.mark.parametrize("command", [(), ("extract",), ("drive",)])
def test_help(personalive: Call, command: tuple[str, ...]) -> None:
    done = personalive("motion", *command, "--help")
    assert done.code == 0
    assert "motion" in done.out
    assert ("Examples:" in done.out) == bool(command)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("extract", "nonesuch.mp4", "--weights", "{weights}"), "nonesuch.mp4 does not exist"),
        (("extract", CLIP), "personalive download"),
        (("extract", CLIP, "-o", "out.bin", "--weights", "{weights}"), "ends in .safetensors"),
        (("drive", PORTRAIT, "nonesuch.safetensors", "--weights", "{weights}"), "does not exist"),
        (("drive", PORTRAIT, CLIP, "--weights", "{weights}"), "personalive motion extract CLIP"),
        (("drive", PORTRAIT, CLIP, "--set", "pose"), "NAME=VALUE"),
        (("drive", PORTRAIT), "MOTION"),
    ],
)
def test_errors_are_one_sentence(
    personalive: Call, test_weights: Path, here: Path, arguments: tuple[object, ...], words: str
) -> None:
    given = [str(argument).replace("{weights}", str(test_weights)) for argument in arguments]
    done = personalive("motion", *given, "-q")
    assert done.code == 2
    assert words in done.err
    assert done.err.count("\n") == 1
    assert list(here.iterdir()) == []


def test_ctrl_c_leaves_nothing(
    personalive: Call, test_weights: Path, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(jobs, "extract_from_source", interrupted)
    done = personalive("motion", "extract", CLIP, "--weights", test_weights, "-q", *SMALL)
    assert done.code == 130
    assert "nothing was written" in done.err
    assert list(here.iterdir()) == []
