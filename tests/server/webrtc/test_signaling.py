"""Sessions opened over HTTP by a WebRTC client on the same event loop: no part is a stand-in but the camera."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from fractions import Fraction
from pathlib import Path

import av
import httpx
import numpy as np
import pytest
from aiortc import MediaStreamTrack, RTCPeerConnection, RTCRtpSender, RTCSessionDescription

from personalive.server.routes import sessions, webrtc, whip
from personalive.server.server import Server
from tests.server.parts import client_of, encoded, loaded, portrait, running, until

ROUTERS = (webrtc.router, whip.router, sessions.router)


class Camera(MediaStreamTrack):
    """A grey picture, thirty times a second."""

    kind = "video"

    def __init__(self) -> None:
        super().__init__()
        self._count = 0

    async def recv(self) -> av.VideoFrame:
        await asyncio.sleep(1 / 30)
        frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 90, np.uint8), format="rgb24")
        frame.pts, frame.time_base = self._count, Fraction(1, 30)
        self._count += 1
        return frame


class Viewer:
    """Counts the frames of a connection."""

    def __init__(self, connection: RTCPeerConnection) -> None:
        self.frames = 0
        self.shape: tuple[int, int] | None = None
        self._tasks: list[asyncio.Task[None]] = []
        connection.on("track", lambda track: self._tasks.append(asyncio.ensure_future(self._watch(track))))

    async def _watch(self, track: MediaStreamTrack) -> None:
        while True:
            frame = await track.recv()
            assert isinstance(frame, av.VideoFrame)
            self.frames += 1
            self.shape = (frame.width, frame.height)


@asynccontextmanager
async def serving(tmp_path: Path, **settings: object) -> AsyncIterator[tuple[Server, httpx.AsyncClient]]:
    async with running(tmp_path, **settings) as server, client_of(server, ROUTERS) as client:
        await loaded(server.pipelines)
        await server.references.add(encoded(portrait()))
        yield server, client


def run(act: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(act(), 60))


async def offered(connection: RTCPeerConnection) -> str:
    await connection.setLocalDescription(await connection.createOffer())
    return connection.localDescription.sdp


async def accept(connection: RTCPeerConnection, sdp: str) -> None:
    await connection.setRemoteDescription(RTCSessionDescription(sdp, "answer"))


def test_an_offer_opens_a_session_and_delete_closes_it(tmp_path: Path) -> None:
    async def act() -> None:
        async with serving(tmp_path) as (server, client):
            connection = RTCPeerConnection()
            connection.addTrack(Camera())
            viewer = Viewer(connection)
            body = {"sdp": await offered(connection), "type": "offer"}
            # What other pipelines of the family know is ignored, our own is taken.
            body["initialParameters"] = {"input_mode": "video", "expression": 1.5}  # type: ignore[assignment]
            answer = (await client.post("/api/v1/webrtc/offer", json=body)).json()
            await accept(connection, answer["sdp"])
            await until(lambda: viewer.frames > 5)
            assert viewer.shape == (256, 256)
            told = (await client.get("/api/v1/sessions")).json()
            assert [one["id"] for one in told["sessions"]] == [answer["sessionId"]]
            assert told["sessions"][0]["parameters"]["expression"] == 1.5
            busy = await client.post("/api/v1/webrtc/offer", json=body)
            assert (busy.status_code, busy.headers["retry-after"]) == (503, "10")
            path = f"/api/v1/webrtc/offer/{answer['sessionId']}"
            candidate = {"candidate": "candidate:1 1 udp 2130706431 127.0.0.1 9 typ host", "sdpMid": "0"}
            assert (await client.patch(path, json={"candidates": [candidate, {}]})).status_code == 204
            bad = await client.patch(path, json={"candidates": [{"candidate": "nonsense"}]})
            assert bad.status_code == 400
            assert (await client.delete(path)).status_code == 204
            assert (await client.delete(path)).status_code == 204
            assert (await client.get(f"/api/v1/sessions/{answer['sessionId']}")).status_code == 404
            assert len(server.sessions) == 0
            await connection.close()

    run(act)


@pytest.mark.slow
@pytest.mark.parametrize("sdp", ["", "v=0\r\nnonsense", "v=0\r\no=- 0 0 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\n"])
def test_a_bad_offer_is_refused_and_leaves_nothing(tmp_path: Path, sdp: str) -> None:
    async def act() -> None:
        async with serving(tmp_path) as (server, client):
            answer = await client.post("/api/v1/webrtc/offer", json={"sdp": sdp, "type": "offer"})
            assert answer.status_code == 400
            assert answer.json()["detail"].startswith("The offer")
            assert len(server.sessions) == 0

    run(act)


@pytest.mark.slow
def test_without_pipeline_or_reference_there_is_no_session(tmp_path: Path) -> None:
    async def act() -> None:
        async with running(tmp_path) as server, client_of(server, ROUTERS) as client:
            body = {"sdp": "v=0", "type": "offer"}
            answer = await client.post("/api/v1/webrtc/offer", json=body)
            assert (answer.status_code, "pipeline/load" in answer.json()["detail"]) == (409, True)
            await loaded(server.pipelines)
            answer = await client.post("/api/v1/webrtc/offer", json=body)
            assert (answer.status_code, "no reference" in answer.json()["detail"]) == (409, True)
            server.draining = True
            assert (await client.post("/api/v1/webrtc/offer", json=body)).status_code == 503

    run(act)


def test_one_pushes_by_whip_and_two_watch_by_whep(tmp_path: Path) -> None:
    async def act() -> None:
        async with serving(tmp_path) as (server, client):
            sdp = {"Content-Type": "application/sdp"}
            assert (await client.post("/whep", content="v=0", headers=sdp)).status_code == 409
            camera = RTCPeerConnection()
            camera.addTransceiver(Camera(), "sendonly")
            pushed = await client.post("/whip", content=await offered(camera), headers=sdp)
            assert (pushed.status_code, pushed.headers["content-type"]) == (201, "application/sdp")
            await accept(camera, pushed.text)
            watching = []
            for _ in range(2):
                connection = RTCPeerConnection()
                connection.addTransceiver("video", "recvonly")
                viewer = Viewer(connection)
                pulled = await client.post("/whep", content=await offered(connection), headers=sdp)
                assert pulled.status_code == 201
                await accept(connection, pulled.text)
                watching.append((connection, viewer, pulled.headers["location"]))
            await until(lambda: all(viewer.frames > 5 for _, viewer, _ in watching))
            trickle = {"Content-Type": "application/trickle-ice-sdpfrag"}
            fragment = "a=mid:0\r\na=candidate:1 1 udp 2130706431 127.0.0.1 9 typ host\r\na=end-of-candidates"
            location = pushed.headers["location"]
            assert (await client.patch(location, content=fragment, headers=trickle)).status_code == 204
            assert (await client.post("/whip", content="v=0", headers=trickle)).status_code == 415
            # A viewer who leaves takes nobody along; the camera that leaves ends it for all.
            assert (await client.delete(watching[0][2])).status_code == 200
            assert (await client.delete(watching[0][2])).status_code == 404
            assert len(server.sessions) == 1
            assert (await client.delete(location)).status_code == 200
            assert len(server.sessions) == 0
            assert (await client.delete(watching[1][2])).status_code == 404
            for connection, _, _ in watching:
                await connection.close()
            await camera.close()

    run(act)


@pytest.mark.slow
@pytest.mark.parametrize("parameters", ["profile-level-id=640c1f;packetization-mode=0", None])
def test_h264_of_another_profile_drives_a_session(tmp_path: Path, parameters: str | None) -> None:
    async def act() -> None:
        async with serving(tmp_path) as (server, client):
            camera = RTCPeerConnection()
            transceiver = camera.addTransceiver(Camera(), "sendonly")
            known = RTCRtpSender.getCapabilities("video")
            assert known is not None
            transceiver.setCodecPreferences([one for one in known.codecs if one.name == "H264"][:1])
            own = await offered(camera)
            fmtp = next(line for line in own.splitlines() if line.startswith("a=fmtp:"))
            number = fmtp.partition(" ")[0]
            other = "a=x-none" if parameters is None else f"{number} {parameters}"
            headers = {"Content-Type": "application/sdp"}
            pushed = await client.post("/whip", content=own.replace(fmtp, other), headers=headers)
            assert pushed.status_code == 201
            told = [line for line in pushed.text.splitlines() if line.startswith("a=fmtp:")]
            assert [line.split(" ")[1].split(";")[-1] for line in told] == (
                [] if parameters is None else ["profile-level-id=640c1f"]
            )
            # The client's own library would not know its offer again.
            rtpmap = next(line for line in pushed.text.splitlines() if line.startswith("a=rtpmap:"))
            text = "".join(f"{line}\r\n" for line in pushed.text.splitlines() if line not in told)
            await accept(camera, text.replace(rtpmap, f"{rtpmap}\r\n{fmtp}"))
            stream = server.sessions.all()[0]
            await until(lambda: int(str(stream.stats()["frames_out"])) > 2)
            await camera.close()

    run(act)


@pytest.mark.slow
def test_a_client_that_never_connects_gives_its_slot_back(tmp_path: Path) -> None:
    async def act() -> None:
        async with serving(tmp_path, connect_timeout_s=0.5) as (server, client):
            connection = RTCPeerConnection()
            connection.addTrack(Camera())
            body = {"sdp": await offered(connection), "type": "offer"}
            assert (await client.post("/api/v1/webrtc/offer", json=body)).status_code == 200
            assert len(server.sessions) == 1
            await until(lambda: len(server.sessions) == 0, within=5)
            await connection.close()

    run(act)
