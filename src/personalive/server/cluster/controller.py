"""What all replicas must agree on, in one place: the references, the pipeline to have, who is there.

It runs as a deployment of one replica that needs no machine of its own. If it is lost, it starts again empty: the
replicas tell it within a second who they are and what pipeline was asked for; references have to be given again.
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
"""A replica that says nothing for so long is gone."""


class ClusterController:
    """Keeps the `MAX_REFERENCES` references used last, `MAX_REFERENCE_BYTES` at most, and always the default."""

    def __init__(
        self,
        desired: DesiredState | None = None,
        *,
        awaits_reference: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`wanted` is what to begin with. `is_awaiting_reference`: a first one is about to be given."""
        self._desired = desired or DesiredState(1)
        self._replicas: dict[str, tuple[ReplicaStatus, float]] = {}
        self._references: OrderedDict[str, StoredClusterReference] = OrderedDict()  # used last comes last
        self._default: str | None = None
        self._awaits_reference = awaits_reference
        self._stopping = False
        self._clock = clock

    # -- who is there

    async def heartbeat(self, replica: ReplicaStatus) -> HeartbeatReply:
        """A replica tells of itself, and hears what to do."""
        if replica.stage == "serving" and replica.id not in self._replicas:
            self._awaits_reference = False  # this controller has been started anew: nobody gives it once more
        self._replicas[replica.id] = (replica, self._clock())
        if replica.applied_state.version > self._desired.version:  # this controller has been started anew
            self._desired = replica.applied_state
        elsewhere = any(
            other.can_open_sessions
            and other.id != replica.id
            and other.applied_state.version == self._desired.version
            for other in await self.list_replicas()
        )
        return HeartbeatReply(self._desired, elsewhere, self._stopping)

    async def remove_replica(self, id: str) -> None:
        """A replica goes."""
        self._replicas.pop(id, None)

    async def list_replicas(self) -> list[ReplicaStatus]:
        """Every replica that was heard of lately, in the order of their coming."""
        now = self._clock()
        silent = [id for id, (_, at) in self._replicas.items() if now - at > REPLICA_TIMEOUT_S]
        for id in silent:
            del self._replicas[id]
        return [member for member, _ in self._replicas.values()]

    # -- what they are to do

    async def set_desired(self, pipeline_id: str | None, load_params: Mapping[str, Any]) -> DesiredState:
        """Every replica is to have this pipeline, also those that come later; None: none."""
        self._desired = DesiredState(self._desired.version + 1, pipeline_id, dict(load_params))
        return self._desired

    async def get_desired(self) -> DesiredState:
        """What every replica is to have."""
        return self._desired

    async def drain(self) -> None:
        """Every replica is to end its sessions and to take no more."""
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
        """The reference of sessions that name none: the one given last."""
        return self._default

    async def is_awaiting_reference(self) -> bool:
        """Whether the reference that the service was started with has not been taken yet."""
        return self._awaits_reference

    async def get_reference(self, id: str) -> StoredClusterReference | None:
        """All of a reference; it counts as used now."""
        kept = self._references.get(id)
        if kept is not None:
            self._references.move_to_end(id)
        return kept

    async def get_reference_info(self, id: str) -> StoredClusterReference | None:
        """What is known of a reference, without the picture's own bytes."""
        kept = self._references.get(id)
        return None if kept is None else self._without_data(kept)

    async def list_references(self) -> list[StoredClusterReference]:
        """What is known of every reference, the one used last first; neither pictures nor thumbnails."""
        return [
            replace(self._without_data(kept), thumbnail=b"") for kept in reversed(self._references.values())
        ]

    async def remove_reference(self, id: str) -> bool:
        """Drop a reference. Whether there was one."""
        if self._default == id:
            self._default = None
        return self._references.pop(id, None) is not None

    def _without_data(self, stored: StoredClusterReference) -> StoredClusterReference:
        return replace(stored, data=b"", info={**stored.info, "default": stored.id == self._default})

    def _total_bytes(self) -> int:
        return sum(len(kept.data) for kept in self._references.values())
