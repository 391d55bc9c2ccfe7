"""The remote peer's ICE candidates: checked, counted, and tried one after the other.

A candidate that cannot be used never makes a connection fail. The remote peer knows the server's addresses and
sends checks to them, so peers behind mDNS names connect even where such names cannot be resolved. For the same
reason the ICE library never gets the end of candidates: it would give up if none could be used. Connecting has a
time limit anyway.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
from collections.abc import Iterable

from aiortc import RTCIceCandidate, RTCPeerConnection
from aiortc.sdp import candidate_from_sdp

from personalive.server.errors import BadRequestError
from personalive.server.telemetry import logs
from personalive.server.webrtc.sdp_limits import MAX_CANDIDATES

_MAX_CHARACTERS = 500
_CANDIDATE_PREFIX = "a=candidate:"
_DISCARDED_LINES = (_CANDIDATE_PREFIX, "a=end-of-candidates")
_MDNS_SUFFIX = ".local"
"""The suffix of the names that browsers give instead of addresses, to be resolved by mDNS."""


def parse_candidate(text: str) -> RTCIceCandidate | None:
    """Parse a candidate in SDP form, with or without `candidate:`; return None for one that can never be used here.

    Raises `BadRequestError` for text that is no candidate.
    """
    candidate = _parse_fields(text.removeprefix("a=").removeprefix("candidate:"))
    if candidate is None:
        raise BadRequestError(f"This is not an ICE candidate: {text[:120]!r}.")
    return candidate if _is_usable(candidate) else None


def _parse_fields(text: str) -> RTCIceCandidate | None:
    fields = text.split()
    if len(text) > _MAX_CHARACTERS or len(fields) < 8 or fields[6] != "typ":
        return None
    try:
        candidate = candidate_from_sdp(text)
    except ValueError:
        return None
    in_range = 0 <= candidate.port <= 65_535 and 0 <= candidate.priority < 2**32
    return candidate if in_range else None


def _is_usable(candidate: RTCIceCandidate) -> bool:
    if candidate.protocol.lower() != "udp" or candidate.component != 1 or candidate.port == 0:
        return False
    if candidate.type not in {"host", "srflx", "relay"}:
        return False
    if candidate.ip.endswith(_MDNS_SUFFIX):
        return True
    try:
        address = ipaddress.ip_address(candidate.ip)
    except ValueError:  # a name, which is not looked up on behalf of a client
        return False
    # Exclude addresses of many hosts, or of none.
    return not (address.is_multicast or address.is_unspecified or address == _BROADCAST)


_BROADCAST = ipaddress.ip_address("255.255.255.255")


def split_candidates(sdp: str) -> tuple[str, list[RTCIceCandidate]]:
    """Return the SDP without its candidates, and the usable ones, each with its media section's number.

    Candidates that cannot be parsed are left out, since the remote peer may be reachable nevertheless.
    """
    kept: list[str] = []
    found: list[RTCIceCandidate] = []
    section = -1
    for line in sdp.splitlines(keepends=True):
        section += line.startswith("m=")
        if not line.startswith(_DISCARDED_LINES):
            kept.append(line)
        elif line.startswith(_CANDIDATE_PREFIX) and section >= 0:
            with contextlib.suppress(BadRequestError):
                if (candidate := parse_candidate(line)) is not None:
                    candidate.sdpMLineIndex = section
                    found.append(candidate)
    return "".join(kept), found


class RemoteCandidates:
    """The remote candidates of one connection, which gets up to `MAX_CANDIDATES` of them."""

    def __init__(self, connection: RTCPeerConnection, session_id: str) -> None:
        """Set the connection, and the id of the session that it belongs to, which is used for logging."""
        self._connection = connection
        self._session_id = session_id
        self._known: set[tuple[str, int, str | None, int | None]] = set()
        self._limit_logged = False
        self._resolve_tasks: set[asyncio.Task[None]] = set()

    async def add(self, candidates: Iterable[RTCIceCandidate]) -> None:
        """Add candidates, and let other tasks run between any two. Names are resolved in the background."""
        for candidate in candidates:
            if not self._is_new(candidate):
                continue
            adding = self._add(candidate)
            if candidate.ip.endswith(_MDNS_SUFFIX):
                task = asyncio.get_running_loop().create_task(adding, name="resolve-candidate")
                self._resolve_tasks.add(task)
                task.add_done_callback(self._resolve_tasks.discard)
            else:
                await adding
            await asyncio.sleep(0)

    def close(self) -> None:
        """Stop resolving names."""
        for task in self._resolve_tasks:
            task.cancel()

    def _is_new(self, candidate: RTCIceCandidate) -> bool:
        key = (candidate.ip, candidate.port, candidate.sdpMid, candidate.sdpMLineIndex)
        if key in self._known:
            return False
        if len(self._known) >= MAX_CANDIDATES:
            if not self._limit_logged:
                logs.event("candidates_ignored", session=self._session_id, limit=MAX_CANDIDATES)
            self._limit_logged = True
            return False
        self._known.add(key)
        return True

    async def _add(self, candidate: RTCIceCandidate) -> None:
        try:
            await self._connection.addIceCandidate(candidate)
        except Exception as error:  # from sockets, or from the library's own checks
            logs.event(
                "candidate_rejected",
                session=self._session_id,
                address=candidate.ip,
                error=f"{type(error).__name__}: {error}",
            )
