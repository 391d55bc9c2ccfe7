"""What the tests of the page do again and again."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path

import PIL.Image

from personalive.media import Image
from tests.browser.chrome import Visit
from tests.server import running as processes
from tests.server.running import RunningServer

Shoot = Callable[[Visit, str], None]

FIRST_REQUEST = {"webrtc": "/api/v1/webrtc/ice-servers", "websocket": "/api/v1/websocket"}
"""What the page asks the server for before it offers, by the transport."""


def running(settings: Mapping[str, object] | None = None) -> AbstractContextManager[RunningServer]:
    """A server as it is installed, without the pipelines of the tests' plugin."""
    return processes.running(settings, environment={"PYTHONPATH": os.environ.get("PYTHONPATH", "")})


def upload(visit: Visit, file: Path) -> None:
    visit.page.set_input_files("#portrait-file", file)


def write_picture(path: Path, image: Image) -> Path:
    PIL.Image.fromarray(image).save(path)
    return path


def wait_for(true: Callable[[], bool], seconds: float = 15) -> None:
    until = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < until, "it did not come about"
        time.sleep(0.2)
