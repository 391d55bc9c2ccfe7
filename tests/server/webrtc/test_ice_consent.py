"""A peer whose answers come late stays; one that answers nothing is missed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from aioice import Connection, ice, stun

from personalive.server.webrtc.ice_consent import FAILURES, accept_late_answers


@pytest.fixture
def quick_checks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ice, "CONSENT_INTERVAL", 0.02)
    monkeypatch.setattr(stun, "RETRY_RTO", 0.04)
    accept_late_answers()


async def connected() -> tuple[Connection, Connection]:
    one, other = Connection(ice_controlling=True), Connection(ice_controlling=False)
    for connection in (one, other):
        await connection.gather_candidates()
    for here, there in ((one, other), (other, one)):
        here.remote_username, here.remote_password = there.local_username, there.local_password
        for candidate in [*there.local_candidates, None]:
            await here.add_remote_candidate(candidate)
    await asyncio.gather(one.connect(), other.connect())
    return one, other


def with_answers(monkeypatch: pytest.MonkeyPatch, pass_on: Callable[[Callable[[], None]], object]) -> None:
    """Hand each datagram with an answer to `pass_on`, as a function that delivers it."""
    receive = ice.StunProtocol.datagram_received

    def received(self: ice.StunProtocol, data: bytes, addr: tuple[str, int]) -> None:
        is_answer = len(data) > 1 and data[0] == 1  # a success response of a binding request
        if is_answer:
            pass_on(lambda: receive(self, data, addr))
        else:
            receive(self, data, addr)

    monkeypatch.setattr(ice.StunProtocol, "datagram_received", received)


async def is_closed_within(connection: Connection, seconds: float) -> bool:
    try:
        await asyncio.wait_for(connection.recv(), seconds)
    except ConnectionError:
        return True
    except TimeoutError:
        return False
    raise AssertionError("nothing was sent")


@pytest.mark.usefixtures("quick_checks")
def test_answers_that_come_late_are_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    async def late() -> bool:
        one, other = await connected()
        loop = asyncio.get_running_loop()
        with_answers(monkeypatch, lambda deliver: loop.call_later(0.1, deliver))
        closed = await is_closed_within(one, 2)
        await asyncio.gather(one.close(), other.close())
        return closed

    assert not asyncio.run(late())


@pytest.mark.usefixtures("quick_checks")
def test_a_peer_without_answers_is_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    async def silent() -> bool:
        one, other = await connected()
        with_answers(monkeypatch, lambda deliver: None)
        closed = await is_closed_within(one, 30)
        await asyncio.gather(one.close(), other.close())
        return closed

    assert asyncio.run(silent())


def test_calling_it_again_changes_nothing() -> None:
    accept_late_answers()
    request = ice.StunProtocol.request
    accept_late_answers()
    assert ice.StunProtocol.request is request
    assert ice.CONSENT_FAILURES == FAILURES
