from __future__ import annotations

import itertools
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from personalive.errors import InputError
from personalive.pipelines.diffusion.components import Components
from personalive.pipelines.diffusion.motion.driving_motion import DrivingMotion
from personalive.pipelines.diffusion.parameters import PersonaLiveLoadParameters, PersonaLiveRunParameters
from personalive.pipelines.diffusion.pipeline import PersonaLivePipeline
from personalive.pipelines.diffusion.sampling.engine import DiffusionEngine
from personalive.pipelines.diffusion.sampling.reference import FusedReference
from personalive.pipelines.diffusion.stages.acceleration import (
    GraphedStages,
    accelerate,
    compile_stages,
    resolve_mode,
)
from tests.pipelines.diffusion.stages.tape import Tape
from tests.pipelines.diffusion.streams import chunk, content, drive, picture


def test_a_stage_that_needs_room_takes_it_from_the_others(
    models: Components, set_to: PersonaLiveLoadParameters
) -> None:
    with PersonaLivePipeline(models, set_to) as own:
        # Points are tried and recorded, then latents tried and their recording fails once.
        tape = Tape(fails=[(3, torch.OutOfMemoryError("full"))])
        stages = replaying(own, tape)
        with torch.inference_mode():
            stages.encode_pose(torch.zeros(1, 21, 3))
            assert stages.count_graphs()["encode_pose"] == 1
            stages.decode(torch.zeros(1, 4, 8, 8))
        assert stages.count_graphs() == {"encode_motion": 0, "encode_pose": 0, "denoise": 0, "decode": 1}


def test_stages_that_cannot_be_recorded_run_as_they_are(
    models: Components, set_to: PersonaLiveLoadParameters
) -> None:
    with PersonaLivePipeline(models, set_to) as own, torch.inference_mode():
        tape = Tape()
        stages = GraphedStages(own.engine.eager_stages, tape, uncaptured=("decode",))
        stages.decode(torch.zeros(1, 4, 8, 8))
        assert (tape.tried, tape.recorded) == (0, 0)


@pytest.mark.slow
def test_warming_up_tries_everything_before_it_records_anything(
    models: Components, set_to: PersonaLiveLoadParameters
) -> None:
    order: list[str] = []

    class Ordered(Tape):
        def warm_up(self, run: Callable[[], Any]) -> Any:
            order.append("try")
            return super().warm_up(run)

        def capture(self, run: Callable[[], None]) -> Callable[[], None]:
            order.append("record")
            return super().capture(run)

        def release_unused(self) -> None:
            order.append("give back")
            super().release_unused()

    with PersonaLivePipeline(models, set_to) as own:
        replaying(own, Ordered())
        own.engine.mode = "graphs"
        own.warm_up()
    assert [kind for kind, _ in itertools.groupby(order)] == ["try", "give back", "record"]


@pytest.mark.slow
def test_where_memory_runs_out_while_warming_up_that_is_raised(
    models: Components, set_to: PersonaLiveLoadParameters
) -> None:
    with PersonaLivePipeline(models, set_to) as own:
        tape = Tape(fails=[(22, torch.OutOfMemoryError("full"))])
        stages = replaying(own, tape)
        own.engine.mode = "graphs"
        with pytest.raises(torch.OutOfMemoryError, match="full"):
            own.warm_up()
        own.warm_up()
        assert stages.count_graphs() == {"encode_motion": 1, "encode_pose": 2, "denoise": 4, "decode": 1}


def test_auto_is_graphs_on_cuda_and_off_elsewhere() -> None:
    assert [resolve_mode("auto", torch.device(name)) for name in ("cuda", "cpu", "mps")] == [
        "graphs",
        "off",
        "off",
    ]
    assert resolve_mode("full", torch.device("cpu")) == "full"
    with pytest.raises(InputError, match=r"compile=graphs needs a CUDA device.*take off, full or auto"):
        resolve_mode("graphs", torch.device("cpu"))


def replaying(pipeline: PersonaLivePipeline, tape: Tape) -> GraphedStages:
    """Let a pipeline's engine record on a tape."""
    engine = pipeline._require_engine()
    stages = GraphedStages(engine.eager_stages, tape)
    engine.stages = stages
    return stages


@pytest.mark.slow
def test_a_replayed_session_gives_the_same_bytes_with_a_recording_for_each_number_of_keyframes(
    models: Components,
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
        assert stages.count_graphs() == {"encode_motion": 0, "encode_pose": 2, "denoise": 4, "decode": 1}
        recorded = tape.recorded
        with own.open_session(reference, run) as session:
            drive(session, motion, range(14))
        assert tape.recorded == recorded


@pytest.mark.slow
def test_warming_up_leaves_nothing_to_record_for_a_users_first_frames(
    models: Components, set_to: PersonaLiveLoadParameters, reference: FusedReference, motion: DrivingMotion
) -> None:
    tape = Tape()
    told: list[tuple[str, float]] = []
    with PersonaLivePipeline(models, set_to.model_copy(update={"batch_sessions": 2})) as own:
        stages = replaying(own, tape)
        own._require_engine().mode = "graphs"
        own.warm_up(lambda stage, done: told.append((stage, done)))
        assert {stage for stage, _ in told} == {"preparing the first frames"}
        assert [done for _, done in told] == sorted(done for _, done in told)
        assert told[-1][1] == 1.0
        assert stages.count_graphs() == {"encode_motion": 2, "encode_pose": 4, "denoise": 8, "decode": 2}
        recorded = tape.recorded
        with own.open_session(reference, PersonaLiveRunParameters(keyframe_threshold=0.0)) as session:
            drive(session, motion, range(14))
        assert tape.recorded == recorded


@pytest.mark.slow
def test_more_sessions_than_were_prepared_for_are_stepped_in_turn(
    models: Components, set_to: PersonaLiveLoadParameters, reference: FusedReference
) -> None:
    tape = Tape()
    with PersonaLivePipeline(models, set_to.model_copy(update={"batch_sessions": 2})) as own:
        replaying(own, tape)
        own._require_engine().mode = "graphs"
        own.warm_up()
        recorded = tape.recorded
        sessions = [own.open_session(reference) for _ in range(4)]
        sessions[0].step(chunk(1, 0))
        made = own.step_many(sessions, [chunk(1, 1)] * 4)
        assert tape.recorded == recorded
        assert len(made) == 4
        assert (made[1].images == made[3].images).all()


def test_nothing_is_warmed_up_where_nothing_is_accelerated(
    models: Components, set_to: PersonaLiveLoadParameters
) -> None:
    told: list[Any] = []
    with PersonaLivePipeline(models, set_to) as own:
        own.warm_up(lambda *said: told.append(said))
    assert told == []


def test_off_is_the_networks_as_they_are(models: Components, set_to: PersonaLiveLoadParameters) -> None:
    plain = DiffusionEngine(models, set_to).eager_stages
    assert accelerate(plain, "off") is plain


@pytest.mark.slow
def test_without_a_compiler_it_goes_on_and_says_so(
    models: Components, set_to: PersonaLiveLoadParameters, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torch._inductor import config

    monkeypatch.setenv("PERSONALIVE_HOME", str(tmp_path))
    for variable in ("TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR"):  # both are set on the way
        monkeypatch.setenv(variable, str(tmp_path / "compiled"))
    asked = set_to.model_copy(update={"compile": "full"})
    with config.patch({"cpp.cxx": ("no-such-compiler",)}), PersonaLivePipeline(models, asked) as own:
        (warning,) = own.warnings[-1:]
        assert warning.startswith("Nothing can be compiled here (")
        assert "compile=full runs as off" in warning
        own.warm_up()
        with own.open_session(own.fuse(picture(1))) as session:
            session.step(chunk(1, 0))


def traced(pipeline: PersonaLivePipeline, motion: DrivingMotion) -> list[tuple[str, Tensor]]:
    """What eleven steps of a session predict, decode and show, and how many keyframes they have, step by step."""
    seen: list[tuple[str, Tensor]] = []

    def trace(name: str, tensor: Tensor) -> None:
        if name in {"noise_pred", "latents", "frames", "keyframes"}:
            seen.append((name, tensor))

    run = PersonaLiveRunParameters(keyframe_threshold=0.0)
    with pipeline.open_session(pipeline.fuse(picture(1)), run, trace=trace) as session:
        drive(session, replace(motion, weights=pipeline._weights_hash), range(11))
    return seen


@pytest.fixture(scope="module")
def doubled(models: Components) -> Components:
    """The networks in float64, but the motion extractor, which is never compiled."""
    networks = {
        name: deepcopy(network).double()
        for name, network in models.networks().items()
        if name != "motion_extractor"
    }
    return replace(models, dtype=torch.float64, **networks)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def expected(
    doubled: Components, set_to: PersonaLiveLoadParameters, motion: DrivingMotion
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
    doubled: Components,
    set_to: PersonaLiveLoadParameters,
    motion: DrivingMotion,
    expected: list[tuple[str, Tensor]],
) -> None:
    with PersonaLivePipeline(doubled, set_to) as own:
        compile_stages(own._require_engine().eager_stages, "aot_eager")
        ours = traced(own, motion)
    assert [name for name, _ in ours] == [name for name, _ in expected]
    assert len(ours) == 11 * 4
    assert ours[-1][1].item() == 2
    for (name, one), (_, other) in zip(ours, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6, msg=f"{name} differs")
