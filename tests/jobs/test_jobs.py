"""What `benchmarks.jobs` makes of what commands say; its runs are the benchmark's, not the tests'."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from benchmarks.jobs import Finished, Measured, devices, finished, make_clip, table, throughput
from personalive.media import open_driving


def test_a_batch_is_as_fast_as_its_workers_once_they_have_loaded() -> None:
    first = [Finished("a", 100, at) for at in (50.0, 52.0, 54.0)]
    second = [Finished("b", 100, at) for at in (60.0, 64.0)]
    assert throughput(first) == pytest.approx(50)
    assert throughput([*second, *first[::-1]]) == pytest.approx(50 + 25)


def test_loading_cannot_be_left_out_of_one_job() -> None:
    with pytest.raises(ValueError, match="worker b did one job only"):
        throughput([Finished("a", 9, 1.0), Finished("a", 9, 2.0), Finished("b", 9, 1.0)])


def test_jobs_are_read_from_a_report(tmp_path: Path) -> None:
    output = tmp_path / "a.mp4"
    output.touch()
    os.utime(output, (1000.5, 1000.5))
    done = {"worker": "here", "frames": 25, "output": str(output), "state": "done"}
    failed = done | {"state": "failed", "output": str(tmp_path / "b.mp4")}
    (tmp_path / "report.json").write_text(json.dumps({"jobs": [done, failed]}))
    assert finished(tmp_path, 1) == [Finished("1/here", 25, 1000.5)]


def test_the_clip_is_as_long_as_is_asked_for(tmp_path: Path) -> None:
    make_clip(tmp_path / "clip.mp4", 12)
    with open_driving(tmp_path / "clip.mp4") as source:
        assert (source.info.width, source.info.height, source.info.fps) == (512, 512, 25)
        assert sum(1 for _ in source) == 12


def test_devices_are_those_that_the_environment_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    assert devices(2) == ["3", "5"]
    with pytest.raises(SystemExit, match="names 2 GPUs, not 4"):
        devices(4)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert devices(2) == ["0", "1"]


def test_rates_are_shares_of_the_networks() -> None:
    networks = [Measured("networks, 0 keyframes", 40.0), Measured("networks, 3 keyframes", 32.0)]
    lines = table([*networks, Measured("animate", 36.0, 1500, 41.7, 30.0)]).splitlines()
    assert lines[0].count("of networks") == 2
    assert lines[2] == "| networks, 0 keyframes |  |  | 40.0 |  |  |  |"
    assert lines[4] == "| animate | 1500 | 41.7 | 36.0 | 0.90 | 1.12 | 30.0 |"
