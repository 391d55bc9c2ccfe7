from __future__ import annotations

import gc
import logging
import re

import pytest
import torch
from torch import Tensor

from personalive.pipelines.diffusion.stages.cuda_graphs import GraphedCallable
from tests.pipelines.diffusion.stages.tape import Tape


def summed(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Results that depend on every input."""
    return (sum((tensor.sum() for tensor in tensors[1:]), tensors[0] * 2),)


def test_each_shape_is_recorded_once_and_then_replayed() -> None:
    tape = Tape()
    double = GraphedCallable("doubling", summed, tape)
    for number, size in enumerate((2, 3, 2, 3, 2)):
        given = torch.full((size,), float(number))
        assert torch.equal(double([given])[0], 2 * given)
    assert (tape.recorded, tape.replayed, len(double)) == (2, 5, 2)
    assert torch.equal(double([torch.ones(2, dtype=torch.float64)])[0], torch.full((2,), 2.0).double())
    assert tape.recorded == 3


def test_results_are_the_callers_own() -> None:
    double = GraphedCallable("doubling", summed, Tape())
    given = torch.ones(2)
    first = double([given])[0]
    double([torch.zeros(2)])
    assert torch.equal(first, torch.full((2,), 2.0))
    assert torch.equal(given, torch.ones(2))


def test_the_least_recently_used_recording_is_dropped() -> None:
    tape = Tape()
    double = GraphedCallable("doubling", summed, tape, limit=2)
    for size in (1, 2, 1, 3):
        double([torch.ones(size)])
    assert (tape.recorded, len(double)) == (3, 2)
    double([torch.ones(1)])
    assert tape.recorded == 3
    double([torch.ones(2)])
    assert tape.recorded == 4


class Copies:
    """Counts what is copied into a recording's places, by the copied tensors' first number."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seen: list[float] = []
        copy = torch.Tensor.copy_

        def counted(place: Tensor, source: Tensor, non_blocking: bool = False) -> Tensor:
            self.seen.append(float(source.flatten()[0]))
            return copy(place, source, non_blocking)

        monkeypatch.setattr(torch.Tensor, "copy_", counted)


def test_resident_tensors_are_copied_only_when_others_come(monkeypatch: pytest.MonkeyPatch) -> None:
    add = GraphedCallable("adding", summed, Tape())
    one, two, three = (torch.full((1, 4), float(number)) for number in (10, 20, 30))
    x = torch.ones(3)
    assert torch.equal(add([x], [[one], [two]])[0], x * 2 + 120)
    copies = Copies(monkeypatch)
    assert torch.equal(add([x], [[one], [two]])[0], x * 2 + 120)
    assert not {10.0, 20.0} & set(copies.seen)
    assert torch.equal(add([x], [[one], [three]])[0], x * 2 + 160)
    assert 30.0 in copies.seen
    assert 10.0 not in copies.seen
    assert torch.equal(add([x], [[three], [one]])[0], x * 2 + 160)


def test_a_tensor_in_a_dead_ones_place_is_copied() -> None:
    add = GraphedCallable("adding", summed, Tape())
    x = torch.ones(1)
    for number in range(5):
        resident = torch.full((1, 2), float(number))
        assert torch.equal(add([x], [[resident]])[0], x * 2 + 2 * number)
        del resident
        gc.collect()


def test_recordings_share_their_places_and_still_see_their_own() -> None:
    add = GraphedCallable("adding", summed, Tape())
    large, small = torch.full((1, 6), 3.0), torch.full((1, 2), 5.0)
    x, y = torch.ones(4), torch.ones(2)
    for _ in range(2):
        assert torch.equal(add([x], [[large]])[0], 2 * x + 18)
        assert torch.equal(add([y], [[small]])[0], 2 * y + 10)
    one, other = add._graphs.values()
    assert one.inputs[0].data_ptr() == other.inputs[0].data_ptr()
    assert one.resident[0].data_ptr() == other.resident[0].data_ptr()


def test_a_place_is_laid_out_like_what_is_put_there() -> None:
    add = GraphedCallable("adding", summed, Tape())
    picture = torch.randn(1, 3, 4, 4).to(memory_format=torch.channels_last)
    assert torch.equal(add([picture])[0], 2 * picture)
    (recording,) = add._graphs.values()
    assert recording.inputs[0].is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(add([picture.expand(2, -1, -1, -1)])[0], 2 * picture.repeat(2, 1, 1, 1))


def test_each_number_of_sessions_is_a_recording() -> None:
    tape = Tape()
    add = GraphedCallable("adding", summed, tape)
    row = [torch.ones(1, 2)]
    for count in (1, 2, 4, 2):
        assert torch.equal(add([torch.zeros(1)], [row] * count)[0], torch.tensor([2.0 * count]))
    assert tape.recorded == 3


def test_where_recording_fails_it_goes_on_as_it_is_and_says_so_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    double = GraphedCallable("doubling", summed, Tape(works=False))
    with caplog.at_level(logging.WARNING):
        for size in (1, 2, 1):
            assert torch.equal(double([torch.ones(size)])[0], torch.full((size,), 2.0))
    (said,) = caplog.messages
    assert said.startswith("doubling is not accelerated, it could not be recorded: operation not permitted")
    assert len(double) == 0


ERRORS = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("CUDA error: out of memory"),
]


@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("call", range(2))
def test_where_memory_runs_out_while_preparing_the_caller_is_told(error: Exception, call: int) -> None:
    double = GraphedCallable("doubling", summed, Tape(fails=[(call, error)]))
    double.raise_out_of_memory = True
    with pytest.raises(type(error), match=re.escape(str(error))):
        double([torch.ones(2)])
    assert torch.equal(double([torch.ones(2)])[0], torch.full((2,), 2.0))
    assert len(double) == 1


@pytest.mark.parametrize("error", ERRORS)
def test_where_memory_runs_out_later_recordings_are_dropped_and_it_is_tried_again(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    # Three shapes, each tried and recorded; then the fourth's recording fails twice.
    tape = Tape(fails=[(7, error), (8, error)])
    double = GraphedCallable("doubling", summed, tape)
    for size in (1, 2, 3, 1, 4):
        assert torch.equal(double([torch.ones(size)])[0], torch.full((size,), 2.0))
    assert (tape.gave_back, len(double)) == (2, 2)
    recorded = tape.recorded
    # Those that were used last are there still.
    double([torch.ones(1)])
    assert tape.recorded == recorded
    assert not caplog.messages


def test_where_no_room_can_be_made_a_call_runs_as_it_is_and_the_next_is_recorded(
    caplog: pytest.LogCaptureFixture,
) -> None:
    asked: list[bool] = []

    def make_room() -> bool:
        asked.append(len(asked) == 0)
        return asked[-1]

    tape = Tape(fails=[(number, torch.OutOfMemoryError("full")) for number in range(2)])
    double = GraphedCallable("doubling", summed, tape, free_memory=make_room)
    with caplog.at_level(logging.WARNING):
        assert torch.equal(double([torch.ones(2)])[0], torch.full((2,), 2.0))
    assert asked == [True, False]
    (said,) = caplog.messages
    assert said == "doubling is not accelerated now, there is too little memory"
    assert torch.equal(double([torch.ones(2)])[0], torch.full((2,), 2.0))
    assert len(double) == 1


def test_what_was_tried_out_is_recorded_without_another_run() -> None:
    tape = Tape()
    double = GraphedCallable("doubling", summed, tape)
    assert torch.equal(double.warm_up([torch.ones(3)])[0], torch.full((3,), 2.0))
    assert (tape.tried, len(double)) == (1, 0)
    assert torch.equal(double([torch.ones(3)])[0], torch.full((3,), 2.0))
    assert (tape.tried, tape.recorded) == (1, 1)
