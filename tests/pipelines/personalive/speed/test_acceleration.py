from __future__ import annotations

import gc
import itertools
import logging
import re
from collections.abc import Callable, Iterable
from copy import deepcopy
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from personalive.errors import InputError
from personalive.pipelines.personalive.engine import Engine
from personalive.pipelines.personalive.models import Models
from personalive.pipelines.personalive.motion import DrivingMotion
from personalive.pipelines.personalive.parameters import PersonaLiveLoadParameters, PersonaLiveRunParameters
from personalive.pipelines.personalive.pipeline import PersonaLivePipeline
from personalive.pipelines.personalive.reference import FusedReference
from personalive.pipelines.personalive.speed.acceleration import (
    Replayed,
    ReplayedStages,
    accelerated,
    chosen,
    compile_stages,
)
from tests.pipelines.personalive.streams import chunk, content, drive, picture


class Tape:
    """Records without a GPU: what is replayed is simply run again, on the same places in memory."""

    def __init__(self, *, works: bool = True, fails: Iterable[tuple[int, Exception]] = ()) -> None:
        """`fails`: errors by the number of the call, of trials and recordings together, from 0 on."""
        self._fails = dict(fails)
        self._calls = itertools.count()
        self.tried = 0
        self.recorded = 0
        self.replayed = 0
        self.gave_back = 0
        self._works = works

    def _call(self) -> None:
        if (error := self._fails.get(next(self._calls))) is not None:
            raise error

    def try_out(self, run: Callable[[], Any]) -> Any:
        self._call()
        self.tried += 1
        return run()

    def give_back(self) -> None:
        self.gave_back += 1

    def record(self, run: Callable[[], None]) -> Callable[[], None]:
        if not self._works:
            raise RuntimeError("operation not permitted when stream is capturing")
        self._call()
        self.recorded += 1
        run()

        def replay() -> None:
            self.replayed += 1
            run()

        return replay


def summed(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Results that depend on every input."""
    return (sum((tensor.sum() for tensor in tensors[1:]), tensors[0] * 2),)


def test_each_shape_is_recorded_once_and_then_replayed() -> None:
    tape = Tape()
    double = Replayed("doubling", summed, tape)
    for number, size in enumerate((2, 3, 2, 3, 2)):
        given = torch.full((size,), float(number))
        assert torch.equal(double([given])[0], 2 * given)
    assert (tape.recorded, tape.replayed, len(double)) == (2, 5, 2)
    assert torch.equal(double([torch.ones(2, dtype=torch.float64)])[0], torch.full((2,), 2.0).double())
    assert tape.recorded == 3


def test_results_are_the_callers_own() -> None:
    double = Replayed("doubling", summed, Tape())
    given = torch.ones(2)
    first = double([given])[0]
    double([torch.zeros(2)])
    assert torch.equal(first, torch.full((2,), 2.0))
    assert torch.equal(given, torch.ones(2))


def test_the_least_recently_used_recording_is_dropped() -> None:
    tape = Tape()
    double = Replayed("doubling", summed, tape, limit=2)
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
    add = Replayed("adding", summed, Tape())
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
    add = Replayed("adding", summed, Tape())
    x = torch.ones(1)
    for number in range(5):
        resident = torch.full((1, 2), float(number))
        assert torch.equal(add([x], [[resident]])[0], x * 2 + 2 * number)
        del resident
        gc.collect()


def test_recordings_share_their_places_and_still_see_their_own() -> None:
    add = Replayed("adding", summed, Tape())
    large, small = torch.full((1, 6), 3.0), torch.full((1, 2), 5.0)
    x, y = torch.ones(4), torch.ones(2)
    for _ in range(2):
        assert torch.equal(add([x], [[large]])[0], 2 * x + 18)
        assert torch.equal(add([y], [[small]])[0], 2 * y + 10)
    one, other = add._kept.values()
    assert one.inputs[0].data_ptr() == other.inputs[0].data_ptr()
    assert one.resident[0].data_ptr() == other.resident[0].data_ptr()


def test_a_place_is_laid_out_like_what_is_put_there() -> None:
    add = Replayed("adding", summed, Tape())
    picture = torch.randn(1, 3, 4, 4).to(memory_format=torch.channels_last)
    assert torch.equal(add([picture])[0], 2 * picture)
    (recording,) = add._kept.values()
    assert recording.inputs[0].is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(add([picture.expand(2, -1, -1, -1)])[0], 2 * picture.repeat(2, 1, 1, 1))


def test_each_number_of_sessions_is_a_recording() -> None:
    tape = Tape()
    add = Replayed("adding", summed, tape)
    row = [torch.ones(1, 2)]
    for count in (1, 2, 4, 2):
        assert torch.equal(add([torch.zeros(1)], [row] * count)[0], torch.tensor([2.0 * count]))
    assert tape.recorded == 3


def test_where_recording_fails_it_goes_on_as_it_is_and_says_so_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    double = Replayed("doubling", summed, Tape(works=False))
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
    double = Replayed("doubling", summed, Tape(fails=[(call, error)]))
    double.preparing = True
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
    double = Replayed("doubling", summed, tape)
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
    double = Replayed("doubling", summed, tape, make_room=make_room)
    with caplog.at_level(logging.WARNING):
        assert torch.equal(double([torch.ones(2)])[0], torch.full((2,), 2.0))
    assert asked == [True, False]
    (said,) = caplog.messages
    assert said == "doubling is not accelerated now, there is too little memory"
    assert torch.equal(double([torch.ones(2)])[0], torch.full((2,), 2.0))
    assert len(double) == 1


def test_what_was_tried_out_is_recorded_without_another_run() -> None:
    tape = Tape()
    double = Replayed("doubling", summed, tape)
    assert torch.equal(double.try_out([torch.ones(3)])[0], torch.full((3,), 2.0))
    assert (tape.tried, len(double)) == (1, 0)
    assert torch.equal(double([torch.ones(3)])[0], torch.full((3,), 2.0))
    assert (tape.tried, tape.recorded) == (1, 1)


def test_a_stage_that_needs_room_takes_it_from_the_others(
    models: Models, set_to: PersonaLiveLoadParameters
) -> None:
    with PersonaLivePipeline(models, set_to) as own:
        # Points are tried and recorded, then latents tried and their recording fails once.
        tape = Tape(fails=[(3, torch.OutOfMemoryError("full"))])
        stages = replaying(own, tape)
        with torch.inference_mode():
            stages.pose(torch.zeros(1, 21, 3))
            assert stages.counts()["pose"] == 1
            stages.show(torch.zeros(1, 4, 8, 8))
        assert stages.counts() == {"see": 0, "pose": 0, "predict": 0, "show": 1}


def test_stages_that_cannot_be_recorded_run_as_they_are(
    models: Models, set_to: PersonaLiveLoadParameters
) -> None:
    with PersonaLivePipeline(models, set_to) as own, torch.inference_mode():
        tape = Tape()
        stages = ReplayedStages(own.engine.plain, tape, as_they_are=("show",))
        stages.show(torch.zeros(1, 4, 8, 8))
        assert (tape.tried, tape.recorded) == (0, 0)


def test_warming_up_tries_everything_before_it_records_anything(
    models: Models, set_to: PersonaLiveLoadParameters
) -> None:
    order: list[str] = []

    class Ordered(Tape):
        def try_out(self, run: Callable[[], Any]) -> Any:
            order.append("try")
            return super().try_out(run)

        def record(self, run: Callable[[], None]) -> Callable[[], None]:
            order.append("record")
            return super().record(run)

        def give_back(self) -> None:
            order.append("give back")
            super().give_back()

    with PersonaLivePipeline(models, set_to) as own:
        replaying(own, Ordered())
        own.engine.mode = "graphs"
        own.warm_up()
    assert [kind for kind, _ in itertools.groupby(order)] == ["try", "give back", "record"]


def test_where_memory_runs_out_while_warming_up_that_is_raised(
    models: Models, set_to: PersonaLiveLoadParameters
) -> None:
    with PersonaLivePipeline(models, set_to) as own:
        tape = Tape(fails=[(22, torch.OutOfMemoryError("full"))])
        stages = replaying(own, tape)
        own.engine.mode = "graphs"
        with pytest.raises(torch.OutOfMemoryError, match="full"):
            own.warm_up()
        own.warm_up()
        assert stages.counts() == {"see": 1, "pose": 2, "predict": 4, "show": 1}


def test_auto_is_graphs_on_cuda_and_off_elsewhere() -> None:
    assert [chosen("auto", torch.device(name)) for name in ("cuda", "cpu", "mps")] == ["graphs", "off", "off"]
    assert chosen("full", torch.device("cpu")) == "full"
    with pytest.raises(InputError, match=r"compile=graphs needs a CUDA device.*take off, full or auto"):
        chosen("graphs", torch.device("cpu"))


def replaying(pipeline: PersonaLivePipeline, tape: Tape) -> ReplayedStages:
    """Let a pipeline's engine record on a tape."""
    engine = pipeline._loaded()
    stages = ReplayedStages(engine.plain, tape)
    engine.stages = stages
    return stages


def test_a_replayed_session_gives_the_same_bytes_with_a_recording_for_each_number_of_keyframes(
    models: Models,
    set_to: PersonaLiveLoadParameters,
    pipeline: PersonaLivePipeline,
    reference: FusedReference,
    motion: DrivingMotion,
) -> None:
    run = PersonaLiveRunParameters(keyframe_threshold=0.0)
    with pipeline.open_session(reference, run) as session:
        expected = content(drive(session, motion, range(14)))
    tape = Tape()
    with PersonaLivePipeline(models, set_to) as own:
        stages = replaying(own, tape)
        for _ in range(2):
            with own.open_session(reference, run) as session:
                assert content(drive(session, motion, range(14))) == expected
        # Poses: a first step's sixteen, and four.
        assert stages.counts() == {"see": 0, "pose": 2, "predict": 4, "show": 1}
        recorded = tape.recorded
        with own.open_session(reference, run) as session:
            drive(session, motion, range(14))
        assert tape.recorded == recorded


def test_warming_up_leaves_nothing_to_record_for_a_users_first_frames(
    models: Models, set_to: PersonaLiveLoadParameters, reference: FusedReference, motion: DrivingMotion
) -> None:
    tape = Tape()
    told: list[tuple[str, float]] = []
    with PersonaLivePipeline(models, set_to.model_copy(update={"batch_sessions": 2})) as own:
        stages = replaying(own, tape)
        own._loaded().mode = "graphs"
        own.warm_up(lambda stage, done: told.append((stage, done)))
        assert {stage for stage, _ in told} == {"preparing the first frames"}
        assert [done for _, done in told] == sorted(done for _, done in told)
        assert told[-1][1] == 1.0
        assert stages.counts() == {"see": 2, "pose": 4, "predict": 8, "show": 2}
        recorded = tape.recorded
        with own.open_session(reference, PersonaLiveRunParameters(keyframe_threshold=0.0)) as session:
            drive(session, motion, range(14))
        assert tape.recorded == recorded


def test_more_sessions_than_were_prepared_for_are_stepped_in_turn(
    models: Models, set_to: PersonaLiveLoadParameters, reference: FusedReference
) -> None:
    tape = Tape()
    with PersonaLivePipeline(models, set_to.model_copy(update={"batch_sessions": 2})) as own:
        replaying(own, tape)
        own._loaded().mode = "graphs"
        own.warm_up()
        recorded = tape.recorded
        sessions = [own.open_session(reference) for _ in range(4)]
        sessions[0].step(chunk(1, 0))
        made = own.step_many(sessions, [chunk(1, 1)] * 4)
        assert tape.recorded == recorded
        assert len(made) == 4
        assert (made[1].images == made[3].images).all()


def test_nothing_is_warmed_up_where_nothing_is_accelerated(
    models: Models, set_to: PersonaLiveLoadParameters
) -> None:
    told: list[Any] = []
    with PersonaLivePipeline(models, set_to) as own:
        own.warm_up(lambda *said: told.append(said))
    assert told == []


def test_off_is_the_networks_as_they_are(models: Models, set_to: PersonaLiveLoadParameters) -> None:
    plain = Engine(models, set_to).plain
    assert accelerated(plain, "off") is plain


def traced(pipeline: PersonaLivePipeline, motion: DrivingMotion) -> list[tuple[str, Tensor]]:
    """What eleven steps of a session predict, decode and show, and how many keyframes they have, step by step."""
    seen: list[tuple[str, Tensor]] = []

    def trace(name: str, tensor: Tensor) -> None:
        if name in {"noise_pred", "latents", "frames", "keyframes"}:
            seen.append((name, tensor))

    run = PersonaLiveRunParameters(keyframe_threshold=0.0)
    with pipeline.open_session(pipeline.fuse(picture(1)), run, trace=trace) as session:
        drive(session, replace(motion, weights=pipeline._weights), range(11))
    return seen


@pytest.fixture(scope="module")
def doubled(models: Models) -> Models:
    """The networks in float64, but the motion extractor, which is never compiled."""
    networks = {
        name: deepcopy(network).double()
        for name, network in models.networks().items()
        if name != "motion_extractor"
    }
    return replace(models, dtype=torch.float64, **networks)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def expected(
    doubled: Models, set_to: PersonaLiveLoadParameters, motion: DrivingMotion
) -> list[tuple[str, Tensor]]:
    """What a session gives whose stages are not compiled, in float64."""
    with PersonaLivePipeline(doubled, set_to) as plain:
        return traced(plain, motion)


# In float32 there is little to compare beyond a first call. A compiled one sums in another order, which changes
# its result by 5e-7. At 64 × 64 pixels the lowest level of the UNet is one pixel, where a group norm is of two
# numbers: nearly equal ones let rounding grow to 1e-4 of a result, and the next call makes 1e-2 of that. From the
# fourth step on predictions differ by 1 to 2 %, as they do between two sessions that are not compiled and begin
# with latents that differ by 1e-7. In float64 a call differs by 1e-15, and of that a prediction, which is rounded
# to float32, shows next to nothing.
@pytest.mark.slow
def test_compiled_stages_give_the_same_numbers_at_every_step(
    doubled: Models,
    set_to: PersonaLiveLoadParameters,
    motion: DrivingMotion,
    expected: list[tuple[str, Tensor]],
) -> None:
    with PersonaLivePipeline(doubled, set_to) as own:
        compile_stages(own._loaded().plain, "aot_eager")
        ours = traced(own, motion)
    assert [name for name, _ in ours] == [name for name, _ in expected]
    assert len(ours) == 11 * 4
    assert ours[-1][1].item() == 2
    for (name, one), (_, other) in zip(ours, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6, msg=f"{name} differs")
