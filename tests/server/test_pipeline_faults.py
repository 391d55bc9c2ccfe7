"""A pipeline's process that is killed or does nothing but fail: what clients see, and that it is replaced."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.server.camera import Camera
from tests.server.client import PORTRAIT, Client, streaming
from tests.server.running import RunningServer, running
from tests.signals import KILL

FAULTY = Path(__file__).parent / "faulty_plugin"
BACK = 60.0
"""Seconds within which the pipeline must be back; loading it takes most of them."""


def spoiling(spoil: Path) -> dict[str, str]:
    """The environment of a server that knows the pipelines of `faulty_plugin`, and that file."""
    return {"PYTHONPATH": str(FAULTY), "SPOIL_THE_PIPELINE": str(spoil)}


@pytest.fixture
def spoil(tmp_path: Path) -> Path:
    """The file that brings the fault about, see `faulty_plugin`."""
    return tmp_path / "spoil"


@pytest.fixture(params=["preview", "personalive"])
def server(request: pytest.FixtureRequest, spoil: Path) -> Iterator[RunningServer]:
    load: dict[str, Any] = {"width": 256, "height": 256}
    if request.param == "personalive":
        weights = request.getfixturevalue("test_weights")
        load = {"width": 64, "height": 64, "weights": str(weights), "face_detection": False}
    settings = {"pipeline": f"spoiled-{request.param}", "load_params": load, "max_sessions": 2}
    with running(settings, environment=spoiling(spoil)) as one:
        one.wait_until_loaded(BACK)
        yield one


def pipeline_process(server: RunningServer) -> int:
    """The id of the pipeline's process, the server's only child."""
    (child,) = server.children()
    return child


def gone(pid: int, within: float = 5.0) -> bool:
    until = time.monotonic() + within
    while time.monotonic() < until:
        try:
            # A process that ended and that nobody has waited for yet has no command line.
            if not (Path("/proc") / str(pid) / "cmdline").read_bytes():
                return True
        except OSError:
            return True
        time.sleep(0.05)
    return False


async def lost_and_back(server: RunningServer, break_it: Any) -> None:
    """Stream, break the pipeline, see what is told, and stream again."""
    before = pipeline_process(server)
    async with streaming(server.url, Camera(15)) as client:
        await client.frames(3)
        break_it(before)
        told = await client.told("stream_stopped", within=BACK)
        assert told["retry"] is True
        assert "started again" in told["error_message"]
        assert told["error_message"].count("\n") == 0
    answers = set[tuple[int, int]]()
    async with Client(server.url) as late:
        offer = await late.offer()
        until = time.monotonic() + BACK
        last = (0, 0)
        while (503, 503) not in answers or last != (200, 200):
            assert time.monotonic() < until, answers
            live, ready = await late.http.get("/health/live"), await late.http.get("/health/ready")
            offered = await late.http.post("/api/v1/webrtc/offer", json={"sdp": offer, "type": "offer"})
            assert live.status_code == 200
            if offered.status_code == 503:
                assert int(offered.headers["Retry-After"]) <= 10
            last = (ready.status_code, offered.status_code)
            answers.add(last)
            await asyncio.sleep(0.02)
    assert pipeline_process(server) != before
    await asyncio.to_thread(server.wait_for_sessions, 0)
    async with streaming(server.url, Camera(15)) as client:
        await client.frames(3)


@pytest.mark.slow
def test_a_killed_process_is_replaced(server: RunningServer) -> None:
    asyncio.run(lost_and_back(server, lambda pid: os.kill(pid, KILL)))
    assert "SIGKILL" in server.log
    assert "Traceback" not in server.log


@pytest.mark.slow
def test_a_pipeline_that_fails_at_every_call_is_replaced(server: RunningServer, spoil: Path) -> None:
    asyncio.run(lost_and_back(server, lambda pid: spoil.touch()))
    assert "illegal memory access" in server.log


@pytest.mark.slow
def test_one_that_dies_again_and_again_is_given_up_in_a_sentence(tmp_path: Path, spoil: Path) -> None:
    settings = {"pipeline": "spoiled-preview", "load_params": {"width": 256, "height": 256}}
    with running(settings, environment=spoiling(spoil)) as server:
        server.wait_until_loaded()
        server.post("/api/v1/personalive/reference", content=PORTRAIT.read_bytes()).raise_for_status()
        spoil.write_text("exit")
        os.kill(pipeline_process(server), KILL)
        until = time.monotonic() + BACK
        while (status := server.get("/api/v1/pipeline/status").json())["status"] != "error":
            assert time.monotonic() < until, status
            assert server.get("/health").status_code == 200
            time.sleep(0.1)
        assert (
            "ended 5 times in a row within 60 seconds of its start and is not started again"
            in status["error"]
        )
        ready = server.get("/health/ready")
        assert (ready.status_code, ready.json()["detail"]) == (503, status["error"])
        offered = server.post("/api/v1/webrtc/offer", json={"sdp": "v=0", "type": "offer"})
        assert (offered.status_code, offered.json()["detail"]) == (409, status["error"])
        assert server.children() == []
        spoil.unlink()
        server.load("spoiled-preview", width=256, height=256)
        assert server.get("/health/ready").status_code == 200


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT, KILL])
def test_nothing_is_left_behind(how: signal.Signals, tmp_path: Path) -> None:
    # Named as Python names its own; other programs use the folder too.
    before, temporary = set(Path("/dev/shm").glob("psm_*")), tmp_path / "temporary"
    temporary.mkdir()
    settings = {"pipeline": "preview", "load_params": {"width": 256, "height": 256}}
    killed = how is KILL
    # A server in a `with` block must leave with exit code 0, which one that is killed cannot.
    with (
        pytest.raises(AssertionError) if killed else contextlib.nullcontext(),
        running(settings, environment={"TMPDIR": str(temporary)}) as server,
    ):
        server.wait_until_loaded()
        pid = pipeline_process(server)
        code = server.stop(how)
    assert code == (-how if killed else 0)
    assert gone(pid)
    assert set(Path("/dev/shm").glob("psm_*")) <= before
    assert list(temporary.iterdir()) == []


@pytest.mark.slow
def test_ctrl_c_and_sigterm_at_the_process_leave_the_decision_to_the_server() -> None:
    settings = {"pipeline": "preview", "load_params": {"width": 256, "height": 256}}
    with running(settings) as server:
        server.wait_until_loaded()
        pid = pipeline_process(server)
        for sent in (signal.SIGINT, signal.SIGTERM):
            os.kill(pid, sent)
        time.sleep(0.5)
        assert server.get("/health/ready").status_code == 200
        assert pipeline_process(server) == pid


@pytest.mark.slow
def test_another_gpu_serves_on(tmp_path: Path) -> None:
    """The driver's program is played by another: what matters is that there are two processes."""
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 'One, 8192'; echo 'Other, 8192'\n")
    program.chmod(0o755)
    load = {"width": 256, "height": 256}
    settings = {"pipeline": "paced", "load_params": load, "gpus": "all", "max_sessions": 1}
    environment = {"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}", "CUDA_VISIBLE_DEVICES": None}

    async def act(server: RunningServer) -> None:
        processes = server.children()
        assert len(processes) == 2
        async with streaming(server.url, Camera(15)) as one, streaming(server.url, Camera(15)) as other:
            await one.frames(3)
            await other.frames(3)
            os.kill(processes[0], KILL)
            lost, left = await _lost(one, other)
            assert (await lost.told("stream_stopped"))["retry"] is True
            assert (await left.http.get("/health/ready")).status_code == 200
            await left.frames(10)
            assert not left.report.told("stream_stopped")
        until = time.monotonic() + BACK
        while len(server.children()) < 2 or set(server.children()) & {processes[0]}:
            assert time.monotonic() < until
            await asyncio.sleep(0.1)

    with running(settings, environment=environment) as server:
        server.wait_until_loaded()
        asyncio.run(act(server))


async def _lost(one: Client, other: Client) -> tuple[Client, Client]:
    """Which of the two is told that its session has stopped, and then the one that is not."""
    until = time.monotonic() + 10
    while not (one.report.told("stream_stopped") or other.report.told("stream_stopped")):
        assert time.monotonic() < until
        await asyncio.sleep(0.05)
    return (one, other) if one.report.told("stream_stopped") else (other, one)
