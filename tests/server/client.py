"""A client of the server, as a browser is one: a camera, a peer connection, the data channel `parameters`.

    python -m tests.server.client --url http://127.0.0.1:8000 --fps 30 --seconds 10 --json out.json

It posts a reference, streams, and says what came back and when.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import re
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import av
import httpx
import numpy as np
from aiortc import (
    MediaStreamTrack,
    RTCConfiguration,
    RTCDataChannel,
    RTCPeerConnection,
    RTCRtpReceiver,
    RTCSessionDescription,
)
from aiortc.mediastreams import MediaStreamError

from personalive.media import Image
from personalive.server.webrtc.ice_consent import accept_late_answers
from tests.server import barcode
from tests.server.camera import GROWING, SMALL, Camera, Size, footage
from tests.server.report import Message, Report, Seen

SAMPLES = Path(__file__).resolve().parents[2] / "src/personalive/samples"
PORTRAIT, CLIP = SAMPLES / "portrait.jpg", SAMPLES / "driving.mp4"
PATIENCE = 20.0
"""Seconds that anything may take which is awaited here."""


class Client:
    """One client with one session at most. `report` grows while it streams."""

    def __init__(
        self, url: str, camera: Camera | None = None, *, key: str | None = None, codec: str | None = None
    ) -> None:
        headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        self.http = httpx.AsyncClient(base_url=url, headers=headers, timeout=PATIENCE)
        self.camera = camera or Camera(30)
        self.report = Report(fps=self.camera.fps, codec=codec, captured=self.camera.captured)
        self.id: str | None = None
        self.peer = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        self.channel: RTCDataChannel | None = None
        self._news = asyncio.Condition()
        self._tasks: set[asyncio.Task[None]] = set()

    async def post_reference(self, picture: bytes) -> dict[str, Any]:
        """Make it the default reference; what the server says of it."""
        answer = await self.http.post("/api/v1/personalive/reference", content=picture)
        answer.raise_for_status()
        found: dict[str, Any] = answer.json()
        return found

    async def offer(self, *, trickle: bool = False) -> str:
        """The SDP to offer. With `trickle` it says nothing of where this client can be reached."""
        transceiver = self.peer.addTransceiver(self.camera, direction="sendrecv")
        if self.report.codec is not None:
            known = RTCRtpReceiver.getCapabilities("video")
            assert known is not None
            wanted = [one for one in known.codecs if one.name in {self.report.codec, "rtx"}]
            transceiver.setCodecPreferences(wanted)
        self.peer.on("track", self._on_track)
        self.peer.on("connectionstatechange", self._on_state)
        self.channel = self.peer.createDataChannel("parameters")
        self.channel.on("message", self._on_message)
        await self.peer.setLocalDescription(await self.peer.createOffer())
        lines = self.peer.localDescription.sdp.splitlines(keepends=True)
        hidden = ("a=candidate:", "a=end-of-candidates")
        return "".join(line for line in lines if not (trickle and line.startswith(hidden)))

    async def connect(self, *, trickle: bool = False, parameters: Mapping[str, object] | None = None) -> None:
        """Open a session and wait until it is connected. Raises `httpx.HTTPStatusError` where that is refused."""
        body: dict[str, object] = {"sdp": await self.offer(trickle=trickle), "type": "offer"}
        if parameters is not None:
            body["initialParameters"] = dict(parameters)
        answer = await self.http.post("/api/v1/webrtc/offer", json=body)
        answer.raise_for_status()
        self.id = answer.json()["sessionId"]
        await self.peer.setRemoteDescription(RTCSessionDescription(answer.json()["sdp"], "answer"))
        self.report.codec = _codec(answer.json()["sdp"])
        if trickle:
            await self._trickle()
        await self.until(lambda: self.peer.connectionState == "connected", "a connection")
        channel = self.channel
        await self.until(lambda: channel is not None and channel.readyState == "open", "the data channel")

    async def _trickle(self) -> None:
        found = []
        for index, part in enumerate(self.peer.localDescription.sdp.split("\r\nm=")[1:]):
            lines = part.split("\r\n")
            mid = next(line.removeprefix("a=mid:") for line in lines if line.startswith("a=mid:"))
            found += [
                {"candidate": line.removeprefix("a="), "sdpMid": mid, "sdpMLineIndex": index}
                for line in lines
                if line.startswith("a=candidate:")
            ]
        for given in ([one] for one in [*found, {"candidate": "", "sdpMid": "0", "sdpMLineIndex": 0}]):
            path = f"/api/v1/webrtc/offer/{self.id}"
            (await self.http.patch(path, json={"candidates": given})).raise_for_status()

    def send(self, message: object) -> None:
        """Over the data channel: text and bytes as they are, anything else as JSON."""
        assert self.channel is not None
        self.channel.send(message if isinstance(message, str | bytes) else json.dumps(message))

    async def ask(self, message: object, kind: str) -> Message:
        """Send it, and the first message of that type that comes after."""
        before = len(self.report.told(kind))
        self.send(message)
        return await self.told(kind, after=before)

    async def told(self, kind: str, *, after: int = 0, within: float = PATIENCE) -> Message:
        """Return the message of that type that comes after `after` others."""
        await self.until(lambda: len(self.report.told(kind)) > after, f"a message {kind!r}", within)
        return self.report.told(kind)[after]

    async def frames(self, count: int, within: float = PATIENCE) -> list[Seen]:
        """Wait for that number of frames from now on."""
        begin = len(self.report.seen)
        await self.until(lambda: len(self.report.seen) >= begin + count, f"{count} frames", within)
        return self.report.seen[begin:]

    async def gone(self) -> None:
        """The connection has been closed by the other side."""
        await self.until(lambda: self.report.ended is not None, "the end of the connection")

    async def until(self, done: Callable[[], bool], what: str, within: float = PATIENCE) -> None:
        """Wait for it. Raises `TimeoutError`, saying what was waited for."""
        try:
            async with asyncio.timeout(within), self._news:
                await self._news.wait_for(done)
        except TimeoutError:
            state = self.peer.connectionState
            raise TimeoutError(
                f"{what} did not come within {within:g} s; peer {state}, {self.report.summary()}, "
                f"last told {self.report.messages[-3:]}"
            ) from None

    async def close(self) -> None:
        """End the session, if there is one, and the connection. May be called twice."""
        if self.http.is_closed:
            return
        if self.id is not None:
            with contextlib.suppress(httpx.HTTPError):  # a server that has gone needs no telling
                await self.http.delete(f"/api/v1/webrtc/offer/{self.id}")
        self.camera.stop()
        await self.peer.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def _on_track(self, track: MediaStreamTrack) -> None:
        self._keep(self._watch(track))

    async def _watch(self, track: MediaStreamTrack) -> None:
        with contextlib.suppress(MediaStreamError):
            while True:
                frame = await track.recv()
                now = time.monotonic()
                assert isinstance(frame, av.VideoFrame)
                number = barcode.read(_brightness(frame))
                known = number is not None and number < len(self.camera.captured)
                captured = self.camera.captured[number] if known and number is not None else None
                number = number if known else None
                self.report.seen.append(Seen(number, captured, now, frame.width, frame.height))
                await self._tell()
        self.report.ended = self.report.ended or "track ended"
        await self._tell()

    def _on_message(self, message: str | bytes) -> None:
        self.report.messages.append((time.monotonic(), json.loads(message)))
        self._keep(self._tell())

    def _on_state(self) -> None:
        if self.peer.connectionState in {"failed", "closed"}:
            self.report.ended = self.peer.connectionState
        self._keep(self._tell())

    async def _tell(self) -> None:
        async with self._news:
            self._news.notify_all()

    def _keep(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _codec(sdp: str) -> str:
    """The codec that an answer puts first."""
    found = re.search(r"^m=video \d+ \S+ (\d+).*?^a=rtpmap:\1 (\w+)", sdp, re.MULTILINE | re.DOTALL)
    return "none" if found is None else found[2]


def _size(text: str) -> Size:
    """Width and height from text such as 640x480."""
    width, _, height = text.partition("x")
    return int(width), int(height)


def _brightness(frame: av.VideoFrame) -> Image:
    if frame.format.name not in {"yuv420p", "yuvj420p"}:
        frame = frame.reformat(format="yuv420p")
    plane = frame.planes[0]
    rows: Image = np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)
    return rows[: frame.height, : frame.width]


@contextlib.asynccontextmanager
async def streaming(
    url: str, camera: Camera | None = None, *, reference: bytes | None = None, **wishes: Any
) -> AsyncIterator[Client]:
    """A client whose session is connected; posts `reference`, by default the sample portrait."""
    connection = {name: wishes.pop(name) for name in ("trickle", "parameters") if name in wishes}
    async with Client(url, camera, **wishes) as client:
        await client.post_reference(PORTRAIT.read_bytes() if reference is None else reference)
        await client.connect(**connection)
        yield client


async def run(args: argparse.Namespace) -> Report:
    """The client of the command line."""
    scene = footage(CLIP) if args.face else None
    sizes = SMALL if args.size is None else ((0.0, args.size),)
    camera = Camera(args.fps, GROWING if args.growing else sizes, scene)
    client = Client(args.url, camera, key=args.key, codec=args.codec)
    if not args.no_reference:
        await client.post_reference(args.reference.read_bytes())
    await client.connect(trickle=args.trickle)
    print("connected", flush=True)
    with contextlib.suppress(TimeoutError):
        await client.until(lambda: client.report.ended is not None, "the end", args.seconds)
    if args.json is not None:
        client.report.save(args.json)
    print(json.dumps(client.report.summary()), flush=True)
    if args.vanish:
        os._exit(0)
    await client.close()
    return client.report


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--url", required=True)
    parser.add_argument("--key", help="the server's API key")
    parser.add_argument("--fps", type=float, default=30)
    parser.add_argument(
        "--seconds", type=float, default=10, help="stream for so long, or until the server ends"
    )
    parser.add_argument("--codec", choices=("H264", "VP8"))
    parser.add_argument("--size", type=_size, metavar="WxH", help="of the camera; default: 480x270")
    parser.add_argument("--growing", action="store_true", help="480x270 first, then growing to 1280x720")
    parser.add_argument("--face", action="store_true", help="show the sample clip instead of numbers")
    parser.add_argument("--trickle", action="store_true", help="send the candidates after the offer")
    parser.add_argument("--reference", type=Path, default=PORTRAIT)
    parser.add_argument("--no-reference", action="store_true", help="post none: the server has one")
    parser.add_argument("--vanish", action="store_true", help="leave without a word")
    parser.add_argument("--json", type=Path, help="where to write all that came")
    accept_late_answers()  # as browsers do
    asyncio.run(run(parser.parse_args()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
