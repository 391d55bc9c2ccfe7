from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from personalive.jobs.session_runner import AnimatedFrame, prefetch_frames, run_session
from personalive.media import Image, VideoFrame
from personalive.pipelines import registry
from personalive.pipelines.base import (
    AnimatedChunk,
    FrameChunk,
    FrameState,
    LoadParameters,
    PipelineInfo,
    Reference,
    RunParameters,
    Session,
)

pytestmark = pytest.mark.usefixtures("plugins")


def frames(count: int) -> list[VideoFrame]:
    """Frame k is grey of level k + 1."""
    return [VideoFrame(np.full((16, 16, 3), k % 250 + 1, np.uint8), k / 25, k, 1 / 25) for k in range(count)]


def echo(info: PipelineInfo, count: int) -> list[AnimatedFrame]:
    base: Any = registry.get_pipeline("echo")

    class Shaped(base):  # type: ignore[misc]
        info: PipelineInfo

    Shaped.info = info
    with Shaped.load(LoadParameters(width=256, height=256)) as pipeline:
        reference = pipeline.fuse(np.full((256, 256, 3), 9, np.uint8))
        with pipeline.open_session(reference) as session:
            return list(run_session(session, info, frames(count)))


@settings(max_examples=40, deadline=None)
@given(count=st.integers(1, 40), chunk=st.integers(1, 9), delay=st.integers(0, 12), exact=st.booleans())
def test_output_frame_i_shows_driving_frame_i(count: int, chunk: int, delay: int, exact: bool) -> None:
    info = replace(
        registry.get_pipeline("echo").info, chunk_frames=chunk, delay_frames=delay, exact_chunks=exact
    )
    driven = echo(info, count)
    assert [int(item.driving[0, 0, 0]) for item in driven] == [k + 1 for k in range(count)]
    assert [int(item.animated[0, 0, 0]) for item in driven] == [k + 1 for k in range(count)]
    assert {item.state for item in driven} == {FrameState.ANIMATED}


def test_nothing_in_nothing_out() -> None:
    assert echo(registry.get_pipeline("echo").info, 0) == []


class _Faulty:
    """A session that gives back `surplus` frames more than it took."""

    def __init__(self, surplus: int) -> None:
        self._surplus = surplus

    def step(self, chunk: Any) -> AnimatedChunk:
        count = len(chunk) + self._surplus
        return AnimatedChunk(
            np.zeros((count, 8, 8, 3), np.uint8), np.zeros(count), (FrameState.ANIMATED,) * count
        )

    def flush(self) -> None:
        return None


@pytest.mark.parametrize(
    ("surplus", "message"), [(1, "more frames than it was given"), (-1, "did not return 1 frames")]
)
def test_a_pipeline_that_loses_count_is_found_out(surplus: int, message: str) -> None:
    info = PipelineInfo("faulty", "faulty", "", chunk_frames=4)
    session: Session[Any] = _Faulty(surplus)  # type: ignore[assignment]
    with pytest.raises(RuntimeError, match=message):
        list(run_session(session, info, frames(4)))


def test_only_a_chunk_and_the_delay_are_held() -> None:
    taken = 0

    def counted() -> Any:
        nonlocal taken
        for frame in frames(60):
            taken += 1
            yield frame

    info = registry.get_pipeline("echo").info
    with registry.get_pipeline("echo").load(LoadParameters(width=256, height=256)) as pipeline:
        reference = pipeline.fuse(np.full((256, 256, 3), 9, np.uint8))
        with pipeline.open_session(reference) as session:
            for done, _ in enumerate(run_session(session, info, counted())):
                assert taken <= done + 1 + info.chunk_frames + info.delay_frames + 2


class _Preparing(Session[RunParameters]):
    """Notes in which order chunks are prepared and stepped, by their first time."""

    def __init__(self) -> None:
        self.prepared: list[float] = []
        self.stepped: list[float] = []

    @property
    def parameters(self) -> RunParameters:
        return RunParameters()

    def update(self, parameters: RunParameters) -> None:
        raise NotImplementedError

    def switch_reference(self, reference: Reference) -> None:
        raise NotImplementedError

    def reset(self) -> None:
        raise NotImplementedError

    def close(self) -> None:
        raise NotImplementedError

    def prepare(self, image: Image, time: float) -> None:
        del image
        self.prepared.append(time)

    def step(self, chunk: FrameChunk) -> AnimatedChunk:
        assert set(chunk.times[:1]) <= set(self.prepared)
        self.stepped += chunk.times.tolist()
        return AnimatedChunk(np.stack(list(chunk.images)), chunk.times, (FrameState.ANIMATED,) * len(chunk))


@pytest.mark.parametrize("count", [1, 4, 9])
def test_each_frame_is_prepared_once_and_before_its_step(count: int) -> None:
    info = replace(registry.get_pipeline("echo").info, chunk_frames=4, delay_frames=0, exact_chunks=True)
    session = _Preparing()
    with prefetch_frames(session, frames(count), ahead=4) as ahead:
        driven = list(run_session(session, info, ahead))
    assert len(driven) == count
    assert session.prepared == [k / 25 for k in range(count)]
    assert session.stepped == [k / 25 for k in range(4 * -(-count // 4))]


def test_a_session_that_prepares_nothing_gets_its_frames_without_another_thread() -> None:
    class Plain(_Preparing):
        prepare = Session.prepare

    given = frames(3)
    with prefetch_frames(Plain(), given, ahead=4) as ahead:
        assert ahead is given


def test_what_preparing_raises_ends_the_drive() -> None:
    class Failing(_Preparing):
        def prepare(self, image: Image, time: float) -> None:
            if time:
                raise MemoryError("no room")
            super().prepare(image, time)

    info = replace(registry.get_pipeline("echo").info, chunk_frames=4, delay_frames=0, exact_chunks=True)
    session = Failing()
    with (
        pytest.raises(MemoryError, match="no room"),
        prefetch_frames(session, frames(8), ahead=4) as ahead,
    ):
        list(run_session(session, info, ahead))
