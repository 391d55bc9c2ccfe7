"""The capacity model behaves as what it models: nobody is lost or made up, and full is full."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.capacity import DAY, World, arrivals, recorded, simulate

FEW = World(users=20, start=5.0)


def test_sessions_at_once_are_arrivals_times_length() -> None:
    curve = arrivals(FEW)
    day = simulate(FEW, curve)
    assert day.asked == curve.sum()
    assert day.used.mean() == pytest.approx(curve.mean() * 300 * np.exp(0.5), rel=0.15)  # Little's law
    assert (day.used <= day.there).all()
    assert len(day.waited) + day.lost == pytest.approx(day.asked, abs=20)  # but for those who still wait


def test_a_service_that_may_not_grow_refuses() -> None:
    world = World(users=20, most=2, sessions_per_gpu=1)
    day = simulate(world, arrivals(world))
    assert day.used.max() == 2
    assert day.there.max() == 2
    assert day.lost > 0.5 * day.asked


def test_replicas_that_start_slowly_make_a_small_service_wait() -> None:
    slow = World(users=20, start=400.0)
    curve = arrivals(slow)
    assert simulate(slow, curve).at_once < simulate(FEW, curve).at_once


def test_a_recorded_day_is_what_is_simulated(tmp_path: Path) -> None:
    path = tmp_path / "arrivals.txt"
    path.write_text("0\n" * 720 + "6\n" * 720)
    curve = recorded(path, 1)
    assert len(curve) == DAY
    assert curve[: DAY // 2].sum() == 0
    assert simulate(FEW, curve).asked == 6 * 720
    path.write_text("6\n" * 10)
    with pytest.raises(SystemExit, match="1440 lines"):
        recorded(path, 1)
