"""How much later than the picture the sound of `personalive live` comes, by flashes and clicks.

    python -m benchmarks.live_lip_sync                             # ten minutes for each case
    python -m benchmarks.live_lip_sync --minutes 2 --case file     # a try

A clip whose picture flashes every two seconds while a click sounds is the driver, looped, and what comes out is
compared: when a flash begins, and when its click does. The pipeline is one of the tests that shows its driving
frames: a portrait would not flash. The whole command runs in this process as it does for a user.

Cases: `file`, the written video, by the times in it; `speaker`, when the virtual camera got the first white frame
and when the click was heard on a speaker, both in memory, whose clock is 200 ppm fast; `microphone`, the same with
the clicks of a microphone in memory, where what arrives together counts as captured together; `slow`, as `speaker`
with a pipeline of chunks of four frames and a delay of twelve, as the diffusion pipeline has them.

Each row has the median, p95 and largest size of the offset; a positive one means that the sound is late. Exits with
1 where one is larger than 45 ms, or clicks are missing.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pyvirtualcam
from numpy.typing import NDArray

from personalive.live.live_display import LiveFigures
from personalive.live.live_job import LiveJob
from personalive.live.live_run import LiveRun
from personalive.media import open_driving
from tests.live.sound_devices import MemoryMicrophone, MemorySpeaker, make_soundcard
from tests.live.streams import write_flashes
from tests.server.client import PORTRAIT
from tests.server.flashes import PERIOD_S, RATE, clicks, describe
from tests.server.running import PLUGIN

LIMIT_S = 0.045
"""What people do not notice, by ITU-R BT.1359."""
SKIP_S = 10.0
"""Seconds at the beginning that do not count."""
_CLIP_S = 20.0
_CANVAS = (320, 180)
_DRIFT = 200e-6
_LOUD = 0.1
_APART_S = PERIOD_S / 2


@dataclass(frozen=True)
class Case:
    """What is measured: `speaker` or a file, and the pipeline's parameters."""

    speaker: bool = True
    microphone: bool = False
    parameters: Mapping[str, object] = field(default_factory=dict)


_SLOW = {"chunk_frames": 4, "delay_frames": 12, "cost": 0.005}
CASES = {
    "file": Case(speaker=False),
    "speaker": Case(),
    "microphone": Case(microphone=True),
    "slow": Case(parameters=_SLOW),
}


class FlashedCamera:
    """A backend of pyvirtualcam that notes when a frame is white."""

    shown: list[tuple[float, bool]]

    def __init__(self, *, width: int, height: int, fps: float, fourcc: int, device: str | None) -> None:
        del fps, fourcc, device
        self._size = width * height

    def send(self, frame: NDArray[np.uint8]) -> None:
        self.shown.append((time.monotonic(), _is_white(frame.reshape(-1)[: self._size])))

    def close(self) -> None:
        pass

    def device(self) -> str:
        return "memory"

    def native_fourcc(self) -> None:
        return None


def _is_white(pixels: NDArray[np.uint8]) -> bool:
    return float(np.quantile(pixels, 0.75)) > 150


class Quiet:
    """A display that prints notices and says once the run has begun."""

    def __init__(self) -> None:
        self.started = asyncio.Event()

    def show_figures(self, figures: LiveFigures) -> None:
        if figures.has_face:
            self.started.set()

    def show_notice(self, notice: str) -> None:
        print(notice, file=sys.stderr, flush=True)


class MeasuredRun(LiveRun):
    """A run that keeps when the first flash of its driver arrived."""

    flashed_at: float | None = None

    def put_frame(
        self, frame: av.VideoFrame, source_time: float | None, *, arrived_at: float | None = None
    ) -> None:
        super().put_frame(frame, source_time, arrived_at=arrived_at)
        white = _is_white(np.asarray(frame.to_ndarray(format="gray"), np.uint8).reshape(-1))
        if MeasuredRun.flashed_at is None and white and source_time is not None and source_time > 0:
            # It may be any of a flash's frames; they lie on a grid of the clip's clock.
            into = source_time % PERIOD_S
            MeasuredRun.flashed_at = (time.monotonic() if arrived_at is None else arrived_at) - into


async def run(job: LiveJob, seconds: float) -> None:
    """Run the job for `seconds` after it has begun."""
    display = Quiet()
    live = MeasuredRun(job, display)
    running = asyncio.get_running_loop().create_task(live.run())
    started = asyncio.ensure_future(display.started.wait())
    await asyncio.wait({running, started}, return_when=asyncio.FIRST_COMPLETED)
    if not running.done():
        await asyncio.wait({running}, timeout=seconds)
        live.stop()
    started.cancel()
    await running  # raises what it failed with


def flashes_of(shown: list[tuple[float, bool]]) -> list[float]:
    """When the picture became white."""
    return [at for (_, before), (at, white) in pairwise(shown) if white and not before]


def clicks_of(blocks: list[tuple[float, NDArray[np.float32]]]) -> list[float]:
    """When the first loud sample of each click was heard."""
    found: list[float] = []
    for at, block in blocks:
        loud = np.abs(block[:, 0]) > _LOUD
        begin = at + float(loud.argmax()) / RATE
        if loud.any() and (not found or begin - found[-1] > _APART_S):
            found.append(begin)
    return found


def read_file(path: Path) -> tuple[list[float], list[float]]:
    """When flashes and clicks of a video begin."""
    with open_driving(path) as source:
        shown = [(frame.time, _is_white(frame.image[..., 1].reshape(-1))) for frame in source]
    blocks = []
    with av.open(str(path)) as container:
        for frame in container.decode(audio=0):
            assert frame.time is not None
            blocks.append((frame.time, np.asarray(frame.to_ndarray().T, np.float32)))
    return flashes_of(shown), clicks_of(blocks)


def compare(flashes: list[float], heard: list[float], skip_s: float) -> tuple[list[float], int]:
    """Return by how much each click is later than its flash, and how many flashes have none."""
    counted = [at for at in flashes if at >= flashes[0] + skip_s][:-1]  # the last one's click may be cut off
    nearest = [min((click - at for click in heard), key=abs, default=_APART_S) for at in counted]
    offsets = [offset for offset in nearest if abs(offset) < _APART_S]
    return offsets, len(counted) - len(offsets)


def measure(case: Case, seconds: float, folder: Path) -> tuple[list[float], int]:
    """Run a case and return its offsets, and how many clicks are missing."""
    clip, out = folder / "flashes.mp4", folder / "out.mp4"
    write_flashes(clip, _CLIP_S)
    cable = MemorySpeaker(drift=_DRIFT)
    MeasuredRun.flashed_at = None

    def hear(begin: float, count: int) -> NDArray[np.float32]:
        if MeasuredRun.flashed_at is None:
            return np.zeros(count, np.float32)
        place = round((begin - MeasuredRun.flashed_at) * RATE)
        return np.asarray(clicks(place, count) / 32768, np.float32)

    sys.modules["soundcard"] = make_soundcard([MemoryMicrophone(sound=hear)], [cable])
    FlashedCamera.shown = []
    job = LiveJob(
        portraits=(PORTRAIT,),
        source=str(clip),
        targets=("camera",) if case.speaker else (str(out),),
        pipeline="paced",
        size=256,
        canvas=_CANVAS,
        background="#000000",
        sound=not case.microphone,
        microphone="default" if case.microphone else None,
        speaker=cable.name if case.speaker else None,
        overwrite=True,
        parameters=case.parameters,
    )
    asyncio.run(run(job, seconds))
    found = (flashes_of(FlashedCamera.shown), clicks_of(cable.heard)) if case.speaker else read_file(out)
    return compare(*found, SKIP_S)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10, help="for each case")
    parser.add_argument(
        "--case", action="append", choices=sorted(CASES), help="may be repeated; default: all"
    )
    args = parser.parse_args()
    sys.path.insert(0, str(PLUGIN))
    pyvirtualcam.camera.BACKENDS.clear()
    pyvirtualcam.register_backend("memory", FlashedCamera)
    print("| case | clicks | missing | offset: median, p95, max |")
    print("|---|--:|--:|--:|", flush=True)
    met = True
    for name in args.case or CASES:
        with tempfile.TemporaryDirectory() as folder:
            offsets, missing = measure(CASES[name], 60 * args.minutes, Path(folder))
        print(f"| {name} | {len(offsets)} | {missing} | {describe(offsets)} |", flush=True)
        met = met and bool(offsets) and not missing and all(abs(one) <= LIMIT_S for one in offsets)
    return int(not met)


if __name__ == "__main__":
    sys.exit(main())
