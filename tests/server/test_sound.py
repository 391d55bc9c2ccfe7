"""Sound on its way through a server in a separate process: by WebRTC, WebSocket, WHIP and WHEP, and recorded.

The bounds here are wide, for machines that are busy with other tests; benchmarks/lip_sync.py has the figures.
"""

from __future__ import annotations

import asyncio
import json
import statistics
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import av
import numpy as np
import pytest

from tests.server.client import PORTRAIT
from tests.server.flashes import PERIOD_S, FlashClient
from tests.server.running import RunningServer, running
from tests.server.websocket.flashes import FlashWebSocketClient

BUSY_S = 0.3
"""Seconds that a machine with other work may part sound and picture by."""
FLASHES = 3


@pytest.fixture(scope="module")
def server() -> Iterator[RunningServer]:
    load = {"chunk_frames": 4, "delay_frames": 4, "cost": 0.005, "width": 256, "height": 256}
    with running({"pipeline": "paced", "load_params": load}) as started:
        started.wait_until_loaded()
        started.post("/api/v1/personalive/reference", content=PORTRAIT.read_bytes())
        yield started


async def until(true: Callable[[], bool], within: float = 20.0) -> None:
    async with asyncio.timeout(within):
        while not true():
            await asyncio.sleep(0.05)


def run(act: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(act(), 60))


def find_flashes_and_clicks(path: Path) -> tuple[list[float], list[float]]:
    """When the picture of a file turns white, and when a click begins."""
    flashes: list[float] = []
    clicks: list[float] = []
    with av.open(str(path)) as container:
        for frame in container.decode():
            if frame.time is None:
                continue
            if isinstance(frame, av.VideoFrame):
                if frame.to_ndarray(format="gray").mean() > 150 and frame.time - max(flashes, default=-9) > 1:
                    flashes.append(frame.time)
            elif isinstance(frame, av.AudioFrame):
                loud = np.flatnonzero(np.abs(frame.to_ndarray()[0]) > 0.12)
                at = frame.time + float(loud[0]) / frame.sample_rate if loud.size else None
                if at is not None and at - max(clicks, default=-9) > 1:
                    clicks.append(at)
    return flashes, clicks


@pytest.mark.slow
def test_sound_comes_with_its_picture_and_is_recorded_with_it(server: RunningServer, tmp_path: Path) -> None:
    async def act() -> None:
        async with FlashClient(server.url) as client:
            await client.connect({"audio": True})
            video = client.watchers["video"]
            await until(lambda: video.packets > 0)
            recording = f"/api/v1/sessions/{client.id}/recording"
            (await client.http.post(recording)).raise_for_status()
            await until(lambda: len(video.events) > FLASHES)
            await asyncio.sleep(1)
            ended = (await client.http.delete(recording)).raise_for_status().json()
            (tmp_path / "a.mp4").write_bytes((await client.http.get(ended["url"])).content)
            figures = await client.figures()
            assert figures["audio"]["dropped"] == 0
            assert 100 < figures["audio"]["delay_ms"] < 1000 * (PERIOD_S / 2)
            assert abs(figures["audio"]["offset_ms"]) < 1000 * BUSY_S
            offsets = client.offsets(1.0)
            assert abs(statistics.median(offsets.arrived)) < BUSY_S
            assert abs(statistics.median(offsets.reported)) < BUSY_S
            streams = [line for line in client.answer.splitlines() if line.startswith("a=msid:")]
            assert len({line.split()[0] for line in streams}) == 1

    run(act)
    flashes, clicks = find_flashes_and_clicks(tmp_path / "a.mp4")
    assert len(flashes) >= FLASHES - 1
    apart = [min((click - flash for click in clicks), key=abs) for flash in flashes]
    assert abs(statistics.median(apart)) < BUSY_S


@pytest.mark.slow
def test_sound_that_is_switched_on_during_a_recording_is_in_it(server: RunningServer, tmp_path: Path) -> None:
    async def act() -> None:
        async with FlashClient(server.url) as client:
            await client.connect({})
            video = client.watchers["video"]
            await until(lambda: video.packets > 0)
            recording = f"/api/v1/sessions/{client.id}/recording"
            (await client.http.post(recording)).raise_for_status()
            await until(lambda: len(video.events) > 1)
            client.channel.send(json.dumps({"audio": True}))
            await until(lambda: len(video.events) > 1 + FLASHES)
            client.channel.send(json.dumps({"audio": False}))
            await until(lambda: len(video.events) > 2 + FLASHES)
            client.channel.send(json.dumps({"audio": True}))
            await until(lambda: len(video.events) > 2 + 2 * FLASHES)
            await asyncio.sleep(1)
            ended = (await client.http.delete(recording)).raise_for_status().json()
            (tmp_path / "a.mp4").write_bytes((await client.http.get(ended["url"])).content)

    run(act)
    flashes, clicks = find_flashes_and_clicks(tmp_path / "a.mp4")
    apart = {flash: min((click - flash for click in clicks), key=abs) for flash in flashes}
    with_sound = [flash for flash in flashes if abs(apart[flash]) < PERIOD_S / 2]
    assert with_sound[0] > flashes[0]  # it was off
    assert 2 * FLASHES - 2 <= len(with_sound) < len(flashes) - 1
    assert abs(statistics.median(apart[flash] for flash in with_sound)) < BUSY_S


@pytest.mark.slow
def test_sound_comes_with_its_picture_over_a_websocket(server: RunningServer) -> None:
    async def act() -> None:
        async with FlashWebSocketClient(server.url) as client, FlashClient(server.url, sends=False) as viewer:
            (await client.offer(initialParameters={"audio": True})).raise_for_status()
            await client.connect()
            await client.drive()
            await until(lambda: len(client.flashes) > FLASHES)
            await viewer.connect_by(f"/whep?session={client.id}")
            await until(lambda: len(viewer.watchers["audio"].events) > 0)
            figures = await client.figures()
            assert figures["audio"]["dropped"] == 0
            offsets = client.offsets(1.0)
            assert abs(statistics.median(offsets.arrived)) < BUSY_S
            assert abs(statistics.median(offsets.reported)) < BUSY_S

    run(act)


@pytest.mark.slow
def test_sound_is_off_until_it_is_asked_for_and_silent_while_paused(server: RunningServer) -> None:
    async def act() -> None:
        async with FlashClient(server.url) as client:
            await client.connect({})
            video, audio = client.watchers["video"], client.watchers["audio"]
            await until(lambda: len(video.events) > 0)
            assert audio.packets == 0
            assert (await client.figures())["audio"] is None
            client.channel.send(json.dumps({"audio": True}))
            await until(lambda: len(audio.events) > 0)
            client.channel.send(json.dumps({"paused": True}))
            await asyncio.sleep(1.5)
            heard, packets = len(audio.events), audio.packets
            await asyncio.sleep(PERIOD_S)
            assert len(audio.events) == heard
            assert audio.packets > packets + 20  # the clock of the sound runs on
            client.channel.send(json.dumps({"paused": False, "audio": False}))
            await asyncio.sleep(1)
            packets = audio.packets
            await asyncio.sleep(0.5)
            assert audio.packets == packets

    run(act)


@pytest.mark.slow
def test_a_broadcaster_pushes_sound_and_viewers_get_it(server: RunningServer) -> None:
    async def act() -> None:
        async with FlashClient(server.url) as camera, FlashClient(server.url, sends=False) as viewer:
            await camera.connect_by("/whip?audio=true")
            await viewer.connect_by("/whep")
            assert viewer.id == camera.id
            await until(lambda: len(viewer.watchers["audio"].events) > 1)
            assert abs(statistics.median(viewer.offsets().arrived)) < BUSY_S

    run(act)
