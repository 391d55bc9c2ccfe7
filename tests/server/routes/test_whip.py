"""WHIP and WHEP as HTTP: what RFC 9725 wants besides the media, without a network."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from personalive.server.routes import health, whip
from personalive.server.server import Server
from tests.server.parts import client_of, encoded, loaded, portrait, running, until
from tests.server.webrtc.offers import Coding, Offer, Part

SDP = {"Content-Type": "application/sdp"}
FRAGMENT = {"Content-Type": "application/trickle-ice-sdpfrag"}
VP8 = Coding("VP8", 90_000, sent=True)
CAMERA = Offer([Part("video", [(96, VP8)], mid="0")]).text()
VIEWER = CAMERA.replace("a=sendonly", "a=recvonly")
CANDIDATE = "a=mid:0\r\na=candidate:1 1 udp 2130706431 127.0.0.1 9 typ host\r\n"
TURN: dict[str, Any] = {
    "stun_urls": ("stun:stun.example.com:3478",),
    "turn_urls": ("turn:turn.example.com:3478",),
    "turn_username": "studio",
    "turn_password": 'with"quote',
}


@asynccontextmanager
async def serving(
    tmp_path: Path, pipeline: str = "echo", **settings: Any
) -> AsyncIterator[tuple[Server, httpx.AsyncClient]]:
    routers = (whip.router, health.router)
    async with running(tmp_path, **settings) as server, client_of(server, routers) as client:
        await loaded(server.pipelines, pipeline)
        await server.references.add(encoded(portrait()))
        yield server, client


def run(act: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(act(), 60))


def test_what_was_created_can_be_patched_by_its_own_etag_only(plugins: None, tmp_path: Path) -> None:
    async def act() -> None:
        async with serving(tmp_path) as (server, client):
            pushed = await client.post("/whip", content=CAMERA, headers=SDP)
            pulled = await client.post("/whep", content=VIEWER, headers=SDP)
            assert (pushed.status_code, pulled.status_code) == (201, 201)
            assert pushed.headers["etag"] != pulled.headers["etag"]
            for answer, username in ((pushed, "abcd"), (pulled, "abcd")):
                assert answer.headers["accept-patch"] == FRAGMENT["Content-Type"]
                where, tag = answer.headers["location"], answer.headers["etag"]
                assert tag.startswith('"')
                told = f"a=ice-ufrag:{username}\r\na=ice-pwd:abcdefghijklmnopqrstuvwx\r\n{CANDIDATE}"
                for given, status in (
                    (tag, 204),
                    (f'"x", {tag}', 204),
                    ("*", 204),
                    ('"x"', 412),
                    (None, 204),
                ):
                    headers = FRAGMENT | ({} if given is None else {"If-Match": given})
                    patched = await client.patch(where, content=told, headers=headers)
                    assert (given, patched.status_code) == (given, status)
                # ICE is not restarted, which a client may ask for under any name.
                anew = told.replace(username, "wxyz")
                patched = await client.patch(where, content=anew, headers=FRAGMENT | {"If-Match": "*"})
                assert (patched.status_code, "POST a new offer" in patched.json()["detail"]) == (422, True)
                wrong = await client.patch(where, content=told, headers=SDP)
                assert (wrong.status_code, wrong.headers["accept-patch"]) == (415, FRAGMENT["Content-Type"])
            assert (await client.post("/whip", content=CAMERA, headers=FRAGMENT)).headers["accept-post"]
            await server.sessions.all()[0].end("client_closed")
            gone = await client.patch(pushed.headers["location"], content=CANDIDATE, headers=FRAGMENT)
            assert gone.status_code == 404

    run(act)


@pytest.mark.slow
def test_ice_servers_are_named_in_a_field_each(plugins: None, tmp_path: Path) -> None:
    async def act() -> None:
        async with serving(tmp_path, **TURN) as (_, client):
            for answer in (await client.options("/whip"), await client.options("/whep")):
                assert answer.status_code == 204
                assert answer.headers["accept-post"] == "application/sdp"
                assert answer.headers.get_list("link") == [
                    '<stun:stun.example.com:3478>; rel="ice-server"',
                    '<turn:turn.example.com:3478>; rel="ice-server"; username="studio"; '
                    'credential="with\\"quote"; credential-type="password"',
                ]
            about = await client.options("/whip/any")
            assert (about.status_code, about.headers["accept-patch"]) == (204, FRAGMENT["Content-Type"])
            assert (await client.get("/whip")).status_code == 405

    run(act)


def test_a_session_tells_of_the_ice_servers_too(plugins: None, tmp_path: Path) -> None:
    async def act() -> None:
        async with serving(tmp_path) as (server, client):
            assert "link" not in (await client.options("/whip")).headers
            # Set later, so that this server does not ask them for its addresses.
            server.settings = server.settings.model_copy(update=TURN | {"turn_password": None})
            pushed = await client.post("/whip", content=CAMERA, headers=SDP)
            assert len(pushed.headers.get_list("link")) == 2

    run(act)


@pytest.mark.slow
def test_who_has_much_to_do_says_so_in_time_and_goes_on(
    plugins: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(whip, "_ANSWER_TIMEOUT_S", 0.3)

    async def act() -> None:
        async with serving(tmp_path) as (server, client):
            held = asyncio.ensure_future(
                server.workers[0].call(time.sleep, 2.0)
            )  # as a load on the GPU would
            for _ in range(2):
                busy = await client.post("/whip", content=CAMERA, headers=SDP)
                assert (busy.status_code, busy.headers["retry-after"]) == (503, "5")
            await held
            monkeypatch.setattr(whip, "_ANSWER_TIMEOUT_S", 20.0)
            pushed = await client.post("/whip", content=CAMERA, headers=SDP)
            assert pushed.status_code == 201
            assert len(server.sessions) == 1

    run(act)


@pytest.mark.slow
def test_while_a_pipeline_is_loaded_an_offer_is_to_come_again(plugins: None, tmp_path: Path) -> None:
    async def act() -> None:
        async with serving(tmp_path, "paced") as (server, client):
            await server.pipelines.load("paced", {"width": 256, "height": 320, "loading": 1.0})
            busy = await client.post("/whip", content=CAMERA, headers=SDP)
            assert (busy.status_code, busy.headers["retry-after"]) == (503, "5")
            assert "being loaded" in busy.json()["detail"]
            await until(lambda: server.pipelines.pipeline is not None)
            assert (await client.post("/whip", content=CAMERA, headers=SDP)).status_code == 201

    run(act)


def test_an_offer_waits_for_the_portrait_of_the_start(plugins: None, tmp_path: Path) -> None:
    async def act() -> None:
        async with running(tmp_path) as server, client_of(server, (whip.router, health.router)) as client:
            await loaded(server.pipelines, "echo")
            server.references.pending_message = "The portrait is being prepared."
            for answer in (
                await client.post("/whip", content=CAMERA, headers=SDP),
                await client.get("/health/ready"),
            ):
                assert (answer.status_code, "being prepared" in answer.json()["detail"]) == (503, True)
                assert "retry-after" in answer.headers
            server.references.pending_message, server.references.default_error = (
                None,
                "That portrait has no face.",
            )
            refused = await client.post("/whip", content=CAMERA, headers=SDP)
            assert (refused.status_code, "has no face: POST" in refused.json()["detail"]) == (409, True)
            assert (await client.get("/health/ready")).status_code == 503
            await server.references.add(encoded(portrait()))
            assert (await client.get("/health/ready")).status_code == 200

    run(act)
