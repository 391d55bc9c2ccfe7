"""Many clients at once, and many one after the other: a server carries on evenly and keeps nothing.

    python -m benchmarks.server_load                  # eight preview sessions for a minute, then 200 connections

Every session has a client in a separate process that shows the sample clip. The first table has frames per second
of each by part of the run: they may be few where there are more sessions than the machine carries, but must be as
many for all. The second has what the server's process holds before and after: sessions, threads, open handles, RSS.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import sys
import time
from collections.abc import Sequence

from tests.server.camera import Camera
from tests.server.client import streaming
from tests.server.report import Report
from tests.server.running import ClientProcess, Held, RunningServer, running

PARTS = 6
SETTLE = 3.0
"""Seconds after the last client has connected that count for nobody."""
CONNECT = 1.5
"""Seconds by which one may be connected later than another, for each that starts beside it."""
WARM_UP = 60
"""Connections before the first look: pools of threads and memory fill up first."""


def together(server: RunningServer, sessions: int, fps: float, seconds: float) -> list[Report]:
    """Return what that number of clients saw that streamed at the same time for `seconds`."""
    longer = seconds + CONNECT * sessions
    with contextlib.ExitStack() as stack:
        arguments = ("--fps", fps, "--seconds", longer, "--face")
        clients = [stack.enter_context(ClientProcess(server.url, *arguments)) for _ in range(sessions)]
        for client in clients:
            client.wait_until_connected(30 + CONNECT * sessions)
        return [client.report(longer + 60) for client in clients]


def shared(reports: Sequence[Report], seconds: float) -> list[Report]:
    """Of each client the `seconds` in which all of them streamed. Clocks are those of one machine."""
    begin = max(report.seen[0].received for report in reports) + SETTLE
    end = begin + seconds - SETTLE
    return [report.within(begin, end) for report in reports]


def rates(report: Report, parts: int) -> list[float]:
    """Frames per second in equal parts of the time."""
    if len(report.seen) < 2:
        return [0.0] * parts
    begin, end = report.seen[0].received, report.seen[-1].received
    span = (end - begin) / parts
    return [
        sum(begin + part * span <= seen.received < begin + (part + 1) * span for seen in report.seen) / span
        for part in range(parts)
    ]


async def come_and_go(url: str, cycles: int, reference: bytes | None = None) -> None:
    """Run `cycles` sessions after each other, of a few frames. Every other client leaves without a DELETE."""
    for cycle in range(cycles):
        async with streaming(url, Camera(15), reference=reference) as client:
            await client.frames(3)
            if cycle % 2:
                client.id = None  # it says goodbye on the connection only


def settled(server: RunningServer, seconds: float = 4.0) -> Held:
    """Return what the server holds when nobody streams any more and what was asked of it is done."""
    server.wait_for_sessions(0)
    time.sleep(seconds)
    return server.held()


def growth(before: Held, after: Held) -> str:
    """Return a table in Markdown."""
    rows = [("", "before", "after", "change")]
    for name in ("sessions", "processes", "threads", "handles"):
        first, last = getattr(before, name), getattr(after, name)
        rows.append((name, str(first), str(last), f"{last - first:+d}"))
    megabytes = (before.rss / 1e6, after.rss / 1e6)
    change = f"{100 * (after.rss / before.rss - 1):+.1f} %"
    rows.append(("RSS", f"{megabytes[0]:.1f} MB", f"{megabytes[1]:.1f} MB", change))
    rows.insert(1, ("---",) * 4)
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def print_rates(reports: Sequence[Report]) -> None:
    """Return a line for each session."""
    print("| session | fps | " + " | ".join(f"part {part + 1}" for part in range(PARTS)) + " | longest gap |")
    print("|" + " --: |" * (PARTS + 3))
    for number, report in enumerate(reports, 1):
        parts = " | ".join(f"{rate:.1f}" for rate in rates(report, PARTS))
        print(f"| {number} | {report.rate:.2f} | {parts} | {1000 * max(report.gaps, default=0):.0f} ms |")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--pipeline", default="preview")
    parser.add_argument("--sessions", type=int, default=8)
    parser.add_argument("--fps", type=float, default=15, help="of each camera")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--cycles", type=int, default=200)
    args = parser.parse_args()
    with running(
        {
            "pipeline": args.pipeline,
            "max_sessions": args.sessions,
            "debug_stalls": True,
            "log_level": "warning",
        }
    ) as server:
        server.wait_until_loaded()
        if args.sessions and args.seconds:
            reports = together(server, args.sessions, args.fps, args.seconds)
            print_rates(shared(reports, args.seconds))
            stall = server.get("/api/v1/sessions").json()["longest_stall_ms"]
            print(f"\nlongest stall of the server's event loop: {stall} ms\n")
        asyncio.run(come_and_go(server.url, WARM_UP))
        before = settled(server)
        asyncio.run(come_and_go(server.url, args.cycles))
        print(growth(before, settled(server)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
