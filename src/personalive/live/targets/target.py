"""What every target is to the rest, and a thread that sends the newest frame only."""

from __future__ import annotations

import asyncio
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Protocol, runtime_checkable

from personalive.errors import InputError, PersonaLiveError
from personalive.server.sessions.playout_buffer import SentFrame
from personalive.server.sessions.session_audio import SentAudio

_STOP_TIMEOUT_S = 3.0


class TargetError(InputError):
    """A target that cannot be opened or has failed; the message says what to do."""


class TargetEvents(Protocol):
    """What a target reports. Its methods may be called on any thread."""

    def on_delivered(self, target: Target, frame: SentFrame, now: float) -> None:
        """Take note that the target delivered a frame at the time `now` of `time.monotonic`."""

    def on_target_end(self, target: Target, problem: str | None) -> None:
        """Take note that the target takes no more frames, because of a `problem` or because its user closed it."""

    def on_notice(self, notice: str) -> None:
        """Show a sentence."""

    def on_key(self, key: str) -> None:
        """Act on a key that was pressed in the target's window."""


class Target(Protocol):
    """Takes the frames of a run."""

    name: str
    wants_still: bool
    """Whether to give it the portrait before the first animated frame: a viewer should not see nothing."""

    async def open(self) -> None:
        """Open it, and return once it takes frames. Raises `PersonaLiveError`."""

    def put(self, frame: SentFrame) -> None:
        """Take a frame, on any thread; never wait."""

    async def close(self) -> str | None:
        """Take no more frames, complete what was written and return a sentence about it, if there is one."""


@runtime_checkable
class AudioTarget(Protocol):
    """A target that takes sound too."""

    def put_audio(self, block: SentAudio) -> None:
        """Take sound, on the event loop; never wait."""


TargetFactory = Callable[[TargetEvents], Target]


class TargetThread(ABC):
    """A target whose thread sends the newest frame, however long sending the one before took."""

    wants_still = True

    def __init__(self, name: str, events: TargetEvents) -> None:
        self.name = name
        self._events = events
        self._frame: SentFrame | None = None
        self._changed = threading.Condition()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name=f"target-{name}", daemon=True)

    @abstractmethod
    def _open(self) -> None:
        """Open the target. Raises `PersonaLiveError`."""

    @abstractmethod
    def _send(self, frame: SentFrame) -> None:
        """Send a frame. Raises `PersonaLiveError` where the target has failed."""

    @abstractmethod
    def _release(self) -> None:
        """Close the target, whether it has failed or not."""

    async def open(self) -> None:
        """Open it, and return once it takes frames. Raises `PersonaLiveError`."""
        await asyncio.to_thread(self._open)
        self._thread.start()

    def put(self, frame: SentFrame) -> None:
        """Take a frame, which replaces one that waits."""
        with self._changed:
            self._frame = frame
            self._changed.notify()

    async def close(self) -> str | None:
        """Stop after the current frame and close the target."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        if self._thread.is_alive():
            await asyncio.to_thread(self._thread.join, _STOP_TIMEOUT_S)
        return None

    def _run(self) -> None:
        try:
            while (frame := self._next_frame()) is not None:
                self._send(frame)
                self._events.on_delivered(self, frame, time.monotonic())
        except PersonaLiveError as error:
            self._events.on_target_end(self, str(error))
        except Exception as error:  # libraries of cameras and windows raise anything
            self._events.on_target_end(self, f"{self.name} failed: {type(error).__name__}: {error}.")
        finally:
            self._release()

    def _next_frame(self) -> SentFrame | None:
        with self._changed:
            self._changed.wait_for(lambda: self._frame is not None or self._stopping)
            frame, self._frame = self._frame, None
            return None if self._stopping else frame
