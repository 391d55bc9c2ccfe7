from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.responses import PlainTextResponse

from personalive.server.connection_limit import ConnectionLimiter, ConnectionLimitMiddleware
from tests.server.asgi import ask


class Client:
    def __init__(self, stage: str) -> None:
        self.stage = stage
        self.dismissed = False

    @property
    def is_idle(self) -> bool:
        return self.stage == "idle"

    @property
    def is_waiting(self) -> bool:
        return self.stage in {"idle", "asking"}

    def abort(self) -> None:
        self.dismissed = True


HOSTS = [
    "127.0.0.1",
    "::ffff:127.0.0.1",
    "203.0.113.7",
    "2001:db8::1",
    "2001:db8::ffff",
    "2001:db8:0:1::1",
    "",
]
ARRIVALS = st.lists(
    st.tuples(st.sampled_from(HOSTS), st.sampled_from(["idle", "asking", "answered"])), max_size=60
)


@given(ARRIVALS)
def test_a_newcomer_gets_in_as_long_as_anybody_can_make_room(arrivals: list[tuple[str, str]]) -> None:
    crowd = ConnectionLimiter(max_connections=8, max_per_address=4)
    there: list[Client] = []
    for host, stage in arrivals:
        newcomer = Client("idle")
        others_wait = any(client.is_waiting for client in there)
        crowd.add(newcomer, host)
        there = [client for client in (*there, newcomer) if not client.dismissed]
        assert newcomer in there or not others_wait
        assert len(there) == len(crowd) <= 8
        newcomer.stage = stage


def test_the_oldest_idle_one_of_the_same_address_goes_first() -> None:
    crowd = ConnectionLimiter(max_connections=100, max_per_address=3)
    clients = [Client(stage) for stage in ("answered", "asking", "idle", "idle", "idle")]
    for client in clients[:4]:
        crowd.add(client, "203.0.113.7")
    assert [client.dismissed for client in clients[:4]] == [False, False, True, False]
    clients[3].stage = "answered"
    crowd.add(clients[4], "203.0.113.7")
    assert [client.dismissed for client in clients] == [False, True, True, False, False]


def test_where_there_are_too_many_in_all_the_address_with_most_gives_way() -> None:
    crowd = ConnectionLimiter(max_connections=4, max_per_address=3)
    few, many = Client("idle"), [Client("idle") for _ in range(3)]
    crowd.add(few, "203.0.113.7")
    for client in many:
        crowd.add(client, "198.51.100.1")
    crowd.add(Client("idle"), "192.0.2.1")
    assert not few.dismissed
    assert [client.dismissed for client in many] == [True, False, False]


def test_a_network_of_ipv6_counts_as_one_address() -> None:
    crowd = ConnectionLimiter(max_connections=100, max_per_address=1)
    first, second, elsewhere = Client("idle"), Client("idle"), Client("idle")
    crowd.add(first, "2001:db8::1")
    crowd.add(elsewhere, "2001:db8:0:1::1")
    crowd.add(second, "2001:db8::2")
    assert (first.dismissed, elsewhere.dismissed, second.dismissed) == (True, False, False)
    crowd.remove(second, "2001:db8::2")
    crowd.remove(second, "2001:db8::2")
    assert len(crowd) == 1


@pytest.mark.parametrize(("path", "status"), [("/health", 200), ("/health/ready", 200), ("/whip", 503)])
def test_a_crowded_address_is_told_to_wait_but_for_health(path: str, status: int) -> None:
    crowd = ConnectionLimiter(max_connections=100, max_per_address=2)
    guard = ConnectionLimitMiddleware(PlainTextResponse("fine"), crowd)
    for _ in range(3):
        crowd.add(Client("answered"), "127.0.0.1")
    answered = asyncio.run(ask(guard, "GET", path))
    assert answered.status == status
    if status == 503:
        assert answered.headers["retry-after"] == "1"
        assert "try again" in answered.detail


def test_idle_connections_do_not_make_an_address_crowded() -> None:
    crowd = ConnectionLimiter(max_connections=100, max_per_address=2)
    clients = [Client("answered") for _ in range(3)]
    for client in clients:
        crowd.add(client, "127.0.0.1")
    clients[0].stage = "idle"
    assert (
        asyncio.run(ask(ConnectionLimitMiddleware(PlainTextResponse("fine"), crowd), "GET", "/whip")).status
        == 200
    )
