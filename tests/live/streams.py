"""Streams over HTTP as cameras of a network send them, made here."""

from __future__ import annotations

import contextlib
import io
import threading
from collections.abc import Callable, Iterator
from fractions import Fraction
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import av
import cv2
import numpy as np

from tests.server.flashes import PERIOD_S, RATE, clicks

BOUNDARY = "frame"
_FLASH_SIZE, _FLASH_FPS, _FLASH_FRAMES = (320, 240), 30, 6
Send = Callable[[bytes], None]
Script = Callable[[int, Send], None]
"""Called for each request with its number, from 0, and what sends bytes; the answer ends when it returns."""


def jpeg(brightness: int) -> bytes:
    """A grey picture; compressed, its brightness is off by one or two."""
    done, data = cv2.imencode(".jpg", np.full((48, 64, 3), brightness, np.uint8))
    assert done
    return data.tobytes()


def part(picture: bytes) -> bytes:
    """A picture as a part of a multipart stream."""
    head = f"--{BOUNDARY}\r\nContent-Type: image/jpeg\r\nContent-Length: {len(picture)}\r\n\r\n"
    return head.encode() + picture + b"\r\n"


def mpegts(frames: int) -> bytes:
    """An MPEG transport stream of H.264, each frame brighter than the one before."""
    file = io.BytesIO()
    with av.open(file, "w", format="mpegts") as container:
        video = container.add_stream("libx264", rate=25, options={"tune": "zerolatency", "g": "5"})
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        for number in range(frames):
            frame = av.VideoFrame.from_ndarray(
                np.full((48, 64, 3), 40 + 4 * number, np.uint8), format="rgb24"
            )
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
    return file.getvalue()


@contextlib.contextmanager
def serving(script: Script, content_type: str) -> Iterator[str]:
    """A server on this machine whose every answer `script` sends; its address."""
    count = iter(range(1_000_000))

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", content_type)
            self.send_header("Connection", "close")
            self.end_headers()
            with contextlib.suppress(OSError):
                script(next(count), self.wfile.write)  # type: ignore[arg-type]

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/camera"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


MJPEG = f"multipart/x-mixed-replace;boundary={BOUNDARY}"


def write_flashes(path: Path, seconds: float) -> None:
    """Write a clip that flashes and clicks; both begin at once, every `PERIOD_S` seconds."""
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=_FLASH_FPS, options={"preset": "ultrafast", "crf": "20"})
        video.width, video.height, video.pix_fmt = *_FLASH_SIZE, "yuv420p"
        sound = container.add_stream("aac", rate=RATE)
        sound.layout = "stereo"
        for number in range(round(seconds * _FLASH_FPS)):
            flashing = number % round(PERIOD_S * _FLASH_FPS) < _FLASH_FRAMES
            picture = np.full((_FLASH_SIZE[1], _FLASH_SIZE[0], 3), 240 if flashing else 30, np.uint8)
            container.mux(video.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            begin = number * RATE // _FLASH_FPS
            block = clicks(begin, (number + 1) * RATE // _FLASH_FPS - begin).astype(np.float32) / 32768
            frame = av.AudioFrame.from_ndarray(np.stack([block, block]), format="fltp", layout="stereo")
            frame.sample_rate, frame.pts, frame.time_base = RATE, begin, Fraction(1, RATE)
            container.mux(sound.encode(frame))
        container.mux(video.encode(None))
        container.mux(sound.encode(None))
