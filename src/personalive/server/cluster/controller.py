"""The state that all replicas share: the references, the desired pipeline, and the list of replicas.

The controller runs as a deployment of one replica that needs no separate machine. If it is lost, it starts again
empty. The replicas report themselves and the desired pipeline within a second; references must be uploaded again.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from personalive.server.cluster.messages import (
    DesiredState,
    HeartbeatReply,
    ReplicaStatus,
    StoredClusterReference,
)

MAX_REFERENCES = 1024
MAX_REFERENCE_BYTES = 1024 * 2**20
REPLICA_TIMEOUT_S = 5.0
"""Seconds without a heartbeat after which a replica counts as gone."""


class ClusterController:
    """The shared state. Of the references it keeps the default and those used last.

    It keeps at most `MAX_REFERENCES` of them, with at most `MAX_REFERENCE_BYTES` in all.
    """

    def __init__(
        self,
        desired: DesiredState | None = None,
        *,
        awaits_reference: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`desired` is the initial state. `awaits_reference`: a first reference is about to be uploaded."""
        self._desired = desired or DesiredState(1)
        self._replicas: dict[str, tuple[ReplicaStatus, float]] = {}
        self._references: OrderedDict[str, StoredClusterReference] = OrderedDict()  # used last comes last
        self._default: str | None = None
        self._awaits_reference = awaits_reference
        self._stopping = False
        self._clock = clock

    # -- who is there

    async def heartbeat(self, replica: ReplicaStatus) -> HeartbeatReply:
        """Record a replica's status, and return what it has to do."""
        if replica.stage == "serving" and replica.id not in self._replicas:
            self._awaits_reference = False  # this controller was restarted: the reference is not sent twice
        self._replicas[replica.id] = (replica, self._clock())
        if replica.applied_state.version > self._desired.version:  # this controller was restarted
            self._desired = replica.applied_state
        elsewhere = any(
            other.can_open_sessions
            and other.id != replica.id
            and other.applied_state.version == self._desired.version
            for other in await self.list_replicas()
        )
        return HeartbeatReply(self._desired, elsewhere, self._stopping)

    async def remove_replica(self, id: str) -> None:
        """Forget a replica that leaves."""
        self._replicas.pop(id, None)

    async def list_replicas(self) -> list[ReplicaStatus]:
        """Return every replica that sent a heartbeat lately, in the order in which they registered."""
        now = self._clock()
        silent = [id for id, (_, at) in self._replicas.items() if now - at > REPLICA_TIMEOUT_S]
        for id in silent:
            del self._replicas[id]
        return [member for member, _ in self._replicas.values()]

    # -- what they are to do

    async def set_desired(self, pipeline_id: str | None, load_params: Mapping[str, Any]) -> DesiredState:
        """Make this the pipeline of every replica, also of later ones; None unloads it."""
        self._desired = DesiredState(self._desired.version + 1, pipeline_id, dict(load_params))
        return self._desired

    async def get_desired(self) -> DesiredState:
        """Return the state that every replica should have."""
        return self._desired

    async def drain(self) -> None:
        """Make every replica end its sessions and take no more."""
        self._stopping = True

    # -- references

    async def add_reference(self, stored: StoredClusterReference) -> None:
        """Keep a reference, and make it the default."""
        self._references[stored.id] = stored
        self._references.move_to_end(stored.id)
        self._default, self._awaits_reference = stored.id, False
        while len(self._references) > 1 and (
            len(self._references) > MAX_REFERENCES or self._total_bytes() > MAX_REFERENCE_BYTES
        ):
            del self._references[next(id for id in self._references if id != self._default)]

    async def get_default_reference(self) -> str | None:
        """Return the id of the reference for sessions that name none: the one added last."""
        return self._default

    async def is_awaiting_reference(self) -> bool:
        """Return whether the reference that the service was started with has not been added yet."""
        return self._awaits_reference

    async def get_reference(self, id: str) -> StoredClusterReference | None:
        """Return a reference with its picture, and count it as used now."""
        kept = self._references.get(id)
        if kept is not None:
            self._references.move_to_end(id)
        return kept

    async def get_reference_info(self, id: str) -> StoredClusterReference | None:
        """Return a reference without the picture's bytes."""
        kept = self._references.get(id)
        return None if kept is None else self._without_data(kept)

    async def list_references(self) -> list[StoredClusterReference]:
        """Return every reference without pictures and thumbnails, the one used last first."""
        return [
            replace(self._without_data(kept), thumbnail=b"") for kept in reversed(self._references.values())
        ]

    async def remove_reference(self, id: str) -> bool:
        """Drop a reference. Return whether there was one."""
        if self._default == id:
            self._default = None
        return self._references.pop(id, None) is not None

    def _without_data(self, stored: StoredClusterReference) -> StoredClusterReference:
        return replace(stored, data=b"", info={**stored.info, "default": stored.id == self._default})

    def _total_bytes(self) -> int:
        return sum(len(kept.data) for kept in self._references.values())
