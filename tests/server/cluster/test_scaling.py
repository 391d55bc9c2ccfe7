"""More replicas when sessions are many, fewer when they are few: and no session is cut for that."""

from __future__ import annotations

import time

import pytest

from tests.server.cluster.crowd import Crowd, owner
from tests.server.cluster.local import cluster, give_reference, replicas, served, serving, wait_for
from tests.server.cluster.test_faults import assert_never_missed
from tests.server.running import RunningServer

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.filterwarnings("default"),
]

SCALING = ("--min-replicas", 1, "--max-replicas", 3, "--upscale-delay", 1, "--downscale-delay", 2)
WATCHED = 10.0
"""Seconds for which sessions are watched, at least, on replicas that are to go."""
TOLD = 40.0
"""Seconds in which such a replica knows: it hears nothing from Serve, and that is how."""


def test_one_replica_becomes_three_and_one_again() -> None:
    arguments = (*SCALING, "--gpus-per-replica", 1, "--sessions-per-replica", 4)
    with (
        cluster(3) as nodes,
        served(nodes, *arguments) as server,
        Crowd(server.url) as crowd,
    ):
        give_reference(server)
        assert len(serving(server)) == 1
        # Eight sessions are more than two replicas are meant to have; those without a slot try again until they do.
        clients = [crowd.join(patience=60) for _ in range(8)]
        wait_for(lambda: len(serving(server)) == 3, 90)
        while len({owner(client) for client in clients}) < 3:
            clients.append(crowd.join(patience=10))
        staying = [next(client for client in clients if owner(client) == one) for one in serving(server)]
        crowd.leave([client for client in clients if client not in staying])

        # Three sessions fit on one replica: the other two are drained, and each has one that stays.
        wait_for(lambda: len(nodes.stopped()) == 2, 90)
        at, stopped = time.monotonic(), nodes.stopped()
        assert stopped < {owner(client) for client in staying}
        late = crowd.join(patience=10)
        assert owner(late) not in stopped
        wait_for(lambda: leaving(server) == stopped, TOLD)
        told = server.get("/api/v1/sessions").json()
        assert {session["id"] for session in told["sessions"]} == {client.id for client in (*staying, late)}
        assert told["max_sessions"] == 4 + 2  # no more slots than those in use where nobody new gets in
        for client in staying:
            assert server.get(f"/api/v1/sessions/{client.id}").json()["state"] == "streaming"
        now = time.monotonic()
        assert now - at > WATCHED
        for client in (*staying, late):
            assert_never_missed([client], client.report.seen[0].received, now)
        crowd.leave([client for client in staying if owner(client) in stopped])
        wait_for(lambda: len(replicas(server)) == 1, 60)
        assert_never_missed([late], now, time.monotonic())


def leaving(server: RunningServer) -> set[str]:
    """The replicas that say they are to go."""
    return {each["id"] for each in replicas(server) if each["stage"] == "leaving"}
