from __future__ import annotations

import time

import pytest

from personalive.server.state.restart_policy import DEATH_WINDOW_S, MAX_DEATHS, RestartPolicy


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, to be moved."""
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def test_a_pipeline_that_runs_for_a_while_is_always_started_again(clock: list[float]) -> None:
    restarts = RestartPolicy()
    for _ in range(50):
        restarts.on_started()
        clock[0] += DEATH_WINDOW_S + 1
        assert restarts.should_restart()


@pytest.mark.parametrize("loading", [0.5, 40.0, 300.0])
def test_one_that_dies_soon_after_each_start_is_given_up(clock: list[float], loading: float) -> None:
    restarts = RestartPolicy()
    allowed = []
    for _ in range(MAX_DEATHS):
        clock[0] += loading
        restarts.on_started()
        clock[0] += 3
        allowed.append(restarts.should_restart())
    assert allowed == [True] * (MAX_DEATHS - 1) + [False]


def test_starts_that_fail_are_deaths(clock: list[float]) -> None:
    restarts = RestartPolicy()
    restarts.on_started()
    clock[0] += 10 * DEATH_WINDOW_S
    allowed = []
    for _ in range(MAX_DEATHS):
        allowed.append(restarts.should_restart())
        clock[0] += 10 * DEATH_WINDOW_S  # a load that takes long before it fails
    assert allowed == [True] * (MAX_DEATHS - 1) + [False]


def test_the_sentence_has_the_reason_and_what_to_do() -> None:
    sentence = RestartPolicy.describe_failure("It was killed.")
    assert "5 times in a row" in sentence
    assert "It was killed." in sentence
    assert "/api/v1/pipeline/load" in sentence
