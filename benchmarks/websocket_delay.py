"""From the camera to the screen in Chromium, by WebRTC and by a WebSocket.

    python -m benchmarks.websocket_delay                      # both in turn on this machine, three times 60 s each
    python -m benchmarks.websocket_delay --mbit 2 --rtt 100   # five minutes by WebSocket over a slow line
    python -m benchmarks.websocket_delay --mbit 2 --rtt 100 --png creep.png

The page shows a camera whose frames carry numbers, and the result of a pipeline that shows what it was given. The
delay of a frame is the time from its being shown as the driver to its being shown as the result: encoding, the way
there, the server, the way back and decoding. The slow line is a TCP proxy, `shaped_link.py`.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from playwright.sync_api import Browser, sync_playwright

from benchmarks.curves import Curve, draw
from benchmarks.shaped_link import shaped_link
from tests.browser import chrome
from tests.server import barcode
from tests.server.camera import numbers
from tests.server.report import quantile
from tests.server.running import running

FPS = 30
SECONDS_OF_CAMERA = 30
SIZE = (480, 360)
LEAD_S = 8.0
"""Seconds after the first frame that do not count."""

Delays = list[tuple[float, float]]
"""Seconds since the beginning, and the delay in seconds."""

_MEASURE = """() => {
  const COLUMNS = 6, ROWS = 5, SPAN = 0.84;
  const read = (video, canvas) => {
    const side = Math.min(video.videoWidth, video.videoHeight);
    const context = canvas.getContext("2d", { willReadFrequently: true });
    const span = SPAN * side;
    const left = (video.videoWidth - span) / 2, top = (video.videoHeight - span) / 2;
    context.drawImage(video, left, top, span, span, 0, 0, 4 * COLUMNS, 4 * ROWS);
    const data = context.getImageData(0, 0, 4 * COLUMNS, 4 * ROWS).data;
    let number = 0;
    for (let place = 1; place <= 20; place++) {
      const row = Math.floor(place / COLUMNS), column = place % COLUMNS;
      if (data[4 * ((4 * row + 2) * 4 * COLUMNS + 4 * column + 2)] > 126) number += 2 ** (place - 1);
    }
    return number;
  };
  const film = (window.film = { driver: [], result: [] });
  for (const name of ["driver", "result"]) {
    const video = document.getElementById(`${name}-video`);
    const canvas = new OffscreenCanvas(4 * COLUMNS, 4 * ROWS);
    let last = -1;
    const look = (now) => {
      video.requestVideoFrameCallback(look);
      const number = read(video, canvas);
      if (number !== last) film[name].push([number, now / 1000]);
      last = number;
    };
    video.requestVideoFrameCallback(look);
  }
}"""


def write_numbers(path: Path) -> int:
    """Write a camera's film whose frames show their numbers; return how many there are."""
    scene, count = numbers(), FPS * SECONDS_OF_CAMERA
    with av.open(str(path), "w", format="mjpeg") as container:
        stream = container.add_stream("mjpeg", rate=FPS)
        stream.width, stream.height = SIZE
        stream.pix_fmt, stream.color_range = "yuvj420p", 2
        for number in range(count):
            frame = av.VideoFrame.from_ndarray(scene(number, SIZE), format="yuv420p")
            frame.pts, frame.time_base = number, Fraction(1, FPS)
            container.mux(stream.encode(frame.reformat(format="yuvj420p")))
        container.mux(stream.encode(None))
    return count


def match(film: dict[str, list[tuple[int, float]]], count: int) -> Delays:
    """Return the delay of each number that was seen in both; the film is played over and over."""
    shown: dict[int, list[float]] = {}
    for number, at in film["driver"]:
        shown.setdefault(number, []).append(at)
    begin = film["result"][0][1] if film["result"] else 0.0
    delays: Delays = []
    for number, at in film["result"]:
        before = [seen for seen in shown.get(number, []) if seen <= at] if number < count else []
        if before and at - before[-1] < SECONDS_OF_CAMERA / 2 and at - begin > LEAD_S:
            delays.append((at - begin, at - before[-1]))
    return delays


def measure(browser: Browser, url: str, transport: str, seconds: float, count: int) -> Delays:
    """Return the delays of one session."""
    with chrome.visiting(browser, url) as visit:
        visit.page.select_option("#transport", transport)
        visit.start("Camera")
        visit.wait_until_live(120)
        visit.page.evaluate(_MEASURE)
        time.sleep(LEAD_S + seconds)
        film: dict[str, Any] = visit.page.evaluate("window.film")
        said = visit.page.inner_text("#transport-used")
        figures = visit.page.inner_text(".figures").split("\n")
        visit.page.get_by_role("button", name="Stop", exact=True).click()
    print(f"  {said} {' '.join(figures)}", file=sys.stderr, flush=True)
    return match(film, count)


def describe(delays: Sequence[float], seconds: float) -> str:
    if not delays:
        return "no frames were recognized"
    return (
        f"p50 {1000 * statistics.median(delays):.0f} ms, p95 {1000 * quantile(list(delays), 0.95):.0f} ms, "
        f"{len(delays) / seconds:.1f} frames/s"
    )


def compare(browser: Browser, url: str, rounds: int, seconds: float, count: int) -> None:
    """Print the delays of both transports, in turn."""
    found: dict[str, list[float]] = {"webrtc": [], "websocket": []}
    for number in range(rounds):
        for transport in found:
            came = [delay for _, delay in measure(browser, url, transport, seconds, count)]
            found[transport] += came
            print(f"{transport}, round {number + 1}: {describe(came, seconds)}", flush=True)
    for transport, delays in found.items():
        print(f"{transport}: {describe(delays, rounds * seconds)}", flush=True)
    medians = [statistics.median(delays) for delays in found.values()]
    print(f"the WebSocket's median is {1000 * (medians[1] - medians[0]):+.0f} ms", flush=True)


def watch(browser: Browser, url: str, seconds: float, count: int, step: float) -> Delays:
    """Print the delay over time by WebSocket."""
    delays = measure(browser, url, "websocket", seconds, count)
    for begin in np.arange(LEAD_S, LEAD_S + seconds, step):
        part = [delay for at, delay in delays if begin <= at < begin + step]
        print(f"{begin:.0f}-{begin + step:.0f} s: {describe(part, step)}", flush=True)
    return delays


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seconds", type=float, help="of a session; default: 60, or 300 over a slow line")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--mbit", type=float, help="of a slow line in each direction, in Mbit/s")
    parser.add_argument("--rtt", type=float, default=100, help="its round trip in ms")
    parser.add_argument("--step", type=float, default=30, help="seconds of a line of the delay over time")
    parser.add_argument("--png", type=Path, help="where to draw the delay over time")
    args = parser.parse_args()
    settings = {"pipeline": "paced", "load_params": {"chunk_frames": 1, "cost": 0.01}, "max_sessions": 2}
    with (
        tempfile.TemporaryDirectory() as folder,
        sync_playwright() as playwright,
        running(settings) as server,
    ):
        server.wait_until_loaded()
        camera = Path(folder) / "camera.mjpeg"
        count = write_numbers(camera)
        assert count < barcode.COUNT
        browser = chrome.launch(playwright, camera)
        if args.mbit is None:
            compare(browser, server.url, args.rounds, args.seconds or 60, count)
        else:
            port = int(server.url.rpartition(":")[2])
            with shaped_link(port, 1e6 * args.mbit, args.rtt / 1000) as proxy:
                url = f"http://127.0.0.1:{proxy}"
                delays = watch(browser, url, args.seconds or 300, count, args.step)
            if args.png is not None:
                draw(args.png, [Curve(f"{args.mbit:g} Mbit/s, {args.rtt:g} ms", delays)])
        browser.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
