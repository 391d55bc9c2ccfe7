"""How the server's process begins and ends, and what clients see of that."""

from __future__ import annotations

import asyncio
import signal
import socket
import time
from pathlib import Path

import httpx
import pytest

from tests.server.camera import Camera
from tests.server.client import Client, streaming
from tests.server.running import RunningServer, free_port, running, start

SMALL = {"width": 256, "height": 256}


def refusal(tmp_path: Path, **settings: object) -> tuple[int, str]:
    """Exit code and output of a server that does not even begin."""
    with (tmp_path / "output").open("wb") as output:
        process = start(settings, output=output)
        code = process.wait(30)
    return code, (tmp_path / "output").read_text()


async def stopped_under_load(server: RunningServer) -> None:
    async with (
        streaming(server.url, Camera(30)) as one,
        streaming(server.url, Camera(30)) as other,
        Client(server.url) as late,
    ):
        await one.frames(10)
        await other.frames(10)
        offer = await late.offer()
        begun = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        answers = set()
        while server.process.poll() is None and time.monotonic() < begun + 12:
            try:
                ready = await late.http.get("/health/ready")
                offered = await late.http.post("/api/v1/webrtc/offer", json={"sdp": offer, "type": "offer"})
            except httpx.TransportError:
                break
            answers.add((ready.status_code, offered.status_code))
            await asyncio.sleep(0.02)
        for client in (one, other):
            told = await client.told("stream_stopped")
            assert told["error_message"] == "The server is stopping."
            await client.gone()
        code = await asyncio.to_thread(server.process.wait, 12)
        assert code == 0
        assert time.monotonic() - begun < 10
        # Requests that were on their way with the signal may still have found it ready.
        assert (503, 503) in answers
        assert all(status in {200, 503} for pair in answers for status in pair)


def test_it_tells_all_who_stream_and_leaves_in_time() -> None:
    # A step is at work nearly all the time, four frames at once.
    load = {**SMALL, "chunk_frames": 4, "cost": 1 / 25}
    with running({"pipeline": "paced", "load_params": load, "max_sessions": 3}) as server:
        server.wait_until_loaded()
        asyncio.run(stopped_under_load(server))


@pytest.mark.slow
def test_it_leaves_in_the_middle_of_a_load() -> None:
    with running({"pipeline": "paced", "load_params": {"loading": 60.0}, "drain_s": 1}) as server:
        assert server.get("/health/ready").status_code == 503
        begun = time.monotonic()
        assert server.stop() == 0
        assert time.monotonic() - begun < 10


def test_a_port_that_is_taken_is_told_in_words(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        code, said = refusal(tmp_path, port=port)
    assert code == 2
    assert f"Port {port} of 127.0.0.1 is taken" in said
    assert "Traceback" not in said


@pytest.mark.slow
@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_nobody_is_served_from_outside_without_a_key(tmp_path: Path, host: str) -> None:
    code, said = refusal(tmp_path, host=host, port=free_port())
    assert code == 2
    assert "PERSONALIVE_API_KEY" in said
    assert "--insecure" in said
    assert "Traceback" not in said
