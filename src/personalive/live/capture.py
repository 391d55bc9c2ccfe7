"""Driving frames from any source that is read by a thread, opened again whenever it is lost."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Generic, Protocol, TypeVar

import av

from personalive.errors import PersonaLiveError
from personalive.live.clip_reader import ClipReader
from personalive.live.clip_sound import SoundHandler
from personalive.live.devices import SourceError, camera_system, find_camera, list_cameras, open_camera
from personalive.live.source_spec import SourceKind, SourceSpec
from personalive.live.stream_reader import StreamReader, open_stream
from personalive.media import Rotation

_RETRY_S = (0.5, 1.0, 2.0, 3.0)
"""Seconds between attempts to open a lost source again; the last one is repeated."""
_STOP_TIMEOUT_S = 3.0
_SHIFT_S = 86_400
"""Seconds between the times of sound before and after a source was opened again."""

F_co = TypeVar("F_co", av.VideoFrame, av.AudioFrame, covariant=True)
F = TypeVar("F", av.VideoFrame, av.AudioFrame)
ArrivalHandler = Callable[[av.VideoFrame, float], None]
"""Called with a frame and the time of `time.monotonic` at which it arrived."""
NoticeHandler = Callable[[str | None], None]
"""Called with a sentence on what is wrong with the source, and with None once it delivers again."""


class FrameReader(Protocol[F_co]):
    """An open source of pictures or of sound. It is used on one thread."""

    @property
    def repeats(self) -> bool:
        """Whether reading it again at its end is expected, so that nothing need be said of it."""

    def __iter__(self) -> Iterator[F_co]: ...

    def close(self) -> None:
        """Close it."""


ReaderFactory = Callable[[threading.Event], FrameReader[F]]
"""Opens a source that is read until the event is set. Raises `PersonaLiveError`."""


class NewestFrame:
    """Hands frames of any thread to the event loop; one that it has not taken is replaced by the next."""

    def __init__(self, handler: ArrivalHandler) -> None:
        """Call `handler` on the running event loop."""
        self._loop = asyncio.get_running_loop()
        self._handler = handler
        self._lock = threading.Lock()
        self._frame: tuple[av.VideoFrame, float] | None = None

    def put(self, frame: av.VideoFrame) -> None:
        """Hand over a frame."""
        with self._lock:
            is_scheduled = self._frame is not None
            self._frame = frame, time.monotonic()
        if not is_scheduled:
            with contextlib.suppress(RuntimeError):  # the loop has ended
                self._loop.call_soon_threadsafe(self._deliver)

    def _deliver(self) -> None:
        with self._lock:
            frame, self._frame = self._frame, None
        if frame is not None:
            self._handler(*frame)


class CaptureThread(Generic[F]):
    """A thread that reads a source, and opens it again when it is lost."""

    def __init__(
        self,
        name: str,
        open_reader: ReaderFactory[F],
        on_frame: Callable[[F], None],
        on_notice: NoticeHandler,
    ) -> None:
        """Prepare to read. The handlers are called on the thread; `name` is what messages call the source."""
        self._name = name
        self._open_reader: ReaderFactory[F] = open_reader
        self._on_frame: Callable[[F], None] = on_frame
        self._on_notice = on_notice
        self._stopping = threading.Event()
        self._opened: Future[None] = Future()
        self._frames = 0
        self._thread = threading.Thread(target=self._run, name="capture", daemon=True)

    async def start(self) -> None:
        """Start, and return once the source is open. Raises `PersonaLiveError` where it cannot be opened."""
        self._thread.start()
        await asyncio.wrap_future(self._opened)

    async def stop(self) -> None:
        """Stop reading and close the source. It may be called twice."""
        self._stopping.set()
        if self._thread.is_alive():
            await asyncio.to_thread(self._thread.join, _STOP_TIMEOUT_S)

    def _run(self) -> None:
        attempts = 0
        while not self._stopping.is_set():
            problem: str | None = None
            before = self._frames
            try:
                self._read()
            except PersonaLiveError as error:
                problem = str(error)
            except Exception as error:  # another thread waits for it
                if not self._opened.done():
                    self._opened.set_exception(error)
                    return
                problem = f"{self._name} failed: {type(error).__name__}: {error}"
            if self._stopping.is_set() or problem is None:
                continue
            if not self._opened.done():
                self._opened.set_exception(SourceError(problem))
                return
            attempts = attempts if self._frames == before else 0
            self._on_notice(f"{problem.rstrip('.')}. Trying again.")
            self._stopping.wait(_RETRY_S[min(attempts, len(_RETRY_S) - 1)])
            attempts += 1
        if not self._opened.done():
            self._opened.cancel()

    def _read(self) -> None:
        """Read until the source ends. Raises `PersonaLiveError` where it is lost, or has no frame."""
        fresh = True
        with contextlib.closing(self._open_reader(self._stopping)) as reader:
            if not self._opened.done():
                self._opened.set_result(None)
            for frame in reader:
                if self._stopping.is_set():
                    return
                if fresh:
                    self._on_notice(None)
                    fresh = False
                self._frames += 1
                self._on_frame(frame)
            if self._stopping.is_set():
                return
            if fresh:
                raise SourceError(f"{self._name} has no frame that can be decoded.")
            if not reader.repeats:
                raise SourceError(f"{self._name} has ended.")


def reader_factory(
    spec: SourceSpec, rotation: Rotation, on_sound: SoundHandler | None = None
) -> ReaderFactory[av.VideoFrame]:
    """Return what opens the source; only a clip is turned by `rotation`.

    `on_sound` gets the sound of a clip or a stream, on the thread that reads it.

    Raises `SourceError` for a camera on a system whose cameras are not read.
    """
    if spec.kind is SourceKind.CLIP:
        return lambda stopping: ClipReader(Path(spec.value), rotation, stopping, on_sound)
    if spec.kind is SourceKind.STREAM:
        opened = itertools.count()

        def open_again(stopping: threading.Event) -> StreamReader:
            return StreamReader(open_stream(spec), spec.name, stopping, _shifted(on_sound, next(opened)))

        return open_again
    system = camera_system()

    def open_found(stopping: threading.Event) -> FrameReader[av.VideoFrame]:
        # Found each time: a camera that returns may have another number.
        camera = find_camera(spec.value, list_cameras(system), system)
        return StreamReader(open_camera(camera, system), camera.name, stopping)

    return open_found


def _shifted(on_sound: SoundHandler | None, opened: int) -> SoundHandler | None:
    """Return a handler for the sound of a stream that was opened before: its times may begin once more."""
    if on_sound is None or opened == 0:
        return on_sound

    def put(frame: av.AudioFrame, source_time: float | None) -> None:
        if frame.pts is not None and frame.time_base is not None:
            frame.pts += round(opened * _SHIFT_S / frame.time_base)
        on_sound(frame, source_time)

    return put
