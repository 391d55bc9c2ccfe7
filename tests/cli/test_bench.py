from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.cli.conftest import Call

SMALL = ("--set", "height=64", "--set", "width=64", "--set", "device=cpu", "--steps", 1)


@pytest.mark.slow
def test_without_weights_random_ones_are_measured_and_it_says_so(personalive: Call, tmp_path: Path) -> None:
    file = tmp_path / "bench.json"
    outcome = personalive("bench", *SMALL, "--keyframes", 2, "--sessions", 2, "--json", file)
    assert outcome.code == 0
    assert "Random weights of the small size: the speed is theirs, the picture is noise." in outcome.err
    assert outcome.out.startswith("cpu, torch ")
    assert "2 sessions at once, 2 keyframes, 1 steps:" in outcome.out
    assert " frames per second each; the networks alone: " in outcome.out
    for stage in ("motion networks", "pose guider", "denoising UNet", "decoder", "all else"):
        assert outcome.out.count(f"\n{stage} ") == 1
    written = json.loads(file.read_text())
    (row,) = written["steps"]
    for times in row.values():
        assert (times["sessions"], times["keyframes"], times["steps"]) == (2, 2, 1)
        assert sum(stage["ms"] for stage in times["stages"]) == pytest.approx(times["median_ms"])
        assert all(stage["floor_ms"] is None for stage in times["stages"])
    assert list(row) == ["whole", "networks"]
    assert written["faces"] == 1.0
    assert written["mode"] == "off"
    assert written["settings"] == {"height": 64, "width": 64, "device": "cpu"}


@pytest.mark.slow
def test_the_networks_are_measured_alone_for_every_number(personalive: Call, tmp_path: Path) -> None:
    file = tmp_path / "bench.json"
    numbers = ("--keyframes", 0, "--keyframes", 2, "--sessions", 1, "--sessions", 2)
    outcome = personalive("bench", *SMALL, "--networks", *numbers, "--json", file)
    assert outcome.code == 0
    assert "the networks alone" not in outcome.out
    assert "1 session, 0 keyframes, 1 steps:" in outcome.out
    assert outcome.out.count("\ndenoising UNet ") == 4
    written = json.loads(file.read_text())
    assert written["faces"] is None
    assert [row["whole"] for row in written["steps"]] == [None] * 4
    measured = [(row["networks"]["sessions"], row["networks"]["keyframes"]) for row in written["steps"]]
    assert measured == [(1, 0), (1, 2), (2, 0), (2, 2)]


@pytest.mark.slow
def test_a_set_of_weights_is_measured_where_it_is(personalive: Call, test_weights: Path) -> None:
    outcome = personalive("bench", *SMALL, "--weights", test_weights)
    assert outcome.code == 0
    assert "weights: a set on disk" in outcome.out
    assert str(test_weights) not in outcome.out


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (
            ("--weights", "nowhere"),
            "The PersonaLive pipeline cannot be loaded: there are no weights in nowhere",
        ),
        (
            ("--set", "compile=graphs"),
            "compile=graphs needs a CUDA device, and this is cpu: take off, full or auto",
        ),
        (("--set", "speed=9"), "no parameter 'speed'"),
        (("--json", "nowhere/bench.json"), "nowhere"),
        (("--json", "."), ". is a folder: name a file for --json."),
    ],
)
def test_what_cannot_be_is_said_in_a_sentence(personalive: Call, given: tuple[str, ...], said: str) -> None:
    outcome = personalive("bench", *SMALL, *given)
    assert outcome.code == 2
    assert "median" not in outcome.out  # before anything was measured
    assert said in outcome.err.splitlines()[-1]
