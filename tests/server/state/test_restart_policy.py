from __future__ import annotations

import time

import pytest

from personalive.server.state.restart_policy import MOST, WITHIN_S, Restarts


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, to be moved."""
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def test_a_pipeline_that_runs_for_a_while_is_always_started_again(clock: list[float]) -> None:
    restarts = Restarts()
    for _ in range(50):
        restarts.started()
        clock[0] += WITHIN_S + 1
        assert restarts.allow()


@pytest.mark.parametrize("loading", [0.5, 40.0, 300.0])
def test_one_that_dies_soon_after_each_start_is_given_up(clock: list[float], loading: float) -> None:
    restarts = Restarts()
    allowed = []
    for _ in range(MOST):
        clock[0] += loading
        restarts.started()
        clock[0] += 3
        allowed.append(restarts.allow())
    assert allowed == [True] * (MOST - 1) + [False]


def test_starts_that_fail_are_deaths(clock: list[float]) -> None:
    restarts = Restarts()
    restarts.started()
    clock[0] += 10 * WITHIN_S
    allowed = []
    for _ in range(MOST):
        allowed.append(restarts.allow())
        clock[0] += 10 * WITHIN_S  # a load that takes long before it fails
    assert allowed == [True] * (MOST - 1) + [False]


def test_the_sentence_has_the_reason_and_what_to_do() -> None:
    sentence = Restarts.given_up("It was killed.")
    assert "5 times in a row" in sentence
    assert "It was killed." in sentence
    assert "/api/v1/pipeline/load" in sentence
