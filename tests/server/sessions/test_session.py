from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from personalive.errors import InputError
from personalive.pipelines import registry
from personalive.pipelines.base import FrameState, LoadParameters, Pipeline
from personalive.server.errors import ServiceUnavailableError
from personalive.server.sessions.playout_buffer import SentFrame
from personalive.server.sessions.session import Message, ServerSession
from personalive.server.sessions.session_manager import SessionManager
from personalive.server.sessions.worker import PipelineWorker
from personalive.server.telemetry.metrics import Metrics

pytestmark = pytest.mark.usefixtures("plugins")
SIZE = 256


class Live:
    """A stream of the echo pipeline: chunks of four, a delay of three, two lead-in frames."""

    def __init__(self, worker: PipelineWorker, streams: SessionManager, stream: ServerSession) -> None:
        self.worker, self.streams, self.stream = worker, streams, stream
        self.messages: list[Message] = []
        self.sent: list[SentFrame] = []
        stream.add_message_listener(self.messages.append)
        stream.add_frame_listener(self.sent.append)

    async def feed(self, count: int, *, grey: int = 100, every: float = 0.01) -> None:
        for _ in range(count):
            image = np.full((32, 32, 3), grey, np.uint8)
            self.stream.put_frame(av.VideoFrame.from_ndarray(image, format="rgb24"))
            await asyncio.sleep(every)
        await asyncio.sleep(0.2)

    def said(self, kind: str) -> list[Message]:
        return [message for message in self.messages if message["type"] == kind]


def run(act: Callable[[Live], Awaitable[None]], **parameters: object) -> None:
    async def whole() -> None:
        worker = PipelineWorker()
        worker.start()
        pipeline: Pipeline[Any, Any] = registry.get_pipeline("echo").load(
            LoadParameters(height=SIZE, width=SIZE)
        )
        worker.pipeline = pipeline
        streams = SessionManager([worker], Metrics(), limit=2)
        reference = pipeline.fuse(np.full((SIZE, SIZE, 3), 9, np.uint8))
        stream = await streams.open(pipeline, "portrait", reference, parameters)
        try:
            await act(Live(worker, streams, stream))
        finally:
            await streams.end_all("over")
            worker.stop()

    asyncio.run(whole())


def test_frames_come_back_in_order_with_their_states() -> None:
    async def act(live: Live) -> None:
        await live.feed(16)
        times = [frame.time for frame in live.sent]
        assert times == sorted(times)
        assert len(live.sent) == 15
        kinds = [frame.state for frame in live.sent]
        assert kinds == [FrameState.TRANSITION] * 2 + [FrameState.ANIMATED] * 13
        assert all(abs(int(frame.image.mean()) - 100) <= 2 for frame in live.sent[2:])
        assert [message["state"] for message in live.said("state")] == ["waiting_for_face", "streaming"]
        stats = live.stream.stats()
        assert (stats["frames_in"], stats["frames_out"], stats["dropped_in"]) == (16, 15, 0)
        assert 0 < stats["latency_ms"]["p50"] <= stats["latency_ms"]["p95"] < 1000

    run(act)


def test_the_delay_is_divided_into_its_parts() -> None:
    async def act(live: Live) -> None:
        assert live.stream.stats()["delay_ms"] == {"chunk": None, "window": None, "step": None, "send": None}
        await live.feed(24)
        parts = live.stream.stats()["delay_ms"]
        assert all(part >= 0 for part in parts.values())
        assert live.stream.stats()["chunk_frames"] == 4
        # A frame that goes in with one chunk of four comes out with the next one, 40 ms later or more.
        assert parts["window"] > 0

    run(act)


def test_pausing_stands_still_and_goes_on() -> None:
    async def act(live: Live) -> None:
        await live.feed(8)
        await live.stream.set_paused(True)
        shown = len(live.sent)
        await live.feed(8)
        assert len(live.sent) - shown <= 1  # the last one again
        assert live.stream.state == "paused"
        await live.stream.set_paused(False)
        await live.feed(8)
        assert len(live.sent) >= shown + 7
        assert [message["state"] for message in live.said("state")][-2:] == ["paused", "streaming"]

    run(act)


def test_a_stream_that_stands_still_repeats_its_last_frame() -> None:
    async def act(live: Live) -> None:
        await live.feed(8)
        shown = live.sent[-1]
        await asyncio.sleep(2.2)
        assert (live.sent[-1].image == shown.image).all()
        assert 1.0 < live.sent[-1].time - shown.time < 2.5
        assert live.stream.stats()["frames_out"] == 7

    run(act)


def test_parameters_change_from_the_next_chunk_on() -> None:
    async def act(live: Live) -> None:
        await live.feed(8)
        await live.stream.update_parameters({"gain": 0.5})
        await live.feed(8)
        assert abs(int(live.sent[-1].image.mean()) - 50) <= 2
        with pytest.raises(InputError, match="gain = 9"):
            await live.stream.update_parameters({"gain": 9})
        await live.stream.reset()
        shown = len(live.sent)
        await live.feed(8)
        assert FrameState.TRANSITION in [frame.state for frame in live.sent[shown:]]

    run(act)


def test_planes_that_nobody_needs_are_not_made() -> None:
    async def act(live: Live) -> None:
        live.stream.makes_planes = False
        await live.feed(8)
        assert live.sent[-1].planes.size == 0
        assert live.sent[-1].image.size > 0

    run(act)


def test_what_is_sent_is_what_an_encoder_takes() -> None:
    async def act(live: Live) -> None:
        await live.feed(16)
        last = live.sent[-1]
        decoded = av.VideoFrame.from_ndarray(last.planes, format="yuv420p").to_ndarray(format="rgb24")
        assert decoded.shape == last.image.shape
        assert np.abs(decoded.astype(int) - last.image).max() <= 3

    run(act)


def test_nothing_from_before_a_reset_is_sent_after_it() -> None:
    async def act(live: Live) -> None:
        for _ in range(5):
            for _ in range(8):
                image = np.full((32, 32, 3), 200, np.uint8)
                live.stream.put_frame(av.VideoFrame.from_ndarray(image, format="rgb24"))
            await live.stream.reset()
            shown = len(live.sent)
            await live.feed(4, grey=50)
            fresh = [frame for frame in live.sent[shown:] if frame.state is FrameState.ANIMATED]
            assert all(abs(int(frame.image.mean()) - 50) <= 2 for frame in fresh)

    run(act)


@settings(max_examples=4, deadline=None)
@given(st.tuples(st.integers(1, 15), st.integers(1, 4000)), st.booleans())
def test_frames_of_unusable_shapes_are_left_out_and_told_of_once(
    size: tuple[int, int], upright: bool
) -> None:
    async def act(live: Live) -> None:
        height, width = size if upright else size[::-1]
        for _ in range(3):
            strip = av.VideoFrame.from_ndarray(np.zeros((height, width, 3), np.uint8), format="rgb24")
            live.stream.put_frame(strip)
        await live.feed(12)
        assert not live.stream.ended
        assert live.stream.frame_stats.frames_in == 15
        assert live.stream.stats()["dropped_in"] >= 3
        assert len(live.sent) > 0
        (told,) = live.said("error")
        assert f"{width}×{height}" in told["message"]

    run(act)


def test_a_breakdown_is_told_and_frees_the_slot(capsys: pytest.CaptureFixture[str]) -> None:
    async def act(live: Live) -> None:
        await live.feed(12)
        await asyncio.sleep(0.2)
        (stopped,) = live.said("stream_stopped")
        assert "an error in the server" in stopped["error_message"]
        assert "as told" not in stopped["error_message"]  # the defect's own words are for the log
        assert live.stream.ended
        assert len(live.streams) == 0
        await live.stream.end("again")
        assert len(live.said("stream_stopped")) == 1

    run(act, fail_at=6)


def test_slots_are_counted_and_parameters_checked() -> None:
    async def act(live: Live) -> None:
        pipeline, worker = live.worker.pipeline, live.worker
        assert pipeline is not None
        reference = pipeline.fuse(np.full((SIZE, SIZE, 3), 9, np.uint8))
        with pytest.raises(InputError, match="gain"):
            await live.streams.open(pipeline, "portrait", reference, {"gain": -1})
        second = await live.streams.open(pipeline, "portrait", reference, {})
        with pytest.raises(ServiceUnavailableError, match="slots are taken"):
            await live.streams.open(pipeline, "portrait", reference, {})
        await second.end("test")
        assert len(live.streams) == 1
        assert await worker.is_responsive()

    run(act)
