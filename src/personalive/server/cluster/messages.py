"""The messages between the parts of the cluster: plain values that any process can unpickle."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True, slots=True)
class DesiredState:
    """The pipeline that every replica should have, or None. A higher `version` was requested later.

    Version 0 means that a replica has not received a desired state yet.
    """

    version: int = 0
    pipeline_id: str | None = None
    load_params: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ReplicaStatus:
    """A replica's report on itself: its address and its state.

    `address` is a URL within the cluster, and `key` the API key for requests to it. `applied_state` is the desired
    state that it applied last, and `load_error` the reason why it could not even begin to load that. The `slots` of
    a leaving replica are those in use.
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
        """Whether the replica can open sessions."""
        return self.stage == "serving" and self.status == "loaded"


@dataclass(frozen=True, slots=True)
class HeartbeatReply:
    """The controller's answer to a heartbeat.

    `loaded_elsewhere`: another replica has loaded the desired pipeline. `stopping`: all sessions have to end.
    """

    desired_state: DesiredState
    loaded_elsewhere: bool
    stopping: bool


@dataclass(frozen=True, slots=True, eq=False)
class StoredClusterReference:
    """A reference as the controller keeps it: the uploaded bytes, the upload's options, and the result.

    `info` is the answer of `GET /api/v1/personalive/reference/ID`.
    """

    id: str
    data: bytes
    allow_no_face: bool
    crop: bool
    info: dict[str, Any]
    thumbnail: bytes
    face: str = "auto"
    face_box: str | None = None


def parse_replica_id(session_id: str) -> str:
    """Return the replica's id from the id of a session or of a viewer."""
    return session_id.partition(".")[0]


def make_id_prefix(replica_id: str) -> str:
    """Return the prefix of the ids of a replica's sessions."""
    return f"{replica_id}."
