"""Sound devices that are not there: what SoundCard would find, with clocks that are somewhat wrong."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

Block = NDArray[np.float32]
_POLL_S = 0.001


@dataclass
class MemorySpeaker:
    """A speaker whose clock is wrong by `drift`, and which notes what it plays and when it is heard.

    It breaks after `limit` blocks; None for never.
    """

    name: str = "Memory Cable"
    drift: float = 0.0
    channels: int = 2
    limit: int | None = None
    heard: list[tuple[float, Block]] = field(default_factory=list)
    opened: int = 0
    closed: int = 0

    @property
    def id(self) -> str:
        return self.name.lower().replace(" ", "-")

    @contextlib.contextmanager
    def player(self, samplerate: int, channels: int, blocksize: int) -> Iterator[MemoryPlayer]:
        self.opened += 1
        try:
            yield MemoryPlayer(self, samplerate * (1 + self.drift), channels, blocksize)
        finally:
            self.closed += 1


class MemoryPlayer:
    """What plays on a `MemorySpeaker`: `play` waits while the buffer is full."""

    def __init__(self, speaker: MemorySpeaker, rate: float, channels: int, buffer: int) -> None:
        self._speaker, self._rate, self._channels, self._buffer = speaker, rate, channels, buffer
        self._begin, self._written = time.monotonic(), 0

    @property
    def latency(self) -> float:
        return max(self._begin + self._written / self._rate - time.monotonic(), 0.0)

    def play(self, data: Block) -> None:
        assert data.shape[1] == self._channels
        if self._speaker.limit is not None and len(self._speaker.heard) >= self._speaker.limit:
            raise RuntimeError("the device is gone")
        while self.latency > self._buffer / self._rate:
            time.sleep(_POLL_S)
        ended = self._begin + self._written / self._rate
        if ended < time.monotonic():  # it ran dry: silence was heard meanwhile
            self._begin += time.monotonic() - ended
        self._speaker.heard.append((self._begin + self._written / self._rate, data.copy()))
        self._written += len(data)


@dataclass
class MemoryMicrophone:
    """A microphone that hears what `sound` makes of a time of `time.monotonic` and a number of samples."""

    name: str = "Memory Microphone"
    channels: int = 1
    sound: Callable[[float, int], Block] = lambda begin, count: np.zeros(count, np.float32)
    unplugged: threading.Event = field(default_factory=threading.Event)
    opened: int = 0
    closed: int = 0

    @property
    def id(self) -> str:
        return self.name.lower().replace(" ", "-")

    @contextlib.contextmanager
    def recorder(self, samplerate: int, channels: int, blocksize: int) -> Iterator[MemoryRecorder]:
        if self.unplugged.is_set():
            raise RuntimeError("Stream creation failed")
        self.opened += 1
        try:
            yield MemoryRecorder(self, samplerate, channels)
        finally:
            self.closed += 1


class MemoryRecorder:
    """What records from a `MemoryMicrophone`: `record` waits until the samples have been."""

    def __init__(self, microphone: MemoryMicrophone, rate: int, channels: int) -> None:
        self._microphone, self._rate, self._channels = microphone, rate, channels
        self._begin, self._count = time.monotonic(), 0

    def record(self, numframes: int) -> Block:
        until = self._begin + (self._count + numframes) / self._rate
        time.sleep(max(until - time.monotonic(), 0.0))
        if self._microphone.unplugged.is_set():
            raise RuntimeError("Recording failed, stream is in status FAILED")
        block = self._microphone.sound(self._begin + self._count / self._rate, numframes)
        self._count += numframes
        return np.repeat(block[:, None], self._channels, axis=1)


def make_soundcard(microphones: list[MemoryMicrophone], speakers: list[MemorySpeaker]) -> Any:
    """A module such as `soundcard`, with these devices; the first of each kind is the default."""

    def first(devices: list[Any]) -> Callable[[], Any]:
        def get() -> Any:
            if not devices:
                raise RuntimeError("no default device")
            return devices[0]

        return get

    def all_microphones(include_loopback: bool = False) -> list[Any]:
        loopbacks = [MemoryMicrophone(f"Monitor of {one.name}") for one in speakers]
        return [*microphones, *(loopbacks if include_loopback else [])]

    return SimpleNamespace(
        all_microphones=all_microphones,
        all_speakers=lambda: list(speakers),
        default_microphone=first(microphones),
        default_speaker=first(speakers),
    )
