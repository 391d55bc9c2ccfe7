"""Pipelines in processes: the same as in this one, and what is seen of their deaths."""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from personalive.errors import InputError, NoFaceError, PipelineLostError, SessionClosedError
from personalive.media.types import Image
from personalive.out_of_memory import is_out_of_memory
from personalive.pipelines import registry
from personalive.pipelines.base import AnimatedChunk, FrameChunk, FrameState, LoadParameters
from personalive.pipelines.preview import PreviewPipeline
from personalive.pipelines.preview.parameters import PreviewLoadParameters, PreviewRunParameters
from personalive.server.process import launch, messages, remote_pipeline
from personalive.server.process.pending_chunk import PendingChunk
from personalive.server.process.remote_pipeline import RemotePipeline, make_remote_class
from tests.signals import KILL, freeze

PLUGIN = Path(__file__).parents[2] / "plugin"
FAULTY = Path(__file__).parents[1] / "faulty_plugin"
SMALL: dict[str, Any] = {"height": 256, "width": 256}


@pytest.fixture(scope="module")
def plugged() -> Iterator[None]:
    """The plugins of `tests/plugin`, for as long as the tests of this module run."""
    with pytest.MonkeyPatch.context() as patch:
        for folder in (PLUGIN, FAULTY):
            patch.syspath_prepend(str(folder))
        registry._entry_points.cache_clear()
        yield
    registry._entry_points.cache_clear()


def parameters(name: str, **given: Any) -> LoadParameters:
    return registry.get_pipeline(name).load_parameters(**SMALL, **given)


def loaded(name: str, on_exit: Any = None, **given: Any) -> RemotePipeline:
    return make_remote_class(registry.get_pipeline(name), on_exit=on_exit).load(parameters(name, **given))


@pytest.fixture(scope="module")
def paced(plugged: None) -> Iterator[RemotePipeline]:
    with loaded("paced", chunk_frames=2, delay_frames=1) as pipeline:
        yield pipeline


def wait_until(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + 5
    while not condition() and time.monotonic() < until:
        time.sleep(0.01)
    assert condition()


def grey(level: int) -> Image:
    return np.full((256, 256, 3), level, np.uint8)


def test_the_preview_makes_the_same_frames_there_as_here(portrait: Image) -> None:
    moved = [np.roll(portrait, 12 * k, axis=1) for k in range(3)]
    made = []
    for kind in (PreviewPipeline, make_remote_class(PreviewPipeline)):
        with kind.load(PreviewLoadParameters(**SMALL)) as pipeline:
            reference = pipeline.fuse(portrait)
            with pipeline.open_session(reference, PreviewRunParameters(expression=1.3)) as session:
                session.prepare(moved[0], 0.0)
                chunks = [
                    session.step(FrameChunk([image], np.array([k / 25]))) for k, image in enumerate(moved)
                ]
            made.append((reference.id, reference.face, [chunk.images for chunk in chunks]))
            assert pipeline.info is PreviewPipeline.info or pipeline.info == PreviewPipeline.info
    assert made[0][:2] == made[1][:2]
    assert all(np.array_equal(here, there) for here, there in zip(made[0][2], made[1][2], strict=True))


def test_what_it_says_of_itself(paced: RemotePipeline) -> None:
    assert (paced.info.chunk_frames, paced.info.delay_frames) == (2, 1)
    assert paced.parameters.model_dump()["chunk_frames"] == 2
    assert (paced.session_batch_size, paced.seconds_per_frame(), paced.warnings) == (1, None, ())
    assert paced.notes == ()
    assert paced.connection.is_alive
    assert paced.connection._process.pid != os.getpid()


def test_a_session_takes_prepared_and_unprepared_frames(paced: RemotePipeline) -> None:
    reference = paced.fuse(grey(7))
    with paced.open_session(reference) as session:
        session.prepare(grey(10), 0.0)
        first = session.step(FrameChunk([grey(10), grey(20)], np.array([0.0, 0.1])))
        assert first.states == (FrameState.TRANSITION, FrameState.ANIMATED)
        assert [int(image.mean()) for image in first.images] == [7, 10]
        for time_, level in ((0.2, 30), (0.3, 40), (0.4, 50)):
            session.prepare(grey(level), time_)
        session.discard(0.3)
        session.discard(9.9)
        second = session.step(FrameChunk([grey(30), grey(50)], np.array([0.2, 0.4])))
        assert [int(image.mean()) for image in second.images] == [20, 30]
        session.reset()
        rest = session.flush()
        assert rest is None
        session.switch_reference(paced.fuse(grey(9)))
        third = session.step(FrameChunk([grey(60), grey(70)], np.array([0.5, 0.6])))
        assert int(third.images[0].mean()) == 9
        assert session.snapshot() is None
        session.update(session.parameters.model_copy(update={"gain": 0.5}))
        assert session.parameters.gain == 0.5
        fourth = session.step(FrameChunk([grey(60), grey(70)], np.array([0.7, 0.8])))
        assert int(fourth.images[1].mean()) == 30


def test_one_thread_sends_frames_while_another_steps(paced: RemotePipeline) -> None:
    times = [k / 100 for k in range(200)]
    with paced.open_session(paced.fuse(grey(7))) as session:
        thread = threading.Thread(target=lambda: [session.prepare(grey(5), at) for at in times])
        thread.start()
        for at in times[::2]:
            made = session.step(FrameChunk([grey(5)] * 2, np.array([at, at + 0.01])))
            assert len(made) == 2
        thread.join()


def test_a_frame_that_comes_after_its_step_is_dropped(paced: RemotePipeline) -> None:
    with paced.open_session(paced.fuse(grey(7))) as session:
        chunk = FrameChunk([grey(5)] * 2, np.array([0.1, 0.2]))
        session.send_chunk(chunk)
        session.prepare(grey(9), 0.1)  # by the other thread, before the step's message is sent
        assert len(session.step(chunk)) == 2


def test_frames_of_one_time_are_one_frame(paced: RemotePipeline) -> None:
    with paced.open_session(paced.fuse(grey(7))) as session:
        assert len(session.step(FrameChunk([grey(5)] * 2, np.array([0.5, 0.5])))) == 2


def test_it_says_which_frames_it_has_looked_at(portrait: Image) -> None:
    with (
        make_remote_class(PreviewPipeline).load(PreviewLoadParameters(**SMALL)) as pipeline,
        pipeline.open_session(pipeline.fuse(portrait)) as session,
    ):
        assert session.prepared_until == -math.inf
        session.prepare(portrait, 0.0)
        wait_until(lambda: session.prepared_until == 0.0)
        session.step(FrameChunk([portrait], np.array([0.0])))
        session.prepare(portrait, 0.1)
        session.prepare(portrait, 0.2)
        wait_until(lambda: session.prepared_until == 0.2)
        session.step(FrameChunk([portrait], np.array([0.1])))
        assert session.prepared_until == 0.2


def test_frames_are_not_waited_for_where_nothing_is_looked_at(paced: RemotePipeline) -> None:
    with paced.open_session(paced.fuse(grey(7))) as session:
        assert session.prepared_until == math.inf


def test_steps_are_asked_for_ahead_and_done_in_order(paced: RemotePipeline) -> None:
    assert paced.queues_steps
    with paced.open_session(paced.fuse(grey(7))) as session:
        made = [
            paced.submit_steps([session], [FrameChunk([grey(10 * k)] * 2, np.array([k, k + 0.5]))])
            for k in range(6)
        ]
        session.reset()
        assert all(future.done() for future in made)
        levels = [[int(image.mean()) for image in future.result()[0].images] for future in made]
    assert levels == [[7, 0], *([10 * k - 10, 10 * k] for k in range(1, 6))]


def test_what_was_asked_of_a_killed_process_ends(plugged: None) -> None:
    pipeline = loaded("paced", cost=1.0)
    session = pipeline.open_session(pipeline.fuse(grey(7)))
    made = [
        pipeline.submit_steps([session], [FrameChunk([grey(1)] * 2, np.array([k, k + 0.5]))])
        for k in range(3)
    ]
    pipeline.connection.kill()
    for future in made:
        with pytest.raises(PipelineLostError, match="SIGKILL"):
            future.result(5)
    pipeline.close()


def test_a_session_of_another_pipeline_is_refused(paced: RemotePipeline) -> None:
    chunk = FrameChunk([grey(1)], np.array([0.0]))
    with pytest.raises(InputError, match="this pipeline"):
        paced.submit_steps([object()], [chunk]).result()  # type: ignore[list-item]


def test_errors_are_those_of_the_pipeline_and_it_goes_on(paced: RemotePipeline) -> None:
    with pytest.raises(NoFaceError, match="All is black"):
        paced.fuse(grey(0))
    reference = paced.fuse(grey(7))
    run = paced.run_parameters
    for setting, kind in (("fail_at", RuntimeError), ("oom_at", Exception)):
        with (
            paced.open_session(reference, run(**{setting: 0})) as session,
            pytest.raises(kind, match="as told") as caught,
        ):
            session.step(FrameChunk([grey(1)] * 2, np.array([0.0, 0.1])))
        assert is_out_of_memory(caught.value) == (setting == "oom_at")
    session = paced.open_session(reference)
    session.step(FrameChunk([grey(1)] * 2, np.array([0.0, 0.1])))
    session.close()
    session.close()
    assert paced.connection.is_alive


def test_a_reference_of_another_process_is_refused(paced: RemotePipeline, plugged: None) -> None:
    with loaded("paced") as other:
        reference = other.fuse(grey(7))
        with pytest.raises(InputError, match="another pipeline"):
            paced.open_session(reference)
    own = paced.fuse(grey(7))
    with paced.open_session(own) as session, pytest.raises(InputError, match="another pipeline"):
        session.switch_reference(reference)


def test_a_killed_process_is_told_to_callers_and_to_its_owner(plugged: None) -> None:
    told: list[tuple[RemotePipeline, str]] = []
    pipeline = loaded("paced", on_exit=lambda lost, reason: told.append((lost, reason)), cost=1.0)
    session = pipeline.open_session(pipeline.fuse(grey(7)))
    timer = threading.Timer(0.2, os.kill, (pipeline.connection._process.pid, KILL))
    timer.start()
    with pytest.raises(PipelineLostError, match="SIGKILL"):
        session.step(FrameChunk([grey(1)], np.array([0.0])))
    session.prepare(grey(1), 1.0)
    session.close()
    with pytest.raises(PipelineLostError):
        pipeline.fuse(grey(7))
    wait_until(lambda: bool(told))
    assert [lost for lost, _ in told] == [pipeline]
    pipeline.close()
    assert len(told) == 1


def test_a_step_that_hangs_ends_the_process(plugged: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_pipeline, "CALL_TIMEOUT_S", 0.5)
    told: list[str] = []
    pipeline = loaded("paced", on_exit=lambda lost, reason: told.append(reason))
    with pipeline.open_session(pipeline.fuse(grey(7))) as session:
        session.step(FrameChunk([grey(1)], np.array([0.0])))
        freeze(pipeline.connection._process.pid)
        with pytest.raises(PipelineLostError, match="SIGKILL"):
            session.step(FrameChunk([grey(1)], np.array([0.1])))
    wait_until(lambda: bool(told))
    assert len(told) == 1
    pipeline.close()


def test_anything_that_hangs_ends_the_process(plugged: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_pipeline, "CALL_TIMEOUT_S", 0.5)
    pipeline = loaded("paced")
    session = pipeline.open_session(pipeline.fuse(grey(7)))
    freeze(pipeline.connection._process.pid)
    with pytest.raises(PipelineLostError, match="SIGKILL"):
        pipeline.fuse(grey(7))
    with pytest.raises(PipelineLostError):
        session.reset()
    pipeline.close()


def test_a_process_that_takes_no_frames_is_killed(plugged: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "_SEND_TIMEOUT_S", 1)
    pipeline = loaded("paced")
    session = pipeline.open_session(pipeline.fuse(grey(7)))
    freeze(pipeline.connection._process.pid)
    large = np.zeros((1080, 1920, 3), np.uint8)
    for k in range(4):  # more than any socket holds
        session.prepare(large, float(k))
    assert pipeline.connection._process.wait(5) == -KILL
    session.close()
    pipeline.close()


def test_what_cannot_be_read_ends_the_process(plugged: None) -> None:
    pipeline = loaded("paced")
    pipeline.connection._pipe._outgoing.write(b"\x01\x00\x00\x00" + (4).to_bytes(8, "little") + b"junk")
    with pytest.raises(PipelineLostError, match="exit code 70"):
        pipeline.fuse(grey(7))
    pipeline.close()


def test_frames_that_never_arrive_are_told(paced: RemotePipeline, plugged: None) -> None:
    pipeline = loaded("paced")
    session = pipeline.open_session(pipeline.fuse(grey(7)))
    made = session.step(FrameChunk([grey(1)], np.array([0.0])))
    assert made.states == (FrameState.ANIMATED,)
    assert made.images.shape == (1, 256, 256, 3)
    # As where the process ends between a step's answer and its frames.
    waiting = PendingChunk(pipeline.connection.expect_frames(-1), made_of(made))
    assert len(waiting) == 1
    pipeline.connection.kill()
    with pytest.raises(PipelineLostError, match="SIGKILL"):
        _ = waiting.images
    pipeline.close()


def made_of(chunk: AnimatedChunk) -> messages.StepResult:
    return messages.StepResult(chunk.times, chunk.states, 0.1, {})


def test_closing_is_no_death(plugged: None) -> None:
    told: list[str] = []
    pipeline = loaded("paced", on_exit=lambda lost, reason: told.append(reason))
    pid = pipeline.connection._process.pid
    pipeline.close()
    pipeline.close()
    assert not pipeline.connection._reader.is_alive()
    assert told == []
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_load_that_is_given_up_ends_the_process(plugged: None) -> None:
    seen: list[str] = []

    def report(stage: str, share: float) -> None:
        seen.append(stage)
        if share > 0.2:
            raise SessionClosedError("enough")

    begun = time.monotonic()
    with pytest.raises(SessionClosedError, match="enough"):
        make_remote_class(registry.get_pipeline("paced")).load(parameters("paced", loading=30.0), report)
    assert seen[0] == "starting the process"
    assert "waiting" in seen
    assert time.monotonic() - begun < 25


def test_what_loading_raises_is_raised_here(tmp_path: Path) -> None:
    with pytest.raises(Exception, match="no weights") as caught:
        make_remote_class(registry.get_pipeline("personalive")).load(
            parameters("personalive", weights=tmp_path)
        )
    assert type(caught.value).__name__ == "PipelineUnavailableError"


def test_a_pipeline_that_does_nothing_but_fail_ends_its_process(
    plugged: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, portrait: Image
) -> None:
    spoil = tmp_path / "spoil"
    monkeypatch.setenv("SPOIL_THE_PIPELINE", str(spoil))
    pipeline = loaded("spoiled-preview")
    session = pipeline.open_session(pipeline.fuse(portrait))
    chunk = FrameChunk([portrait], np.array([0.0]))
    session.step(chunk)
    spoil.touch()
    with pytest.raises(PipelineLostError, match="nothing any more but fail") as caught:
        session.step(FrameChunk([portrait], np.array([0.1])))
    assert "illegal memory access" in str(caught.value.__cause__)
    pipeline.connection._process.wait(5)
    assert not pipeline.connection.is_alive
    pipeline.close()


def test_the_process_ends_with_the_one_that_started_it(plugged: None) -> None:
    pipeline = loaded("paced", cost=5.0)
    session = pipeline.open_session(pipeline.fuse(grey(7)))

    def step() -> None:
        with pytest.raises(PipelineLostError):
            session.step(FrameChunk([grey(1)], np.array([0.0])))

    thread = threading.Thread(target=step)
    thread.start()
    time.sleep(0.2)
    # As the system does for a process that is killed: its ends of the pipes are closed.
    begun = time.monotonic()
    pipeline.connection._pipe.close()
    pipeline.connection._process.wait(4)
    thread.join()
    assert time.monotonic() - begun < 4
    pipeline.close()


def test_standard_output_of_a_pipeline_does_not_reach_the_protocol(
    plugged: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = tmp_path / "talkative.py"
    module.write_text(
        "from paced_pipeline import *\n"
        "class Talkative(PacedPipeline):\n"
        "    def fuse(self, image, **options):\n"
        "        print('noise'); os.write(1, b'more noise')\n"
        "        return super().fuse(image, **options)\n"
        "import os\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    import talkative  # type: ignore[import-not-found]

    kind = talkative.Talkative
    with make_remote_class(kind).load(kind.load_parameters(**SMALL)) as pipeline:
        assert pipeline.fuse(grey(7)).image.shape == (256, 256, 3)
