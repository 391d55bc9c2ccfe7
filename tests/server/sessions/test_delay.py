from __future__ import annotations

import pytest

from personalive.server.sessions.delay import CapturedFrame, StepTiming

CAPTURED = CapturedFrame(arrived_at=10.0, dequeued_at=10.07)


def test_the_parts_are_all_of_the_delay_until_the_step_ended() -> None:
    step = StepTiming(0.09, started_at=10.47, ended_at=10.56, figures={})
    parts = CAPTURED.delay_parts(step, trails=True)
    assert parts == pytest.approx({"chunk": 0.07, "window": 0.4, "step": 0.09})
    assert sum(parts.values()) == pytest.approx(step.ended_at - CAPTURED.arrived_at)


def test_a_pipeline_that_keeps_nothing_back_has_no_window() -> None:
    step = StepTiming(0.02, started_at=10.08, ended_at=10.1, figures={})
    parts = CAPTURED.delay_parts(step, trails=False)
    assert parts == pytest.approx({"chunk": 0.07, "step": 0.03})
