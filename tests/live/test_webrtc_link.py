"""WHIP and WHEP against our own server on this machine, and what servers answer that want something else."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import av
import numpy as np
import pytest

from personalive.live.targets.whip import WhipTarget
from personalive.live.webrtc_link import TOKEN_VARIABLE, LinkAnswer, LinkError, delete_resource, post_offer
from personalive.live.whep_source import WhepSource
from personalive.server.sessions.audio_delay import BLOCK_SAMPLES
from personalive.server.sessions.session_audio import SentAudio
from tests.live.targets.events import Events, grey_frame
from tests.server.served import Served, served


def test_frames_go_out_by_whip_and_come_in_by_whep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is pushed opens a session of the server, whose picture is pulled; both ends are told of at the end."""
    monkeypatch.setenv(TOKEN_VARIABLE, "secret")

    async def act(url: str) -> None:
        events, notices = Events(), list[str | None]()
        came: list[av.VideoFrame] = []
        pushing = WhipTarget(events, f"{url}/whip")
        await pushing.open()
        pulling = WhepSource(f"{url}/whep", lambda frame, at: came.append(frame), notices.append)
        await pulling.start()
        async with asyncio.timeout(60):
            for number in range(10_000):
                pushing.put(grey_frame(number % 256, size=(320, 240), time=number / 25))
                if len(came) > 3:
                    break
                await asyncio.sleep(0.04)
        await pulling.stop()
        assert await pushing.close() is None
        assert (came[-1].width, came[-1].height) == (256, 256)
        assert notices[0] is None
        assert events.delivered

    with served(tmp_path, api_key="secret") as running:
        asyncio.run(act("http://{}:{}".format(*running.address)))
        assert running.call(_count_sessions(running.server.sessions)) == 0


def test_sound_goes_out_by_whip_and_comes_in_by_whep(tmp_path: Path) -> None:
    """The server sends it back with the picture, and tells by its reports when both were captured."""

    async def act(url: str) -> None:
        sounds: list[tuple[int, float | None]] = []

        def hear(frame: av.AudioFrame, at: float | None) -> None:
            sounds.append((int(np.abs(frame.to_ndarray()).max()), at))

        pushing = WhipTarget(Events(), f"{url}/whip?audio=true", with_audio=True)
        await pushing.open()
        pulling = WhepSource(f"{url}/whep", lambda frame, at: None, lambda notice: None, hear)
        await pulling.start()
        tone = (8000 * np.sin(np.arange(BLOCK_SAMPLES) / 8)).astype(np.int16).repeat(2).reshape(-1, 2)
        begin = time.monotonic()
        async with asyncio.timeout(60):
            for number in range(10_000):
                now = begin + number * 0.02
                if number % 2 == 0:
                    pushing.put(replace(grey_frame(number % 256, size=(320, 240), time=now), due_at=now))
                pushing.put_audio(SentAudio(tone, now, number * BLOCK_SAMPLES, now))
                if any(level > 4000 and at is not None for level, at in sounds):
                    break
                await asyncio.sleep(max(now + 0.02 - time.monotonic(), 0))
        await pulling.stop()
        await pushing.close()

    with served(tmp_path) as running:
        asyncio.run(act("http://{}:{}".format(*running.address)))


def test_a_whep_server_without_sound_is_refused_where_sound_is_wanted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ours takes the section for sound in any case, as sound may be switched on later; others answer inactive."""

    def post(url: str, sdp: str, token: str | None = None) -> LinkAnswer:
        answer = post_offer(url, sdp, token)
        before, section, sound = answer.sdp.partition("m=audio")
        return replace(answer, sdp=before + section + sound.replace("a=sendonly", "a=inactive"))

    async def act(url: str) -> None:
        pushing = WhipTarget(Events(), f"{url}/whip")
        await pushing.open()
        pushing.put(grey_frame(99, size=(320, 240)))
        monkeypatch.setattr("personalive.live.webrtc_link.post_offer", post)
        pulling = WhepSource(
            f"{url}/whep", lambda frame, at: None, lambda notice: None, lambda frame, at: None
        )
        with pytest.raises(LinkError, match="sends no sound: leave --sound out"):
            await pulling.start()
        await pulling.stop()
        await pushing.close()

    with served(tmp_path) as running:
        asyncio.run(act("http://{}:{}".format(*running.address)))


def test_a_whip_connection_that_is_lost_is_made_again(tmp_path: Path) -> None:
    """The server ends the session; once it lets in again, the picture is pushed into a new one."""

    async def act(running: Served) -> None:
        events = Events()
        pushing = WhipTarget(events, "http://{}:{}/whip".format(*running.address))
        await pushing.open()
        await asyncio.to_thread(running.call, running.server.sessions.end_all("enough"))
        async with asyncio.timeout(60):
            while len(events.notices) < 2:
                await asyncio.sleep(0.02)
        assert len(running.server.sessions) == 1
        await pushing.close()
        assert ["was lost" in events.notices[0], "again" in events.notices[1]] == [True, True]
        assert len(events.notices) == 2

    with served(tmp_path) as running:
        asyncio.run(act(running))


async def _count_sessions(sessions: object) -> int:
    assert hasattr(sessions, "__len__")
    async with asyncio.timeout(10):
        while len(sessions):
            await asyncio.sleep(0.05)
    return len(sessions)


@contextlib.contextmanager
def answering(
    status: int, headers: dict[str, str] | None = None, body: str = ""
) -> Iterator[tuple[str, list[str]]]:
    """A server that answers all the same, but takes an offer at /moved. Its address, what it was asked."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked.append(f"POST {self.path} {self.headers.get('Authorization')}")
            self.rfile.read(int(self.headers["Content-Length"]))
            moved = self.path == "/moved"
            self.send_response(201 if moved else status)
            for name, value in ({"Location": "resource/1"} if moved else headers or {}).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(b"v=0" if moved else body.encode())

        def do_DELETE(self) -> None:
            asked.append(f"DELETE {self.path} {self.headers.get('Authorization')}")
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_a_redirect_is_followed_with_the_offer_and_the_resource_is_deleted() -> None:
    with answering(307, {"Location": "/moved"}) as (url, asked):
        answer = post_offer(f"{url}/whip", "v=0", "token")
        assert (answer.sdp, answer.resource) == ("v=0", f"{url}/resource/1")
        assert answer.resource is not None
        delete_resource(answer.resource, "token")
    assert asked == ["POST /whip Bearer token", "POST /moved Bearer token", "DELETE /resource/1 Bearer token"]


@pytest.mark.parametrize(
    ("status", "body", "message"),
    [
        (401, "", TOKEN_VARIABLE),
        (404, "", "check the path"),
        (409, json.dumps({"detail": "No session streams: push a camera first."}), "No session streams: push"),
        (500, "<h1>oops</h1>", r"HTTP 500\): <h1>oops"),
    ],
)
def test_refusals_say_what_to_do(status: int, body: str, message: str) -> None:
    with answering(status, body=body) as (url, _), pytest.raises(LinkError, match=message):
        post_offer(f"{url}/whip", "v=0")


def test_a_redirect_in_a_circle_ends() -> None:
    with (
        answering(307, {"Location": "/whip"}) as (url, asked),
        pytest.raises(LinkError, match="again and again"),
    ):
        post_offer(f"{url}/whip", "v=0")
    assert len(asked) == 4
