"""From the camera to the screen: what a server adds, and that it stays what it was.

    python -m benchmarks.delay                                # nine cases of five minutes, a table in Markdown
    python -m benchmarks.delay --seconds 20 --fps 30          # a try
    python -m benchmarks.delay --chunk 1 --delay 0            # a pipeline that answers every frame at once
    python -m benchmarks.delay --png delay.png              # the delay over time as well

Each case is a separate server with a pipeline that takes a known time for each frame, and one client in another
process whose frames carry readable numbers. Speed 1 is a pipeline exactly as fast as the camera, 0.5 half as fast.

Columns: frames per second that came; p95 from capture (a frame's arrival at the server) to send, by the server, and
what it may be: the pipeline's own delay, two frame intervals and one chunk; p95 from capture to display by the
client, which has in it two peers' encoding, decoding and reassembly too, in ms and in frames of the camera; both
p95 at the end against ten seconds after the beginning.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.curves import Curve, draw
from tests.server.report import Report, quantile
from tests.server.running import ClientProcess, running

SPEEDS = (0.5, 1.0, 2.0)
EARLY = 10.0
"""Seconds after which a delay counts as the one from the beginning; windows are of this length too."""


@dataclass(frozen=True)
class Case:
    """A camera of `fps` frames per second on a pipeline that can do `speed` times as many."""

    fps: float
    speed: float
    chunk: int
    delay: int

    @property
    def cost(self) -> float:
        """Seconds that the pipeline takes for a frame."""
        return 1 / (self.fps * self.speed)

    @property
    def rate(self) -> float:
        """Frames per second that can come of it."""
        return self.fps * min(self.speed, 1.0)

    @property
    def own_delay(self) -> float:
        """Seconds from a frame's entering the pipeline to its leaving, were there nothing else."""
        return self.delay / self.rate + self.chunk * self.cost

    @property
    def allowed(self) -> float:
        """Seconds that capture to send may take."""
        return self.own_delay + (2 + self.chunk) / self.rate


@dataclass(frozen=True)
class Measured:
    """What came of a case. `sent` and `shown` are p95 in seconds over the whole run and at its two ends."""

    case: Case
    rate: float
    sent: float
    sent_ends: tuple[float, float]
    shown: float
    shown_ends: tuple[float, float]
    frames: float
    backwards: int
    stall_ms: float | None
    curve: Curve


def measure(case: Case, seconds: float, codec: str | None) -> Measured:
    """One run."""
    load = {"chunk_frames": case.chunk, "delay_frames": case.delay, "cost": case.cost}
    with running({"pipeline": "paced", "load_params": load, "debug_stalls": True}) as server:
        server.wait_until_loaded()
        flags = [] if codec is None else ["--codec", codec]
        with ClientProcess(server.url, "--fps", case.fps, "--seconds", seconds, *flags) as client:
            report = client.report(seconds + 60)
        stall = server.get("/api/v1/sessions").json()["longest_stall_ms"]
    return evaluate(case, report, seconds, stall)


def evaluate(case: Case, report: Report, seconds: float, stall_ms: float | None) -> Measured:
    """Return the figures of a run. Its first seconds count nowhere: the connection is being established."""
    window = min(EARLY, seconds / 3)
    begin = report.between(window / 2, window * 3 / 2)
    end = report.between(seconds - window - 1, seconds - 1)
    settled = report.between(window / 2, seconds)
    shown = quantile(settled.delays, 0.95)
    return Measured(
        case=case,
        rate=settled.rate,
        sent=quantile(settled.latencies, 0.95),
        sent_ends=(begin.latencies[-1], end.latencies[-1]),
        shown=shown,
        shown_ends=(quantile(begin.delays, 0.95), quantile(end.delays, 0.95)),
        frames=statistics.median(settled.delays_in_frames),
        backwards=report.backwards(),
        stall_ms=stall_ms,
        curve=Curve(f"camera {case.fps:g} fps, speed {case.speed:g}", _by_second(report), case.allowed),
    )


def _by_second(report: Report) -> list[tuple[float, float]]:
    """Seconds since the beginning, and the median delay of what came in that second."""
    begin = report.seen[0].received
    timed = [(int(seen.received - begin), seen) for seen in report.first_shown]
    return [
        (float(second), statistics.median(seen.received - (seen.captured or 0.0) for _, seen in those))
        for second, those in itertools.groupby(timed, key=lambda pair: pair[0])
    ]


def table(rows: Sequence[Measured]) -> str:
    """Markdown."""
    names = [
        "camera", "pipeline", "fps out", "sent p95", "allowed", "end : begin",
        "shown p95", "shown, frames", "end : begin", "longest stall",
    ]  # fmt: skip
    lines = [names, ["--:"] * len(names)]
    for row in rows:
        case = row.case
        lines.append(
            [
                f"{case.fps:g} fps",
                f"{case.speed:g}×",
                f"{row.rate:.1f}",
                f"{1000 * row.sent:.0f} ms",
                f"{1000 * case.allowed:.0f} ms",
                _change(row.sent_ends),
                f"{1000 * row.shown:.0f} ms",
                f"{row.frames:.0f}",
                _change(row.shown_ends),
                "" if row.stall_ms is None else f"{row.stall_ms:.0f} ms",
            ]
        )
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _change(ends: tuple[float, float]) -> str:
    begin, end = ends
    return f"{1000 * end:.0f} : {1000 * begin:.0f} ({100 * (end / begin - 1):+.0f} %)"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--fps", type=float, nargs="+", default=[15, 30, 60])
    parser.add_argument("--speed", type=float, nargs="+", default=list(SPEEDS))
    parser.add_argument("--chunk", type=int, default=4, help="frames of a step; the diffusion pipeline has 4")
    parser.add_argument("--delay", type=int, default=12, help="frames inside the pipeline; it has 12")
    parser.add_argument("--codec", choices=("H264", "VP8"))
    parser.add_argument("--png", type=Path, help="where to draw the delay over time")
    args = parser.parse_args()
    rows = []
    for fps, speed in itertools.product(args.fps, args.speed):
        rows.append(measure(Case(fps, speed, args.chunk, args.delay), args.seconds, args.codec))
        print(table(rows[-1:]).splitlines()[-1], file=sys.stderr, flush=True)
    print(table(rows))
    if args.png is not None:
        draw(args.png, [row.curve for row in rows])
    return int(any(row.sent > row.case.allowed or row.backwards for row in rows))


if __name__ == "__main__":
    sys.exit(main())
