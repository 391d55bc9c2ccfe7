"""Chromium as a visitor of the page, with a camera that sees a real face."""

from __future__ import annotations

import base64
import contextlib
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

import av
import cv2
import numpy as np
import pytest
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, Playwright, Request

from personalive.media import Image, open_driving

SAMPLES = Path(__file__).resolve().parents[2] / "src/personalive/samples"
PORTRAIT, CLIP = SAMPLES / "portrait.jpg", SAMPLES / "driving.mp4"
CAMERA_SIZE = (480, 360)
CAMERA_FPS = 15
"""Two cores run the camera, two encoders, two decoders, the pipeline and the screen."""
DESKTOP, PHONE = (1280, 800), (390, 844)
Transport = Literal["automatic", "webrtc", "websocket"]
_NAMES = {"webrtc": "WebRTC", "websocket": "WebSocket"}


def chromium() -> str:
    """Where Chromium is; skips the test where it is not."""
    found = shutil.which("chromium") or shutil.which("chromium-browser")
    if found is None:
        pytest.skip("Chromium is not installed: apt-get install chromium")
    return found


def write_camera(path: Path, faceless: int = 0) -> None:
    """A Motion JPEG of the sample driver for Chromium's fake camera, which plays it over and over.

    `faceless` grey frames come after it.
    """
    with open_driving(CLIP) as source:
        frames = [frame.image for frame in source]
    step = Fraction(25, CAMERA_FPS)
    chosen = [frames[int(k * step)] for k in range(int(len(frames) / step))]
    chosen += [np.full((*CAMERA_SIZE[::-1], 3), 128, np.uint8)] * faceless
    with av.open(str(path), "w", format="mjpeg") as container:
        stream = container.add_stream("mjpeg", rate=CAMERA_FPS)
        stream.width, stream.height = CAMERA_SIZE
        stream.pix_fmt, stream.color_range = "yuvj420p", 2
        for index, image in enumerate(chosen):
            frame = av.VideoFrame.from_ndarray(_framed(image), format="rgb24")
            frame.pts, frame.time_base = index, Fraction(1, CAMERA_FPS)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def _framed(image: Image) -> Image:
    """In the middle of a wide frame, as somebody sits before a camera."""
    width, height = CAMERA_SIZE
    side = min(height, image.shape[0])
    small = cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA)
    framed = np.empty((height, width, 3), np.uint8)
    left, top = (width - side) // 2, (height - side) // 2
    framed[:] = small[side // 8, 4]
    framed[top : top + side, left : left + side] = small
    return framed


def launch(
    playwright: Playwright, camera: Path | None = None, *, allowed: bool = True, flags: Sequence[str] = ()
) -> Browser:
    """Chromium, with that film as its camera. Not `allowed`: every page is refused it."""
    arguments = ["--use-fake-device-for-media-stream", "--autoplay-policy=no-user-gesture-required", *flags]
    if camera is not None:
        arguments.append(f"--use-file-for-fake-video-capture={camera}")
    if allowed:
        arguments.append("--use-fake-ui-for-media-stream")
    return playwright.chromium.launch(executable_path=chromium(), args=arguments)


@dataclass
class Visit:
    """A page that is open, and all that went wrong in it and left it."""

    page: Page
    context: BrowserContext
    url: str
    transport: Transport = "automatic"
    errors: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def start(self, driver: str = "Sample clip") -> None:
        """The three clicks."""
        self.page.get_by_role("button", name="Sample", exact=True).click()
        self.page.get_by_role("button", name=driver).click()
        self.page.get_by_role("button", name="Start", exact=True).click()

    def wait_until_live(self, seconds: float = 60) -> None:
        """Until frames of the result are shown, which have come as was chosen."""
        self.page.wait_for_selector("#stage[data-live]", timeout=1000 * seconds)
        if self.transport != "automatic":
            used = self.page.locator("#transport-used", has_text=f"Connected by {_NAMES[self.transport]}.")
            used.wait_for(state="attached")

    def told(self, sentence: str, seconds: float = 30) -> None:
        """Wait until the stage says that, or more."""
        self.page.locator("#told", has_text=sentence).wait_for(timeout=1000 * seconds)

    def connect_by(self, transport: Transport) -> None:
        """Choose how the next session is connected."""
        self.page.select_option("#transport", transport)
        self.transport = transport

    def hear(self, message: dict[str, object]) -> None:
        """Let the page hear that, as if the server had said it. The page needs `TAP`, as for `change_stats`."""
        self.page.evaluate("(message) => window.tap.hear(message)", message)

    def change_stats(self, changes: dict[str, object]) -> None:
        """Replace those parts of every `stats` message of the server from now on."""
        self.page.evaluate("(changes) => void (window.tap.changes = changes)", changes)

    def frame(self) -> Image:
        """What the result shows now, uint8 RGB."""
        return decoded(self.page.evaluate(_DRAW))

    def is_moving(self, within: float = 3.0) -> bool:
        """Whether the result changes."""
        return bool(self.page.evaluate(_MOVES, 1000 * within))


_DRAW = """async () => {
  const video = document.getElementById("result-video");
  const canvas = new OffscreenCanvas(video.videoWidth, video.videoHeight);
  canvas.getContext("2d").drawImage(video, 0, 0);
  const blob = await canvas.convertToBlob({ type: "image/png" });
  const reader = new FileReader();
  reader.readAsDataURL(blob);
  await new Promise((resolve) => (reader.onload = resolve));
  return reader.result;
}"""
TAP = """(() => {
  const tap = (window.tap = { changes: {} });
  const listen = (channel) => {
    const ours = new WeakSet();
    tap.hear = (message) => {
      const event = new MessageEvent("message", { data: JSON.stringify(message) });
      ours.add(event);
      channel.dispatchEvent(event);
    };
    channel.addEventListener("message", (event) => {
      if (ours.has(event) || typeof event.data !== "string") return;
      const message = JSON.parse(event.data);
      if (message.type !== "stats") return;
      event.stopImmediatePropagation();
      tap.hear({ ...message, ...tap.changes });
    });
    return channel;
  };
  const create = RTCPeerConnection.prototype.createDataChannel;
  RTCPeerConnection.prototype.createDataChannel = function (...asked) {
    return listen(create.apply(this, asked));
  };
  window.WebSocket = class extends WebSocket {
    constructor(...given) {
      super(...given);
      listen(this);
    }
  };
})();"""
"""A script of the page by which `Visit.hear` and `Visit.change_stats` work."""
_MOVES = """async (milliseconds) => {
  const video = document.getElementById("result-video");
  const look = () => {
    const canvas = new OffscreenCanvas(64, 64);
    const context = canvas.getContext("2d", { willReadFrequently: true });
    context.drawImage(video, 0, 0, 64, 64);
    return context.getImageData(0, 0, 64, 64).data;
  };
  const first = look();
  for (const end = performance.now() + milliseconds; performance.now() < end; ) {
    await new Promise((resolve) => setTimeout(resolve, 100));
    const now = look();
    let sum = 0;
    for (let k = 0; k < now.length; k++) sum += Math.abs(now[k] - first[k]);
    if (sum / now.length > 0.6) return true;
  }
  return false;
}"""


def decoded(address: str) -> Image:
    """The picture of a data: address, uint8 RGB."""
    return decoded_bytes(base64.b64decode(address.partition(",")[2]))


def decoded_bytes(data: bytes) -> Image:
    """The picture of a file, uint8 RGB."""
    decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    assert decoded is not None
    return np.asarray(cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB), np.uint8)


@contextlib.contextmanager
def visiting(
    browser: Browser,
    url: str,
    size: tuple[int, int] = DESKTOP,
    path: str = "/",
    *,
    transport: Transport = "automatic",
    scripts: Sequence[str] = (),
    **options: Any,
) -> Iterator[Visit]:
    """The page of a server, opened in a fresh profile. `scripts` run in it before the page's."""
    context = browser.new_context(viewport={"width": size[0], "height": size[1]}, **options)
    for script in scripts:
        context.add_init_script(script)
    visit = Visit(context.new_page(), context, url)

    def note(message: ConsoleMessage) -> None:
        if message.type in {"error", "warning"}:
            visit.errors.append(f"{message.text} ({message.location.get('url', '')})")

    def ask(request: Request) -> None:
        visit.requests.append(request.url)

    visit.page.on("console", note)
    visit.page.on("pageerror", lambda error: visit.errors.append(str(error)))
    visit.page.on("request", ask)
    try:
        visit.page.goto(url + path)
        if transport != "automatic":
            visit.connect_by(transport)
        yield visit
    finally:
        context.close()
