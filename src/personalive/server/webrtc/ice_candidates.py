"""The addresses at which the other side may be reached: checked, counted, and tried one after the other.

An address that is of no use never fails a connection. The other side knows ours and comes to us, which is how peers
behind mDNS names connect where nobody answers for such names. So the ICE library is never told that all candidates
are known either: it would give up where none of them can be used, and the time to connect has a limit anyway.
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
"""The end of names that browsers give instead of addresses, to be resolved by mDNS."""


def parse_candidate(text: str) -> RTCIceCandidate | None:
    """A candidate as SDP has it, with or without `candidate:`; None for one that could never be used here.

    Raises `BadRequestError` for what is no candidate.
    """
    candidate = _parse_fields(text.removeprefix("a=").removeprefix("candidate:"))
    if candidate is None:
        raise BadRequestError(f"This is no ICE candidate: {text[:120]!r}.")
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
    except ValueError:  # a name: it would have to be looked up, for whoever asks
        return False
    # What is sent to many at once, or to nobody.
    return not (address.is_multicast or address.is_unspecified or address == _BROADCAST)


_BROADCAST = ipaddress.ip_address("255.255.255.255")


def split_candidates(sdp: str) -> tuple[str, list[RTCIceCandidate]]:
    """The SDP without its candidates, and those that could be used, each with its media section's number.

    Those that cannot be read are left out: the other side may be reached all the same.
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
    """Gives one connection what its other side says about its addresses, up to `MAX_CANDIDATES`."""

    def __init__(self, connection: RTCPeerConnection, session_id: str) -> None:
        """`session_id` is the id of the session that the connection belongs to, for the log."""
        self._connection = connection
        self._session_id = session_id
        self._known: set[tuple[str, int, str | None, int | None]] = set()
        self._limit_logged = False
        self._resolve_tasks: set[asyncio.Task[None]] = set()

    async def add(self, candidates: Iterable[RTCIceCandidate]) -> None:
        """Try these too; others get their turn between any two of them. Names are resolved meanwhile."""
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
        """Resolve no more names."""
        for task in self._resolve_tasks:
            task.cancel()

    def _is_new(self, candidate: RTCIceCandidate) -> bool:
        key = (candidate.ip, candidate.port, candidate.sdpMid, candidate.sdpMLineIndex)
        if key in self._known:
            return False
        if len(self._known) >= MAX_CANDIDATES:
            if not self._limit_logged:
                logs.event("candidates_ignored", session=self._session_id, taken=MAX_CANDIDATES)
            self._limit_logged = True
            return False
        self._known.add(key)
        return True

    async def _add(self, candidate: RTCIceCandidate) -> None:
        try:
            await self._connection.addIceCandidate(candidate)
        except Exception as error:  # sockets, or what the library does not like about it
            logs.event(
                "candidate_unusable",
                session=self._session_id,
                address=candidate.ip,
                error=f"{type(error).__name__}: {error}",
            )
