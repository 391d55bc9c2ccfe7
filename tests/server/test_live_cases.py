"""What `benchmarks.live` makes of figures that are told; its runs are the benchmark's, not the tests'."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from benchmarks.live_cases import (
    Case,
    Row,
    SessionFigures,
    all_cases,
    bars,
    by_server,
    chosen,
    evaluate,
    table,
)
from tests.server.report import Message, Report, Seen

CASES = {case.name: case for case in all_cases(2)}
GOOD = SessionFigures(30.0, 29.9, 30.1, 0, 0, 0, 3, 100.0, 560.0, 640.0, {"chunk": 66.0, "window": 400.0})


def row(name: str, *sessions: SessionFigures) -> Row:
    return Row(CASES[name], sessions)


def met(one: Row, rows: list[Row] | None = None, networks_fps: float | None = None) -> list[bool]:
    return [bar.met for bar in bars(one, rows or [one], networks_fps)]


def stats(second: int, **changed: object) -> tuple[float, Message]:
    """What a server tells each second that gets 30 frames per second and sends 25 of them."""
    told = {
        "type": "stats",
        "latency_ms": {"p50": 500.0, "p95": 600.0},
        "delay_ms": {"chunk": 60.0, "window": 400.0, "step": None},
        "chunk_ms": 90.0,
        "dropped_in": 5 * second,
        "dropped_out": 7,
        "frames_in": 30 * second,
        "frames_out": 25 * second,
        "frames_without_face": second,
        "keyframes": 2,
    }
    return 100.0 + second, told | changed


def test_figures_are_of_the_time_that_counts() -> None:
    messages = [stats(second) for second in range(1, 31)]
    messages[3] = stats(4, latency_ms={"p50": None, "p95": None}, chunk_ms=9000.0)  # before it begins
    messages[20] = stats(21, latency_ms={"p50": 520.0, "p95": 900.0}, chunk_ms=300.0)  # one second in twenty
    seen = [Seen(None, None, 100 + k / 25, 512, 512) for k in range(750)]
    found = evaluate(Report(30, seen=seen, messages=messages), 110, 131)
    assert (found.fps_in, found.fps_out) == (30.0, 25.0)
    assert found.received == pytest.approx(25)
    assert (found.dropped_in, found.dropped_out, found.faceless) == (5 * 20, 0, 20)
    assert found.keyframes == 2
    assert (found.step_ms, found.p50_ms, found.p95_ms) == (90.0, 500.0, 600.0)
    assert found.delay_ms == {"chunk": 60.0, "window": 400.0}


def test_a_server_that_tells_nothing_has_no_figures() -> None:
    silent = [stats(second, latency_ms={"p50": None, "p95": None}) for second in range(5)]
    with pytest.raises(ValueError, match="no frame that shows the driver was sent"):
        evaluate(Report(30, messages=silent), 100, 105)


def test_a_session_that_began_too_late_has_none_either() -> None:
    messages = [stats(second) for second in range(12)]
    assert evaluate(Report(30, messages=messages), 100, 112).fps_in == 30
    with pytest.raises(ValueError, match="12 messages of figures came in 20 s"):
        evaluate(Report(30, messages=messages), 100, 120)


def test_older_servers_tell_no_parts_of_the_delay() -> None:
    messages = [(at, {k: v for k, v in told.items() if k != "delay_ms"}) for at, told in map(stats, range(5))]
    assert evaluate(Report(30, messages=messages), 100, 105).delay_ms == {}


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({}, [True, True, True]),
        ({"fps_out": 29.4}, [False, True, True]),
        ({"dropped_out": 1}, [True, False, True]),
        ({"p95_ms": 661.0}, [True, True, False]),  # 15 × 33.3 + 100 + 60
    ],
)
@pytest.mark.parametrize("name", ["camera 30", "fast camera 30", "gpus camera 30"])
def test_a_camera_of_30_must_be_followed(name: str, changed: dict[str, float], expected: list[bool]) -> None:
    worse = replace(GOOD, **changed)  # type: ignore[arg-type]
    sessions = (GOOD, worse) if CASES[name].gpus else (worse,)
    assert met(row(name, *sessions)) == expected


def test_the_lowest_latency_has_its_bar_and_the_others_none() -> None:
    assert met(row("latency lowest", replace(GOOD, p95_ms=250.0))) == [True]
    assert met(row("latency lowest", replace(GOOD, p95_ms=251.0))) == [False]
    assert met(row("latency low", replace(GOOD, p95_ms=900.0))) == []


def test_the_fast_mode_is_held_against_its_networks_where_they_are_known() -> None:
    fast = row("fast camera 60", replace(GOOD, fps_out=54.0))
    assert met(fast) == []
    assert met(fast, networks_fps=58.0) == [True]  # 53.9
    assert met(fast, networks_fps=58.6) == [False]
    assert met(row("fast camera 60", replace(GOOD, fps_out=56.0)), networks_fps=200.0) == [True]


def test_two_sessions_share_what_one_has_of_the_same_pipeline() -> None:
    two = row("sessions 2", replace(GOOD, fps_out=21.0), replace(GOOD, fps_out=20.6))
    alone = [row("camera 30", GOOD), row("camera 60", replace(GOOD, fps_out=45.0))]
    other = row("fast camera 60", replace(GOOD, fps_out=58.0))
    assert met(two, [two, other]) == []
    assert met(two, [*alone, other, two]) == [False]  # 20.7
    assert met(two, [alone[0], other, two]) == [True]


def test_the_table_has_a_figure_for_each_session_and_marks_what_is_missed() -> None:
    rows = [row("camera 30", GOOD), row("sessions 2", GOOD, replace(GOOD, fps_out=12.0, dropped_in=4))]
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table(rows).splitlines()]
    assert len({len(line) for line in lines}) == 1
    assert lines[2][:4] == ["camera 30", "30 fps", "30.0", "29.9"]
    assert lines[2][-2] == "66 + 400 + – + –"
    assert lines[2][-1] == "out ≥ 29.5 fps ✓; nothing dropped ✓; p95 ≤ 660 ms ✓"
    assert lines[3][:4] == ["sessions 2", "2 × 30 fps", "30.0", "29.9, 12.0"]
    assert lines[3][5] == "0 + 0, 4 + 0"
    assert lines[3][-1] == "out ≥ 13.8 fps each ✗"


def test_cases_are_chosen_by_name_or_all_that_the_pipeline_has() -> None:
    known = all_cases(0)
    assert not any(case.gpus for case in known)
    assert chosen([], known, diffusion=True) == known
    assert all(case.load == () for case in chosen([], known, diffusion=False))
    assert [case.name for case in chosen(["sessions 2", "camera 30"], known, diffusion=True)] == [
        "sessions 2",
        "camera 30",
    ]
    with pytest.raises(SystemExit, match=re.escape("There is no case 'camera 29'. There are: camera 25, ")):
        chosen(["camera 29"], known, diffusion=True)


def test_cases_of_the_same_load_parameters_share_a_server() -> None:
    groups = by_server(all_cases(2))
    assert [load for load, _ in groups] == sorted({case.load for case in all_cases(2)})
    assert sum(len(cases) for _, cases in groups) == len(all_cases(2))
    assert by_server([Case("a", 30), Case("b", 60, load=(("vae", "tiny"),)), Case("c", 25)])[0] == (
        (),
        [Case("a", 30), Case("c", 25)],
    )
