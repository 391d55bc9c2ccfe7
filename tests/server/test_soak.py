from __future__ import annotations

import pytest

from benchmarks.soak import ALLOWED, curves, growth, soak, table
from tests.server.running import Held, running


def looks(*megabytes: float) -> list[tuple[float, Held]]:
    return [
        (60.0 * minute, Held(sessions=0, processes=2, threads=30, handles=40, rss=round(1e6 * size)))
        for minute, size in enumerate(megabytes)
    ]


def test_one_odd_look_is_no_growth_and_a_trend_is() -> None:
    assert growth(looks(500, 500, 560, 500, 500, 500, 500, 470, 500), "rss")[2] == 0
    first, last, more = growth(looks(*range(500, 590, 10)), "rss")
    assert (first, last) == (510e6, 570e6)
    assert more == pytest.approx(60 / 510)
    assert more > ALLOWED


def test_the_table_and_the_curves_have_every_figure() -> None:
    rows = table(looks(500, 500, 510)).splitlines()
    assert rows[2] == "| rss | 500.0 MB | 510.0 MB | +2.0% |"
    assert rows[3] == "| threads | 30.0 | 30.0 | +0.0% |"
    assert [curve.title for curve in curves(looks(1, 2))] == ["rss", "threads", "handles"]


@pytest.mark.slow
def test_a_round_is_looked_at_when_nobody_streams() -> None:
    load = {"width": 256, "height": 256}
    with running({"pipeline": "paced", "load_params": load, "max_sessions": 1}) as server:
        server.wait_until_loaded()
        (only,) = soak(server, 30, 1, 10)
    assert only[0] > 30
    assert (only[1].sessions, only[1].processes) == (0, 2)
