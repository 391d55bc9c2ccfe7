from __future__ import annotations

import pytest

from personalive.pipelines.diffusion.checkpoints.download.retry import RetryPolicy, TransientError


def always(**kind: object) -> None:
    raise TransientError("no", busy=bool(kind.get("busy")))


def test_waits_grow_up_to_a_bound(naps: list[float]) -> None:
    patience = RetryPolicy(max_attempts=8, max_wait=10, sleep=naps.append)
    notes: list[str] = []
    with pytest.raises(TransientError):
        patience.run(always, notes.append)
    assert naps == [1, 2, 4, 8, 10, 10, 10]
    assert notes[1] == "no; trying again in 2 s"
    assert len(notes) == len(naps)


def test_any_gain_gives_patience_back(naps: list[float]) -> None:
    patience = RetryPolicy(max_attempts=3, sleep=naps.append)
    there = iter([0, 0, 0, 5, 5, 5, 5, 5, 5])
    with pytest.raises(TransientError):
        patience.run(always, lambda note: None, received=lambda: next(there))
    assert naps == [1, 1, 2]


def test_failed_connections_may_have_a_bound_of_their_own(naps: list[float], patience: RetryPolicy) -> None:
    with pytest.raises(TransientError):
        patience.run(always, lambda note: None, max_connection_failures=2)
    assert naps == [1]
    with pytest.raises(TransientError):
        patience.run(lambda: always(busy=True), lambda note: None, max_connection_failures=2)
    assert naps == [1, 1, 2, 4, 8, 16]


@pytest.mark.parametrize(("asked", "waits"), [(299.0, True), (310.0, True), (311.0, False), (7200.0, False)])
def test_what_the_hub_asks_for_is_waited_for_within_its_window(
    naps: list[float], patience: RetryPolicy, asked: float, waits: bool
) -> None:
    tries = iter([True, False])

    def attempt() -> str:
        if next(tries):
            raise TransientError("429", busy=True, wait=asked)
        return "done"

    if waits:
        assert patience.run(attempt, lambda note: None) == "done"
    else:
        with pytest.raises(TransientError):
            patience.run(attempt, lambda note: None)
    assert naps == ([asked + 1] if waits else [])
