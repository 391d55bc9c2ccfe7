"""`personalive live` for minutes: does it hold the camera's rate, and does the delay stay what it was?

    python -m benchmarks.virtual_camera                              # ten minutes of the preview at 512², two cores
    python -m benchmarks.virtual_camera --minutes 1 --png delay.png --csv delay.csv
    python -m benchmarks.virtual_camera --background blur --fps 60

The whole command runs in this process as it does for a user: the sample clip, written again at `--fps`, loops as
its source; its target is a virtual camera of pyvirtualcam's whose backend is registered here and takes every frame.
The delay is from a driving frame's arrival to the end of the sending of the frame that shows it. The first seconds
do not count. Exits with 1 where less than 99 % of the rate came, or the delay of the last sixth is more than 20 %
and 10 ms above that of the first.
"""

from __future__ import annotations

import argparse
import asyncio
import csv
import itertools
import os
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyvirtualcam
from numpy.typing import NDArray

from benchmarks.curves import Curve, draw
from personalive.cli.live_terminal import format_figures
from personalive.live.live_display import LiveFigures
from personalive.live.live_job import LiveJob
from personalive.live.live_run import LiveRun
from personalive.live.targets.target import Target
from personalive.media import open_driving, open_writer
from personalive.media.provenance import Provenance
from personalive.server.sessions.playout_buffer import SentFrame
from tests.server.client import CLIP, PORTRAIT

_WARM_UP_S = 10.0
_NEEDED_RATE = 0.99
_ALLOWED_DRIFT, _ALLOWED_DRIFT_S = 0.2, 0.01
_WINDOWS = 6
_TOLD_EVERY_S = 30.0


class MemoryCamera:
    """A backend of pyvirtualcam that copies each frame, as a device does."""

    def __init__(self, *, width: int, height: int, fps: float, fourcc: int, device: str | None) -> None:
        del fps, fourcc, device
        self._memory = np.zeros(width * height * 3 // 2, np.uint8)

    def send(self, frame: NDArray[np.uint8]) -> None:
        self._memory[:] = frame

    def close(self) -> None:
        pass

    def device(self) -> str:
        return "memory"

    def native_fourcc(self) -> None:
        return None


@dataclass(frozen=True, slots=True)
class Delivery:
    """A frame that was delivered at `at`, `delay` seconds after the driving frame that it shows had arrived."""

    at: float
    delay: float | None


class MeasuredRun(LiveRun):
    """A run that keeps when each frame was delivered."""

    deliveries: list[Delivery]

    def on_delivered(self, target: Target, frame: SentFrame, now: float) -> None:
        super().on_delivered(target, frame, now)
        delay = None if frame.captured_at is None else now - frame.captured_at
        self.deliveries.append(Delivery(now, delay))


@dataclass(slots=True)
class Quiet:
    """A display that prints notices, and figures rarely."""

    started: asyncio.Event = field(default_factory=asyncio.Event)
    told_at: float = 0.0

    def show_figures(self, figures: LiveFigures) -> None:
        if figures.has_face:
            self.started.set()
        if time.monotonic() - self.told_at > _TOLD_EVERY_S:
            self.told_at = time.monotonic()
            print(format_figures(figures), file=sys.stderr, flush=True)

    def show_notice(self, notice: str) -> None:
        print(notice, file=sys.stderr, flush=True)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a run, after the warm-up. Times are in seconds, `cpu` in cores that were busy."""

    fps: float
    delays: list[tuple[float, float]]
    cpu: float

    def quantile(self, share: float) -> float:
        """Return the delay below which that share of frames stays."""
        return float(np.quantile([delay for _, delay in self.delays], share))

    def medians(self, windows: int) -> list[float]:
        """Return the medians of equal parts of the run."""
        parts = np.array_split(np.array([delay for _, delay in self.delays]), windows)
        return [float(np.median(part)) for part in parts]

    def slope_ms_per_minute(self) -> float:
        """Return how fast the delay grows, by least squares."""
        at, delay = np.array(self.delays).T
        return float(np.polyfit(at / 60, 1000 * delay, 1)[0])


async def measure(job: LiveJob, seconds: float) -> Outcome:
    """Run the job, for `seconds` after the warm-up."""
    display = Quiet()
    run = MeasuredRun(job, display)
    run.deliveries = []
    running = asyncio.get_running_loop().create_task(run.run())
    started = asyncio.ensure_future(display.started.wait())
    await asyncio.wait({running, started}, return_when=asyncio.FIRST_COMPLETED)
    if not running.done():
        await asyncio.sleep(_WARM_UP_S)
        begin, busy = time.monotonic(), _cpu_seconds()
        await asyncio.wait({running}, timeout=seconds)
        end, cpu = time.monotonic(), _cpu_seconds() - busy
        run.stop()
    started.cancel()
    await running  # raises what it failed with
    counted = [one for one in run.deliveries if begin <= one.at < end]
    delays = [(one.at - begin, one.delay) for one in counted if one.delay is not None]
    return Outcome(len(counted) / (end - begin), delays, cpu / (end - begin))


def _cpu_seconds() -> float:
    """CPU time of this process and, on Linux, of the pipeline's."""
    total = time.process_time()
    if sys.platform == "linux":
        tick = os.sysconf("SC_CLK_TCK")
        for task in Path("/proc/self/task").iterdir():
            for child in (task / "children").read_text().split():
                fields = (Path("/proc") / child / "stat").read_text().rpartition(")")[2].split()
                total += (int(fields[11]) + int(fields[12])) / tick
    return total


def write_clip(path: Path, fps: float) -> None:
    """Write the sample clip's frames at another rate."""
    mark = Provenance(software="benchmark", pipeline="none")
    with open_driving(CLIP) as source:
        size = source.info.width, source.info.height
        with open_writer(path, width=size[0], height=size[1], fps=fps, provenance=mark) as writer:
            for frame in source:
                writer.write(frame.image)


def write_csv(path: Path, outcome: Outcome) -> None:
    """Write a row per second: frames, and the median and largest delay in ms."""
    with path.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["second", "frames", "median_ms", "max_ms"])
        for second, group in itertools.groupby(outcome.delays, key=lambda pair: int(pair[0])):
            delays = [1000 * delay for _, delay in group]
            table.writerow([second, len(delays), f"{statistics.median(delays):.1f}", f"{max(delays):.1f}"])


def curve(outcome: Outcome) -> Curve:
    """Return the median of every second."""
    grouped = itertools.groupby(outcome.delays, key=lambda pair: int(pair[0]))
    points = [(float(second), statistics.median(delay for _, delay in group)) for second, group in grouped]
    return Curve("delay, median of each second", points)


def table(job: LiveJob, camera: float, minutes: float, outcome: Outcome) -> str:
    """Markdown."""
    sixths = outcome.medians(_WINDOWS)
    rows = [
        ("pipeline, size", f"{job.pipeline}, {job.size}"),
        ("camera", f"{camera:g} fps, {minutes:g} min"),
        ("rate", f"{outcome.fps:.2f} fps"),
        ("delay, median", f"{1000 * outcome.quantile(0.5):.1f} ms"),
        ("delay, p95", f"{1000 * outcome.quantile(0.95):.1f} ms"),
        ("delay, p99", f"{1000 * outcome.quantile(0.99):.1f} ms"),
        ("delay, maximum", f"{1000 * outcome.quantile(1.0):.1f} ms"),
        ("medians of sixths", ", ".join(f"{1000 * value:.1f}" for value in sixths) + " ms"),
        ("drift", f"{outcome.slope_ms_per_minute():+.2f} ms a minute"),
        ("CPU", f"{outcome.cpu:.2f} cores"),
    ]
    if sys.platform != "win32":
        rows.append(("load average", ", ".join(f"{value:.1f}" for value in os.getloadavg())))
    return "\n".join(["| | |", "|---|--:|", *(f"| {name} | {value} |" for name, value in rows)])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--pipeline", default="preview")
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--fps", type=float, default=30, help="of the camera")
    parser.add_argument("--background", default="extend")
    parser.add_argument("--cores", type=int, default=2, help="that the whole run may use, on Linux")
    parser.add_argument("--csv", type=Path, help="where to write the delay of each second")
    parser.add_argument("--png", type=Path, help="where to draw it")
    args = parser.parse_args()
    if sys.platform == "linux":
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: args.cores])
    pyvirtualcam.camera.BACKENDS.clear()
    pyvirtualcam.register_backend("memory", MemoryCamera)
    with tempfile.TemporaryDirectory() as folder:
        clip = Path(folder) / "driving.mp4"
        write_clip(clip, args.fps)
        job = LiveJob(
            portraits=(PORTRAIT,),
            source=str(clip),
            pipeline=args.pipeline,
            size=args.size,
            background=args.background,
            fps=args.fps,
        )
        outcome = asyncio.run(measure(job, 60 * args.minutes))
    print(table(job, args.fps, args.minutes, outcome))
    if args.csv is not None:
        write_csv(args.csv, outcome)
    if args.png is not None:
        draw(args.png, [curve(outcome)])
    first, *_, last = outcome.medians(_WINDOWS)
    drifted = last - first > _ALLOWED_DRIFT_S and last > (1 + _ALLOWED_DRIFT) * first
    return int(drifted or outcome.fps < _NEEDED_RATE * args.fps)


if __name__ == "__main__":
    sys.exit(main())
