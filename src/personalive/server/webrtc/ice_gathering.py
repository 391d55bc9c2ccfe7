"""Gather the server's own ICE candidates before an offer is answered, in limited time.

The ICE library waits five seconds for STUN and TURN servers on each of the machine's addresses, even on one from
which a server cannot be reached. Servers that do not answer in the times below are left out of the answer.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable
from typing import Any

from aioice import Candidate, Connection
from aiortc import RTCPeerConnection

from personalive.server.telemetry import logs
from personalive.server.webrtc.host_resolver import HostResolver

STUN_TIMEOUT_S = 0.4
"""Seconds for a STUN server, including the lookup of its name; it takes one round trip."""
TURN_TIMEOUT_S = 2.0
"""Seconds for a TURN server, which takes several round trips."""
_UNREACHABLE_TTL_S = 60.0
"""Seconds for which a TURN server that did not answer is not asked again."""


class IceGathering:
    """The time limits with which all connections of a server gather candidates. Use it on the event loop only."""

    def __init__(self) -> None:
        self._resolver = HostResolver()
        self._unreachable_until: dict[tuple[str, int], float] = {}

    def limit_time(self, connection: RTCPeerConnection) -> None:
        """Limit how long a connection gathers candidates. Call it between the remote and the local description."""
        for ice in _ice_connections(connection):
            self._limit_connection(ice)

    def _limit_connection(self, ice: Connection) -> None:
        """Ask STUN and TURN servers one after the other, each with its own time limit."""
        gather: Any = ice.get_component_candidates
        stun, turn = ice.stun_server, ice.turn_server

        async def gather_soon(component: int, addresses: list[str], **options: Any) -> list[Candidate]:
            del options  # the library's timeout
            begun = time.monotonic()
            ice.stun_server, ice.turn_server = await self._resolve(stun, STUN_TIMEOUT_S), None
            left = max(STUN_TIMEOUT_S - (time.monotonic() - begun), 0.05)
            found: list[Candidate] = await gather(component, addresses, timeout=left)
            if (
                stun is not None
                and any(":" not in each.host for each in found)
                and not _has_type(found, "srflx")
            ):
                _log_silent_server("stun", stun, begun)
            return found + (await relayed(component) if turn is not None else [])

        async def relayed(component: int) -> list[Candidate]:
            assert turn is not None
            begun = time.monotonic()
            if begun < self._unreachable_until.get(turn, 0.0):
                return []
            # With TLS the name is kept, since the server's certificate is for it.
            ice.stun_server = None
            ice.turn_server = turn if ice.turn_ssl else await self._resolve(turn, TURN_TIMEOUT_S)
            found: list[Candidate] = await gather(component, [], timeout=TURN_TIMEOUT_S)
            if not _has_type(found, "relay"):
                self._unreachable_until[turn] = time.monotonic() + _UNREACHABLE_TTL_S
                _log_silent_server("turn", turn, begun)
            return found

        ice.get_component_candidates = gather_soon  # type: ignore[method-assign, assignment]

    async def _resolve(self, server: tuple[str, int] | None, timeout: float) -> tuple[str, int] | None:
        if server is None:
            return None
        address = await self._resolver.resolve(server[0], timeout)
        return None if address is None else (address, server[1])


def has_candidates(connection: RTCPeerConnection) -> bool:
    """Return whether each transport of a connection has a candidate. Call it after the local description is set."""
    return all(ice.local_candidates for ice in _ice_connections(connection))


def _ice_connections(connection: RTCPeerConnection) -> Iterable[Connection]:
    transports = [transceiver.receiver.transport for transceiver in connection.getTransceivers()]
    if connection.sctp is not None:
        transports.append(connection.sctp.transport)
    # Bundled sections share one transport.
    gatherers = {transport.transport.iceGatherer for transport in transports}
    return [gatherer._connection for gatherer in gatherers]


def _has_type(candidates: list[Candidate], kind: str) -> bool:
    return any(candidate.type == kind for candidate in candidates)


def _log_silent_server(kind: str, server: tuple[str, int], begun: float) -> None:
    logs.event(
        "ice_server_timeout",
        level=logging.WARNING,
        kind=kind,
        server=f"{server[0]}:{server[1]}",
        waited_s=round(time.monotonic() - begun, 2),
    )
