"""What the parts of the cluster tell each other: plain values that any process can hold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True, slots=True)
class DesiredState:
    """The pipeline that every replica is to have; None is none. A higher `version` was asked for later.

    Version 0 is that of a replica that has not been told yet.
    """

    version: int = 0
    pipeline_id: str | None = None
    load_params: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ReplicaStatus:
    """A replica as it tells of itself: where it is reached, and what it is at.

    `address` is an URL within the cluster, `key` what its requests must carry. `wanted` is what it was told last,
    and `load_error` why it cannot even begin to load that. `slots` of one that is leaving are those in use.
    """

    id: str
    node: str
    address: str
    key: str
    stage: Literal["starting", "serving", "leaving"]
    status: str
    sessions: int
    slots: int
    applied_state: DesiredState
    load_error: str | None = None

    @property
    def can_open_sessions(self) -> bool:
        """Whether it can open sessions."""
        return self.stage == "serving" and self.status == "loaded"


@dataclass(frozen=True, slots=True)
class HeartbeatReply:
    """What a replica is told in return.

    `loaded_elsewhere`: another replica has loaded what is wanted. `stopping`: all sessions are to end.
    """

    desired_state: DesiredState
    loaded_elsewhere: bool
    stopping: bool


@dataclass(frozen=True, slots=True, eq=False)
class StoredClusterReference:
    """A reference as the whole cluster keeps it: the bytes that were given, how, and what came of them.

    `info` is what `GET /api/v1/personalive/reference/ID` answers.
    """

    id: str
    data: bytes
    allow_no_face: bool
    crop: bool
    info: dict[str, Any]
    thumbnail: bytes


def parse_replica_id(session_id: str) -> str:
    """The replica that a session's, or a viewer's, id names."""
    return session_id.partition(".")[0]


def make_id_prefix(replica_id: str) -> str:
    """What the ids of a replica's sessions begin with."""
    return f"{replica_id}."
