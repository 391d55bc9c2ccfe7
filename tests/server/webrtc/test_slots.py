"""Who gets a place, and who gives it back: viewers and sessions whose clients leave, or never connect."""

from __future__ import annotations

import asyncio
import logging
import re
import socket
import time
import uuid
from collections.abc import Awaitable, Callable
from pathlib import Path

import httpx
import pytest
from aiortc import RTCPeerConnection
from pydantic import SecretStr

from personalive.server.sessions import session_manager
from personalive.server.webrtc.port_range_loop import make_loop_factory
from tests.server.parts import until
from tests.server.webrtc.test_port_range_loop import free_range
from tests.server.webrtc.test_signaling import Camera, Viewer, accept, offered, serving

SDP = {"Content-Type": "application/sdp"}


def run(act: Callable[[], Awaitable[None]], ports: range | None = None) -> None:
    with asyncio.Runner(loop_factory=make_loop_factory(ports)) as runner:
        runner.run(asyncio.wait_for(act(), 90))


async def camera_offer() -> tuple[RTCPeerConnection, str]:
    connection = RTCPeerConnection()
    connection.addTransceiver(Camera(), "sendonly")
    return connection, await offered(connection)


async def push(client: httpx.AsyncClient) -> httpx.Response:
    """An offer whose client is never heard of again."""
    connection, sdp = await camera_offer()
    answer = await client.post("/whip", content=sdp, headers=SDP)
    await connection.close()
    return answer


async def pull(client: httpx.AsyncClient) -> httpx.Response:
    connection = RTCPeerConnection()
    connection.addTransceiver("video", "recvonly")
    answer = await client.post("/whep", content=await offered(connection), headers=SDP)
    await connection.close()
    return answer


@pytest.mark.slow
def test_viewers_who_never_connect_are_counted_and_let_go(tmp_path: Path) -> None:
    async def act() -> None:
        async with serving(tmp_path, connect_timeout_s=2.5, max_viewers=2) as (server, client):
            assert (await push(client)).status_code == 201
            stream = server.sessions.all()[0]
            first, second, third = [await pull(client) for _ in range(3)]
            assert (first.status_code, second.status_code, third.status_code) == (201, 201, 503)
            assert third.headers["retry-after"] == "10"
            assert "--max-viewers" in third.json()["detail"]
            for _ in range(100):  # the session itself would end for want of a connection too
                stream.last_frame_at = time.monotonic()
                if not server.signaling._viewers:
                    break
                await asyncio.sleep(0.1)
            assert not server.signaling._viewers
            assert (await client.delete(first.headers["location"])).status_code == 404

    run(act)


@pytest.mark.slow
def test_no_viewers_at_all_may_be_wanted(tmp_path: Path) -> None:
    async def act() -> None:
        async with serving(tmp_path, max_viewers=0) as (_, client):
            assert (await push(client)).status_code == 201
            assert (await pull(client)).status_code == 503

    run(act)


def test_a_newcomer_takes_the_place_of_a_silent_session_only(tmp_path: Path) -> None:
    async def act() -> None:
        async with serving(tmp_path) as (server, client):
            assert (await push(client)).status_code == 201
            assert (await push(client)).status_code == 503  # it may be connecting still
            first = server.sessions.all()[0]
            told: list[dict[str, object]] = []
            first.add_message_listener(told.append)
            first.last_frame_at -= session_manager._SILENCE_TIMEOUT_S
            await first.set_paused(True)
            assert (await push(client)).status_code == 503
            await first.set_paused(False)
            assert (await push(client)).status_code == 201
            assert first.ended
            assert told[-1]["type"] == "stream_stopped"
            assert "another client" in str(told[-1]["error_message"])
            (second,) = server.sessions.all()
            second.last_frame_at -= session_manager._SILENCE_TIMEOUT_S
            assert (await push(client)).status_code == 201
            assert second.ended

    run(act)


@pytest.mark.slow
def test_the_longest_silent_one_goes_and_those_with_video_stay(tmp_path: Path) -> None:
    async def act() -> None:
        async with serving(tmp_path, max_sessions=3) as (server, client):
            for _ in range(3):
                assert (await push(client)).status_code == 201
            lively, silent, longest = server.sessions.all()
            silent.last_frame_at -= session_manager._SILENCE_TIMEOUT_S
            longest.last_frame_at -= 2 * session_manager._SILENCE_TIMEOUT_S
            assert (await push(client)).status_code == 201
            assert [stream.ended for stream in (lively, silent, longest)] == [False, False, True]

    run(act)


@pytest.mark.slow
def test_without_a_port_left_an_offer_is_answered_later(tmp_path: Path) -> None:
    async def act() -> None:
        async with serving(tmp_path, max_sessions=4) as (server, client):
            taken = 0
            while (answer := await push(client)).status_code == 201:
                taken += 1
                assert "a=candidate:" in answer.text
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "10")
            assert "--udp-ports" in answer.json()["detail"]
            assert len(server.sessions) == taken > 0
            assert (await pull(client)).status_code == 503
            await server.sessions.all()[0].end("client_closed")
            async with asyncio.timeout(20):  # its sockets are closed when its last message has left
                while (await push(client)).status_code != 201:
                    await asyncio.sleep(0.2)

    run(act, free_range(2))


def hide(sdp: str) -> str:
    """With a name instead of each address, as browsers give them, which nobody here resolves."""
    return re.sub(
        r"(a=candidate:\S+ \d \S+ \d+ )\S+( \d+ typ host)",
        lambda found: f"{found[1]}{uuid.uuid4()}.local{found[2]}",
        sdp,
    )


@pytest.mark.slow
@pytest.mark.parametrize("ends", [True, False])
def test_names_that_nobody_resolves_keep_nobody_from_connecting(tmp_path: Path, ends: bool) -> None:
    async def act() -> None:
        async with serving(tmp_path) as (_, client):
            connection = RTCPeerConnection()
            connection.addTrack(Camera())
            viewer = Viewer(connection)
            sdp = hide(await offered(connection))
            assert ".local" in sdp
            if not ends:
                sdp = sdp.replace("a=end-of-candidates\r\n", "")
            answer = (await client.post("/api/v1/webrtc/offer", json={"sdp": sdp, "type": "offer"})).json()
            path = f"/api/v1/webrtc/offer/{answer['sessionId']}"
            more = {"candidate": f"candidate:9 1 udp 1 {uuid.uuid4()}.local 9 typ host", "sdpMid": "0"}
            assert (await client.patch(path, json={"candidates": [more, {}]})).status_code == 204
            await accept(connection, answer["sdp"])
            await until(lambda: viewer.frames > 3)
            await connection.close()

    run(act)


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "reports"), [("stun", 2), ("turn", 1)])
def test_dead_servers_are_reported_and_not_waited_for(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, kind: str, reports: int
) -> None:
    """The library alone would wait for five seconds. A TURN server is not asked again soon."""

    async def act(address: str) -> None:
        urls: dict[str, object] = {f"{kind}_urls": (f"{kind}:{address}",)}
        if kind == "turn":
            urls |= {"turn_username": "studio", "turn_password": SecretStr("secret")}
        async with serving(tmp_path, **urls, max_sessions=2) as (_, client):
            for _ in range(2):
                begun = time.monotonic()
                answer = await push(client)
                took = time.monotonic() - begun
                assert (answer.status_code, "a=candidate:" in answer.text) == (201, True)
                assert took < 4.5

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent, caplog.at_level(logging.WARNING):
        silent.bind(("0.0.0.0", 0))
        own = socket.gethostbyname(socket.gethostname())
        run(lambda: act(f"{own}:{silent.getsockname()[1]}"))
    lines = [line for line in caplog.records if line.getMessage() == "ice_server_timeout"]
    assert [line.__dict__["personalive_fields"]["kind"] for line in lines] == [kind] * reports


@pytest.mark.slow
@pytest.mark.parametrize("depth", [1, 400, 900])
def test_a_reference_that_is_no_text_is_refused(tmp_path: Path, depth: int) -> None:
    async def act() -> None:
        async with serving(tmp_path) as (_, client):
            nested: object = 7
            for _ in range(depth):
                nested = [nested]
            body = {"sdp": "v=0", "type": "offer", "initialParameters": {"reference_id": nested}}
            answer = await client.post("/api/v1/webrtc/offer", json=body)
            assert (answer.status_code, answer.json()["detail"]) == (422, "reference_id must be text.")

    run(act)
