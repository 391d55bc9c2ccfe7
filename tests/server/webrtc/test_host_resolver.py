from __future__ import annotations

import asyncio
import socket
import threading

import pytest

from personalive.server.webrtc.host_resolver import HostResolver


def test_an_address_is_its_own_and_a_name_is_looked_up() -> None:
    async def look() -> tuple[str | None, ...]:
        lookup = HostResolver()
        return await lookup.resolve("192.0.2.7", 0.0), await lookup.resolve("localhost", 20)

    assert asyncio.run(look()) == ("192.0.2.7", "127.0.0.1")


@pytest.mark.parametrize("host", ["no-such-host.invalid", "a" * 300, "\ud800", ".."])
def test_what_has_no_address_has_none(host: str) -> None:
    assert asyncio.run(HostResolver().resolve(host, 20)) is None


def test_a_silent_name_server_is_waited_for_once_and_in_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    asked, answers = [], threading.Event()

    def slow(host: str) -> str:
        asked.append(host)
        answers.wait(20)
        return "192.0.2.9"

    monkeypatch.setattr(socket, "gethostbyname", slow)

    async def look() -> str | None:
        lookup = HostResolver()
        assert await asyncio.gather(*(lookup.resolve("stun.example", 0.05) for _ in range(20))) == [None] * 20
        answers.set()
        assert await lookup.resolve("stun.example", 20) == "192.0.2.9"
        return await lookup.resolve("stun.example", 0.0)

    assert asyncio.run(look()) == "192.0.2.9"
    assert asked == ["stun.example"]
