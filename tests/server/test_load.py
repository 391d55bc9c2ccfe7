"""Many clients: at once they share evenly, one after the other they leave nothing behind."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from benchmarks.server_load import WARM_UP, come_and_go, settled, shared, together
from tests.server.client import PORTRAIT, Client
from tests.server.running import Held, RunningServer, running

POOLED = 8
"""Threads that pools may still add to while they fill."""
A_THREAD = 24 * 2**20
"""Bytes that a thread of a pool keeps for its next task: its heap, and what a decoder or a network holds."""


def assert_nothing_stays(before: Held, after: Held, growth: float) -> None:
    assert after.sessions == 0
    assert after.threads <= before.threads + POOLED
    assert after.handles <= before.handles + 2
    assert after.rss < growth * before.rss + A_THREAD * max(after.threads - before.threads, 0)


@pytest.mark.slow
def test_sessions_share_evenly_what_is_too_little_for_all() -> None:
    # Four cameras of 15 frames per second want 60 of a pipeline that makes 25.
    load = {"cost": 1 / 25, "width": 256, "height": 256}
    with running({"pipeline": "paced", "load_params": load, "max_sessions": 4}) as server:
        server.wait_until_loaded()
        reports = together(server, 4, 15, 7)
        assert all(report.ended is None for report in reports)
        found = [report.rate for report in shared(reports, 7)]
        assert min(found) > 2
        assert max(found) < 1.6 * min(found)
        assert sum(found) < 30


def test_a_fifth_client_is_told_that_all_slots_are_taken() -> None:
    async def try_it(url: str) -> None:
        async with Client(url) as one, Client(url) as other:
            await one.post_reference(PORTRAIT.read_bytes())
            await one.connect()
            refused = await other.http.post(
                "/api/v1/webrtc/offer", json={"sdp": await other.offer(), "type": "offer"}
            )
            assert refused.status_code == 503
            assert int(refused.headers["Retry-After"]) > 0
            assert "slots are taken" in refused.json()["detail"]
            await one.close()
            answer = await other.http.post(
                "/api/v1/webrtc/offer", json={"sdp": other.peer.localDescription.sdp, "type": "offer"}
            )
            assert answer.status_code == 200

    with running({"pipeline": "paced"}) as server:
        server.wait_until_loaded()
        asyncio.run(try_it(server.url))


@pytest.mark.slow
def test_clients_that_come_and_go_leave_nothing_behind() -> None:
    with running({"pipeline": "paced", "max_sessions": 2, "log_level": "warning"}) as server:
        server.wait_until_loaded()
        asyncio.run(come_and_go(server.url, 5))
        before = settled(server, 1)
        asyncio.run(come_and_go(server.url, 12))
        assert_nothing_stays(before, settled(server, 1), growth=1.1)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_eighty_clients_leave_nothing_behind() -> None:
    # Caches and pools fill for some hundred clients, by 40 MB in all. Two hundred are the benchmark's,
    # benchmarks/server_load.py.
    with running({"pipeline": "preview", "max_sessions": 2, "log_level": "warning"}) as server:
        server.wait_until_loaded()
        asyncio.run(come_and_go(server.url, WARM_UP))
        looks = [look(server) for _ in range(8)]
        assert_nothing_stays(middle(looks[:4]), middle(looks[4:]), growth=1.12)


def look(server: RunningServer) -> Held:
    """What is held after ten more clients."""
    asyncio.run(come_and_go(server.url, 10))
    return settled(server)


def middle(looks: Sequence[Held]) -> Held:
    """By memory, which comes and goes by 4 % either way while nothing stays."""
    return sorted(looks, key=lambda held: held.rss)[len(looks) // 2]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_eight_previews_keep_running() -> None:
    # How evenly they share is measured by benchmarks/server_load.py.
    with running({"pipeline": "preview", "max_sessions": 8, "log_level": "warning"}) as server:
        server.wait_until_loaded()
        reports = together(server, 8, 15, 15)
        assert [report.ended for report in reports] == [None] * 8
        assert all(len(report.seen) > 3 for report in reports)
