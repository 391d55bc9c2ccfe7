"""Pictures, and a server's parts as they run, for tests that need no sockets."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import httpx
import numpy as np
import PIL.Image
import skimage.data
from fastapi import APIRouter, FastAPI

from personalive.media.types import Image
from personalive.server import errors
from personalive.server.server import Server
from personalive.server.sessions.session import ServerSession
from personalive.server.settings import Settings
from personalive.server.state.pipeline_manager import PipelineManager
from personalive.server.state.reference_store import ReferenceStore

SMALL = {"height": 256, "width": 256}


def encoded(image: Image, kind: str = "PNG") -> bytes:
    """The bytes of a picture file."""
    file = io.BytesIO()
    PIL.Image.fromarray(image).save(file, kind)
    return file.getvalue()


def portrait() -> Image:
    """uint8 RGB (512, 512, 3): one face, of 90 × 106 pixels around (225, 125)."""
    return np.array(skimage.data.astronaut())  # type: ignore[no-untyped-call]


def two_faces(second: float = 1.0, gap: int = 60) -> Image:
    """Two faces beside each other, the right one `second` times as large as the left one."""
    left = portrait()[30:270, 110:350]
    right = cv2.resize(left[:, ::-1], None, fx=second, fy=second, interpolation=cv2.INTER_AREA)
    together = np.full((300, left.shape[1] + gap + right.shape[1] + 40, 3), 200, np.uint8)
    together[20 : 20 + left.shape[0], 20 : 20 + left.shape[1]] = left
    beside = 20 + left.shape[1] + gap
    together[20 : 20 + right.shape[0], beside : beside + right.shape[1]] = right
    return together


GREY = np.full((64, 64, 3), 128, np.uint8)


@asynccontextmanager
async def running(recordings: Path | None = None, **settings: Any) -> AsyncIterator[Server]:
    """A server's parts, at work on this event loop."""
    if recordings is not None:
        settings["recordings_dir"] = recordings
    server = Server(Settings(**settings), in_process=True)
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


@asynccontextmanager
async def client_of(server: Server, routers: Iterable[APIRouter]) -> AsyncIterator[httpx.AsyncClient]:
    """An HTTP client of an application of these routes."""
    app = FastAPI()
    errors.install_error_handlers(app)
    app.state.server = server
    for router in routers:
        app.include_router(router)
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://server") as client:
        yield client


async def loaded(host: PipelineManager, pipeline_id: str = "preview", **parameters: object) -> None:
    """Load a pipeline, at 256 × 256 unless told otherwise, and wait until that has ended."""
    await host.load(pipeline_id, {**SMALL, **parameters})
    await ended(host)


async def ended(host: PipelineManager) -> None:
    """Wait until a load has ended."""
    await until(lambda: host.get_status().status != "loading")


async def until(true: Callable[[], bool], within: float = 30.0) -> None:
    """Wait for something to come true."""
    async with asyncio.timeout(within):
        while not true():
            await asyncio.sleep(0.01)


async def opened(server: Server, references: ReferenceStore | None = None) -> ServerSession:
    """A session on the default reference."""
    references = references or server.references
    reference, pipeline = await references.get_fused(), server.pipelines.pipeline
    assert pipeline is not None
    assert references.default_id is not None
    return await server.sessions.open(pipeline, references.default_id, reference, {})


async def drive(stream: ServerSession, frames: int, fps: float = 50.0) -> None:
    """Put driving frames as they would come."""
    for index in range(frames):
        frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 5 * index % 256, np.uint8), format="rgb24")
        frame.pts, frame.time_base = index, Fraction(1, round(fps))
        stream.put_frame(frame)
        await asyncio.sleep(1 / fps)
