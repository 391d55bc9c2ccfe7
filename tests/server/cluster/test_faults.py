"""What goes wrong in a cluster while clients stream, and what each of them then sees.

Seconds are counted here, on two cores that carry the whole cluster and all of its clients. So the pipeline is one
that takes no time: with the preview, seconds would tell more of it than of the cluster.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator

import httpx
import pytest

from tests.server.client import Client
from tests.server.cluster.crowd import FPS, Crowd, longest_gap, owner
from tests.server.cluster.local import Nodes, cluster, give_reference, served, serving, wait_for
from tests.server.running import RunningServer

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.filterwarnings("default"),
]

GAP = 5 / FPS
"""Seconds: that many frames missing in a row are a miss. A replica that starts takes all of a small machine."""
TOLD = 45.0
"""Seconds in which a client of a dead replica knows: WebRTC asks every five for consent, and gives up after six."""


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    with cluster(4) as found:
        yield found


@pytest.fixture(scope="module")
def server(nodes: Nodes) -> Iterator[RunningServer]:
    arguments = ("--replicas", 3, "--gpus-per-replica", 1, "--sessions-per-replica", 6)
    with served(nodes, *arguments) as one:
        wait_for(lambda: len(serving(one)) == 3, 120)
        give_reference(one)
        yield one


@pytest.fixture
def crowd(server: RunningServer) -> Iterator[Crowd]:
    with Crowd(server.url) as one:
        yield one


def streaming(crowd: Crowd, count: int) -> list[Client]:
    """That many new clients, each of which has got frames for a second."""
    clients = [crowd.join() for _ in range(count)]
    for client in clients:
        crowd.wait(client, FPS)
    return clients


def assert_never_missed(clients: Iterable[Client], since: float, until: float) -> None:
    """They got frames all the time between two times of this machine's clock."""
    for client in clients:
        assert client.report.ended is None
        assert not client.report.told("stream_stopped")
        assert longest_gap(client.report, since, until) < GAP
        # One frame may lie on either side of a short time.
        assert len(client.report.within(since, until).seen) > 0.7 * FPS * (until - since) - 1


def replica_of_one_that_joins_at_once(crowd: Crowd) -> str:
    """A new session, of a camera at half of its usual rate, whose first frame waits for no time-out."""
    began = time.monotonic()
    client = crowd.join(fps=15)
    assert time.monotonic() - began < 15
    crowd.leave([client])
    return owner(client)


def test_a_replica_that_is_killed_takes_only_its_own_sessions_with_it(
    nodes: Nodes, server: RunningServer, crowd: Crowd
) -> None:
    clients = streaming(crowd, 12)
    assert len({owner(client) for client in clients}) == 3
    victim = owner(clients[0])
    lost = [client for client in clients if owner(client) == victim]
    kept = [client for client in clients if owner(client) != victim]
    at = time.monotonic()
    nodes.kill_process(victim)
    for client in lost:
        told = server.get(f"/api/v1/sessions/{client.id}")
        assert told.status_code == 404
        assert "gone" in told.json()["detail"]
    for _ in range(3):
        assert replica_of_one_that_joins_at_once(crowd) != victim
    for client in kept:
        assert server.get(f"/api/v1/sessions/{client.id}").status_code == 200
    wait_for(lambda: len(serving(server) - {victim}) == 3, 60)
    crowd.wait_until_gone(lost, TOLD)
    assert_never_missed(kept, at - 1, time.monotonic())


@pytest.mark.parametrize("part", ["Ingress", "Controller"])
def test_sessions_go_on_without_what_is_on_the_head(
    nodes: Nodes, server: RunningServer, crowd: Crowd, part: str
) -> None:
    clients = streaming(crowd, 3)
    at = time.monotonic()
    nodes.kill_process(part)
    wait_for(lambda: answers(server) and len(serving(server)) == 3, 30)
    if part == "Controller":
        give_reference(server)
    assert {session["id"] for session in server.sessions()} == {client.id for client in clients}
    replica_of_one_that_joins_at_once(crowd)
    assert_never_missed(clients, at - 1, time.monotonic())
    gone = clients.pop()
    assert server.delete(f"/api/v1/webrtc/offer/{gone.id}").status_code == 204
    wait_for(lambda: str(gone.id) not in {session["id"] for session in server.sessions()}, 10)


def test_a_node_that_is_lost_takes_only_its_own_sessions_with_it(
    nodes: Nodes, server: RunningServer, crowd: Crowd
) -> None:
    clients = streaming(crowd, 6)
    victim = owner(clients[0])
    kept = [client for client in clients if owner(client) != victim]
    assert kept
    at = time.monotonic()
    nodes.kill_node_of(victim)
    assert replica_of_one_that_joins_at_once(crowd) != victim
    wait_for(lambda: len(serving(server) - {victim}) == 3, 90)  # four nodes were there: on the one left over
    assert_never_missed(kept, at - 1, time.monotonic())


def answers(server: RunningServer) -> bool:
    try:
        return server.get("/api/v1/cluster").status_code == 200
    except httpx.TransportError:
        return False
