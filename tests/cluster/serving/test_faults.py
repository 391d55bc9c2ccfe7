"""What goes wrong in a cluster while clients stream, and what each of them then sees."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections.abc import Iterator

import pytest

from tests.cluster.serving.local import cluster, kill, served, serving, wait_for
from tests.serving.camera import Camera
from tests.serving.client import PORTRAIT, Client
from tests.serving.report import Report
from tests.serving.running import ClientProcess, RunningServer

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.filterwarnings("default"),
]

FPS = 5
GAP = 1.5
"""Seconds between two frames that count as a miss: five per second come, and a session that is cut sends none."""


@contextlib.contextmanager
def clients(server: RunningServer, count: int, seconds: float) -> Iterator[list[ClientProcess]]:
    """So many clients, each in a process of its own, that stream for so long; all are connected."""
    arguments = ("--fps", FPS, "--seconds", seconds, "--no-reference")
    with contextlib.ExitStack() as stack:
        found = []
        for _ in range(count):
            found.append(stack.enter_context(ClientProcess(server.url, *arguments)))
            found[-1].wait_until_connected(60)
        yield found


def gave_reference(server: RunningServer) -> None:
    answer = server.post("/api/v1/personalive/reference", content=PORTRAIT.read_bytes())
    assert answer.status_code == 200, answer.text


def owner(session: str) -> str:
    return session.partition(".")[0]


async def opened_at_once(url: str, count: int) -> list[str]:
    """So many sessions, one after the other; each was connected and showed a frame within two seconds."""
    found = []
    for _ in range(count):
        async with Client(url, Camera(FPS)) as client:
            began = time.monotonic()
            await client.connect()
            await client.frames(1)
            assert time.monotonic() - began < 2.0
            found.append(str(client.id))
    return found


def assert_never_missed(report: Report, since: float, until: float) -> None:
    """It got frames all the time between two times of this machine's clock."""
    seen = [frame.received for frame in report.within(since, until).seen]
    assert len(seen) > 0.7 * FPS * (until - since)
    assert max(later - earlier for earlier, later in itertools.pairwise([since, *seen, until])) < GAP


def test_a_replica_that_is_killed_takes_only_its_own_sessions_with_it() -> None:
    arguments = ("--replicas", 3, "--gpus-per-replica", 1, "--sessions-per-replica", 6)
    with cluster(4) as nodes, served(nodes, *arguments) as server:
        wait_for(lambda: len(serving(server)) == 3, 120)
        gave_reference(server)
        with clients(server, 12, 75) as running:
            ids = [session["id"] for session in server.sessions()]
            assert len(ids) == 12
            assert len({owner(id) for id in ids}) == 3
            victim = owner(ids[0])
            lost = [id for id in ids if owner(id) == victim]
            kept = [id for id in ids if owner(id) != victim]
            at = time.monotonic()
            kill(victim)
            new = asyncio.run(opened_at_once(server.url, 3))
            assert victim not in {owner(id) for id in new}
            told = server.get(f"/api/v1/sessions/{lost[0]}")
            assert told.status_code == 404
            assert "gone" in told.json()["detail"]
            for id in kept:
                assert server.get(f"/api/v1/sessions/{id}").status_code == 200
            wait_for(lambda: len(serving(server) - {victim}) == 3, 60)
            until = time.monotonic()
            reports = [client.report(150) for client in running]
    survivors = [report for report in reports if report.seen[-1].received > at + 10]
    assert len(survivors) == len(kept)
    for report in survivors:
        assert report.ended is None
        assert not report.told("stream_stopped")
        assert_never_missed(report, at - 5, min(until, report.seen[-1].received))
