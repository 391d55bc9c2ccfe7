"""An RTSP camera (RFC 2326) made here: H.264 over the connection itself, as cameras send it over TCP."""

from __future__ import annotations

import contextlib
import socket
import socketserver
import struct
import threading
import time
from collections.abc import Iterator
from fractions import Fraction

import av
import numpy as np

FPS = 25
_SDP = "\r\n".join(
    [
        "v=0",
        "o=- 1 1 IN IP4 127.0.0.1",
        "s=camera",
        "c=IN IP4 0.0.0.0",
        "t=0 0",
        "m=video 0 RTP/AVP 96",
        "a=rtpmap:96 H264/90000",
        "a=fmtp:96 packetization-mode=1",
        "a=control:track0",
        "",
    ]
)


class RtspServer(socketserver.ThreadingTCPServer):
    """Each connection gets a stream; one that began before `cut` was called ends then."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Connection)
        self.started = 0
        self.cut_at = 0.0

    @property
    def url(self) -> str:
        return f"rtsp://127.0.0.1:{self.server_address[1]}/live"

    def cut(self) -> None:
        """End all streams that there are."""
        self.cut_at = time.monotonic()


class _Connection(socketserver.StreamRequestHandler):
    server: RtspServer

    def handle(self) -> None:
        with contextlib.suppress(OSError):
            while request := self._read_request():
                method, sequence = request
                if method == "PLAY":
                    self._answer(sequence, "Session: 1")
                    self._stream()
                    return
                if method == "DESCRIBE":
                    self._answer(sequence, "Content-Type: application/sdp", body=_SDP)
                elif method == "SETUP":
                    self._answer(sequence, "Session: 1", "Transport: RTP/AVP/TCP;unicast;interleaved=0-1")
                else:
                    self._answer(sequence, "Public: OPTIONS, DESCRIBE, SETUP, PLAY, TEARDOWN")

    def _read_request(self) -> tuple[str, str] | None:
        lines: list[str] = []
        while (line := self.rfile.readline().decode().strip()) or not lines:
            if not line:
                return None
            lines.append(line)
        sequence = next(each.partition(":")[2].strip() for each in lines if each.lower().startswith("cseq"))
        return lines[0].split()[0], sequence

    def _answer(self, sequence: str, *headers: str, body: str = "") -> None:
        lines = ["RTSP/1.0 200 OK", f"CSeq: {sequence}", *headers, f"Content-Length: {len(body)}", "", body]
        self.wfile.write("\r\n".join(lines).encode())

    def _stream(self) -> None:
        """Let FFmpeg make packets for a socket of ours, and pass each on within the connection."""
        begun = time.monotonic()
        self.server.started += 1
        with (
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as packets,
            av.open(f"rtp://127.0.0.1:{_bound(packets)}", "w", format="rtp") as container,
        ):
            packets.settimeout(0.01)
            video = container.add_stream("libx264", rate=FPS)
            video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
            video.options = {"tune": "zerolatency", "g": "5", "x264-params": "repeat-headers=1"}
            number = 0
            while self.server.cut_at < begun:
                image = np.full((48, 64, 3), 40 + number % 200, np.uint8)
                frame = av.VideoFrame.from_ndarray(image, format="rgb24")
                frame.pts, frame.time_base = number, Fraction(1, FPS)
                container.mux(video.encode(frame))
                with contextlib.suppress(TimeoutError):
                    while True:
                        packet = packets.recv(65_536)
                        self.wfile.write(b"$" + struct.pack(">BH", 0, len(packet)) + packet)
                number += 1
                time.sleep(max(begun + number / FPS - time.monotonic(), 0))


def _bound(packets: socket.socket) -> int:
    packets.bind(("127.0.0.1", 0))
    port: int = packets.getsockname()[1]
    return port


@contextlib.contextmanager
def rtsp_camera() -> Iterator[RtspServer]:
    """A camera that runs."""
    with RtspServer() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.cut()
            server.shutdown()
            thread.join()
