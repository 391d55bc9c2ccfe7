"""The page before a cluster: it notices that its replica is gone, and goes on at another one."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser

from tests.browser.chrome import Transport, visiting
from tests.server.cluster.crowd import owner
from tests.server.cluster.local import Nodes, cluster, served, serving, wait_for
from tests.server.running import RunningServer

pytestmark = [
    pytest.mark.browser,
    pytest.mark.cluster,
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.filterwarnings("default"),  # Ray's own
]

AGAIN = 30.0
"""Seconds in which a lost session is another one: eight until the page calls it lost, and then it tries again."""


@pytest.fixture(scope="module")
def replicated() -> Iterator[tuple[Nodes, RunningServer]]:
    """Two replicas."""
    arguments = ("--replicas", 2, "--gpus-per-replica", 1)
    settings = {"pipeline": "preview", "load_params": {}}
    with cluster(2) as nodes, served(nodes, *arguments, settings=settings) as server:
        yield nodes, server


def test_the_page_goes_on_at_another_replica(
    transport: Transport, browser: Browser, replicated: tuple[Nodes, RunningServer]
) -> None:
    nodes, server = replicated
    wait_for(lambda: len(serving(server)) == 2, 120)
    server.wait_for_sessions(0)
    with visiting(browser, server.url, transport=transport) as visit:
        visit.start()
        visit.wait_until_live()
        (session,) = server.sessions()
        victim, at = owner(session["id"]), time.monotonic()
        nodes.kill_process(victim)
        visit.told("Connection lost")
        visit.told("Following the face", AGAIN)
        assert time.monotonic() - at < AGAIN
        (session,) = server.sessions()
        assert owner(session["id"]) != victim
        assert visit.is_moving(6)
