from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from personalive.errors import InputError
from personalive.live.live_job import LiveJob, parse_canvas


def test_a_portrait_is_all_that_is_needed() -> None:
    job = LiveJob(portraits=(Path("portrait.png"),))
    job.check()
    assert (job.source, job.targets, job.canvas) == ("0", ("camera",), (1280, 720))


@pytest.mark.parametrize(
    "changes",
    [
        {"portraits": ()},
        {"targets": ()},
        {"size": 100},
        {"canvas": (321, 180)},
        {"canvas": (32, 32)},
        {"fps": 0.0},
        {"rotate": 45},
        {"face": "the tall one"},
        {"face": 2, "face_box": "0,0,64,64"},
        {"face_box": "0,0,64,64", "portraits": (Path("one.png"), Path("another.png"))},
    ],
)
def test_jobs_that_make_no_sense_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        LiveJob(**({"portraits": (Path("portrait.png"),)} | changes)).check()


@pytest.mark.parametrize("text", ["1280", "x720", "1280x", "a×b", "-2x4", "1280.5x720"])
def test_sizes_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(InputError, match="WIDTHxHEIGHT"):
        parse_canvas(text)
    assert parse_canvas("640×360") == (640, 360)
