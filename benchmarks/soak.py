"""A server for an hour, with sessions that come and go: does it keep anything?

    python -m benchmarks.soak --png soak.png            # two preview sessions of a minute each, again and again
    python -m benchmarks.soak --minutes 10 --sessions 4

Between two rounds, when nobody streams, it looks at what all of the server's processes hold: memory (RSS), threads,
open handles. Single looks at memory vary by some percent while nothing stays, so the middle of the first third is
compared with the middle of the last. Exits with 1 where a figure has grown by more than 2 %.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.curves import Curve, draw
from benchmarks.server_load import WARM_UP, come_and_go, settled, together
from tests.server.client import PORTRAIT
from tests.server.running import Held, RunningServer, running

ALLOWED = 0.02
SHOWN = {"rss": (1e-6, "MB"), "threads": (1.0, ""), "handles": (1.0, "")}
"""What is compared and drawn, by its name in `Held`: what to multiply it with, and the unit then."""

Look = tuple[float, Held]
"""Seconds since the beginning, and what was held."""


def soak(server: RunningServer, seconds: float, sessions: int, fps: float) -> list[Look]:
    """Run rounds of a minute: half of them sessions that last, half of them many short ones."""
    begun, looks = time.monotonic(), list[Look]()
    for number in itertools.count():
        if time.monotonic() > begun + seconds:
            return looks
        if number % 2:
            asyncio.run(come_and_go(server.url, 10 * sessions, PORTRAIT.read_bytes()))
        else:
            together(server, sessions, fps, 50)
        looks.append((time.monotonic() - begun, settled(server)))
        print(f"{looks[-1][0] / 60:.1f} min: {looks[-1][1]}", file=sys.stderr, flush=True)
    raise AssertionError("counting does not end")


def growth(looks: Sequence[Look], name: str) -> tuple[float, float, float]:
    """Middles of the first and of the last third, and by what part the last is more."""
    values = [float(getattr(held, name)) for _, held in looks]
    third = max(len(values) // 3, 1)
    first, last = statistics.median(values[:third]), statistics.median(values[-third:])
    return first, last, last / first - 1


def table(looks: Sequence[Look]) -> str:
    """Markdown."""
    lines = [["", "first third", "last third", "change"], ["---", "--:", "--:", "--:"]]
    for name, (scale, unit) in SHOWN.items():
        first, last, more = growth(looks, name)
        lines.append(
            [
                name,
                f"{scale * first:.1f} {unit}".strip(),
                f"{scale * last:.1f} {unit}".strip(),
                f"{more:+.1%}",
            ]
        )
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def curves(looks: Sequence[Look]) -> list[Curve]:
    """Return what was held over time."""
    return [
        Curve(name, [(at, float(getattr(held, name))) for at, held in looks], scale=scale, unit=unit)
        for name, (scale, unit) in SHOWN.items()
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--pipeline", default="preview")
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--sessions", type=int, default=2)
    parser.add_argument("--fps", type=float, default=15, help="of each camera")
    parser.add_argument("--png", type=Path, help="where to draw it over time")
    args = parser.parse_args()
    settings = {"pipeline": args.pipeline, "max_sessions": args.sessions, "log_level": "warning"}
    with running(settings) as server:
        server.wait_until_loaded()
        asyncio.run(come_and_go(server.url, WARM_UP))
        looks = soak(server, 60 * args.minutes, args.sessions, args.fps)
    print(table(looks))
    if args.png is not None:
        draw(args.png, curves(looks))
    return int(any(growth(looks, name)[2] > ALLOWED for name in SHOWN))


if __name__ == "__main__":
    sys.exit(main())
