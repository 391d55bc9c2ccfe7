"""More replicas when sessions are many, fewer when they are few: and no session is cut for that."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable

import pytest

from tests.cluster.serving.local import cluster, served, serving, wait_for
from tests.cluster.serving.test_faults import FPS, assert_never_missed, gave_reference, owner
from tests.serving.running import ClientProcess

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.filterwarnings("default"),
]

SCALING = ("--min-replicas", 1, "--max-replicas", 3, "--upscale-delay", 1, "--downscale-delay", 2)
LONGEST = 400
"""Seconds after which a client would leave by itself: all are ended before."""


def test_one_replica_becomes_three_and_one_again() -> None:
    with cluster(3) as nodes, contextlib.ExitStack() as stack:
        arguments = (*SCALING, "--gpus-per-replica", 1, "--sessions-per-replica", 4)
        server = stack.enter_context(served(nodes, *arguments))
        gave_reference(server)
        assert len(serving(server)) == 1

        def stream() -> tuple[ClientProcess, str]:
            """One more client, as soon as there is a slot for it, and its session."""
            before = {session["id"] for session in server.sessions()}
            told = ("--fps", FPS, "--seconds", LONGEST, "--no-reference")
            client = patiently(lambda: ClientProcess(server.url, *told), 90)
            stack.enter_context(client)
            (id,) = {session["id"] for session in server.sessions()} - before
            return client, id

        def end(id: str) -> None:
            assert server.delete(f"/api/v1/webrtc/offer/{id}").status_code == 204

        staying = [stream()]
        passing = [stream() for _ in range(6)]
        wait_for(lambda: len(serving(server)) == 3, 90)
        while len({owner(id) for _, id in staying}) < 3:  # until each of the three has one that stays
            staying.append(stream())
        for _, id in passing:
            end(id)

        # What is left fits on one or two: the others are drained, and have a session that stays.
        wait_for(nodes.stopped, 90)
        at, stopped = time.monotonic(), nodes.stopped()
        assert stopped & {owner(id) for _, id in staying}
        _, late = stream()
        assert owner(late) not in stopped
        wait_for(lambda: time.monotonic() > at + 15, 20)
        for _, id in staying:
            assert server.get(f"/api/v1/sessions/{id}").json()["state"] == "streaming"
        assert stopped <= serving(server)
        until = time.monotonic()
        for _, id in (*staying, (None, late)):
            end(id)
        reports = [client.report(30) for client, _ in staying]
        for report in reports:
            assert_never_missed(report, at - 5, until)
        wait_for(lambda: len(serving(server)) == 1, 90)


def patiently(client: Callable[[], ClientProcess], limit: float) -> ClientProcess:
    """A client that is connected; one that is refused for want of a slot tries again."""
    until = time.monotonic() + limit
    while True:
        one = client()
        try:
            one.wait_until_connected(30)
        except RuntimeError as error:
            one.__exit__()
            if "503" not in str(error) or time.monotonic() > until:
                raise
            time.sleep(1)
        else:
            return one
