from __future__ import annotations

import asyncio
import contextlib
import errno
import re
import socket

import pytest
from aiortc import RTCConfiguration, RTCPeerConnection

from personalive.server.run import bind_socket
from personalive.server.webrtc import port_range_loop
from personalive.server.webrtc.port_range_loop import PortRangeEventLoop, make_loop_factory


def free_range(count: int) -> range:
    """Ports that are free now."""
    for low in range(42_000, 60_000, 64):
        ports = range(low, low + count)
        with contextlib.ExitStack() as stack:
            try:
                for port in ports:
                    stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)).bind(
                        ("127.0.0.1", port)
                    )
            except OSError:
                continue
            return ports
    raise AssertionError("no free ports")


def open_one(
    local: tuple[str, int],
) -> asyncio.Future[tuple[asyncio.DatagramTransport, asyncio.DatagramProtocol]]:
    loop = asyncio.get_running_loop()
    return asyncio.ensure_future(loop.create_datagram_endpoint(asyncio.DatagramProtocol, local_addr=local))


def test_any_port_means_one_of_the_range_until_all_are_taken() -> None:
    ports = free_range(3)

    async def run() -> None:
        opened = [(await open_one(("127.0.0.1", 0)))[0] for _ in ports]
        taken = {transport.get_extra_info("sockname")[1] for transport in opened}
        assert taken == set(ports)
        with pytest.raises(OSError, match="all UDP ports of") as caught:
            await open_one(("127.0.0.1", 0))
        assert caught.value.errno == errno.EADDRINUSE
        opened[0].close()
        await asyncio.sleep(0)
        again, _ = await open_one(("127.0.0.1", 0))
        for transport in (*opened, again):
            transport.close()

    with asyncio.Runner(loop_factory=lambda: PortRangeEventLoop(ports)) as runner:
        runner.run(run())


def test_a_port_that_is_named_is_left_alone() -> None:
    ports, (other,) = free_range(2), free_range(1)

    async def run() -> None:
        transport, _ = await open_one(("127.0.0.1", other))
        assert transport.get_extra_info("sockname")[1] == other
        transport.close()
        with pytest.raises(OSError, match=r"assign|address"):
            await open_one(("203.0.113.1", 0))

    with asyncio.Runner(loop_factory=make_loop_factory(ports)) as runner:
        runner.run(run())


def test_connections_offer_candidates_within_the_range() -> None:
    """The real ICE library, which asks its loop for any port."""
    ports = free_range(16)

    async def run() -> set[int]:
        peer = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        peer.createDataChannel("parameters")
        await peer.setLocalDescription(await peer.createOffer())
        found = re.findall(r"a=candidate:\S+ \d \S+ \d+ \S+ (\d+) typ host", peer.localDescription.sdp)
        await peer.close()
        return {int(port) for port in found}

    with asyncio.Runner(loop_factory=make_loop_factory(ports)) as runner:
        found = runner.run(run())
    assert found <= set(ports)
    assert found


def test_without_a_range_any_port_will_do() -> None:
    async def run() -> None:
        transport, _ = await open_one(("127.0.0.1", 0))
        assert transport.get_extra_info("sockname")[1] != 0
        transport.close()

    with asyncio.Runner(loop_factory=make_loop_factory(None)) as runner:
        runner.run(run())


def test_no_more_sockets_are_taken_than_can_be_watched(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on Windows, where one more would end the loop: clients are hung up on."""
    monkeypatch.setattr(port_range_loop, "MAX_SOCKETS_PER_KIND", 6)

    async def crowd() -> tuple[int, int]:
        with bind_socket("127.0.0.1", 0) as listener, contextlib.ExitStack() as opened:
            server = await asyncio.start_server(lambda reader, writer: None, sock=listener)
            clients = [
                opened.enter_context(socket.create_connection(listener.getsockname())) for _ in range(12)
            ]
            await asyncio.sleep(0.2)
            hung_up = 0
            for client in clients:
                client.setblocking(False)
                with contextlib.suppress(BlockingIOError):
                    hung_up += client.recv(1) == b""
            endpoints: list[tuple[asyncio.DatagramTransport, asyncio.DatagramProtocol]] = []
            with contextlib.suppress(OSError):
                while len(endpoints) < 20:
                    endpoints.append(await open_one(("127.0.0.1", 0)))
            for transport, _ in endpoints:
                transport.close()
            server.close()
            return len(clients) - hung_up, len(endpoints)

    with asyncio.Runner(loop_factory=make_loop_factory(None)) as runner:
        accepted, media = runner.run(crowd())
    assert (accepted, media) == (6, 6)
