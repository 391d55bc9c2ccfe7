"""Merge the answers of several replicas into one: pipeline status, sessions, recordings, weights and metrics."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal

from prometheus_client import Metric, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector
from pydantic import BaseModel, Field

from personalive.server.cluster.messages import DesiredState, ReplicaStatus
from personalive.server.cluster.replica_set import ReplicaReply
from personalive.server.routes.sessions import SessionList
from personalive.server.state.load_plan import PipelineStatus

Json = Mapping[str, Any]


class ReplicaInfo(BaseModel):
    """A replica, as it last reported itself."""

    id: str = Field(description="The prefix of its sessions' ids, before the dot.")
    node: str = Field(description="Address of its machine within the cluster.")
    stage: Literal["starting", "serving", "leaving"]
    pipeline: str = Field(description="not_loaded, loading, loaded or error.")
    sessions: int
    slots: int
    error: str | None = Field(None, description="Why its last load failed.")


class ClusterStatus(PipelineStatus):
    """The status of the whole cluster: loaded when all replicas are. `replicas` describes each of them."""

    replicas: list[ReplicaInfo] = Field(default_factory=list)


def make_replica_info(replica: ReplicaStatus, pipeline_status: PipelineStatus | None = None) -> ReplicaInfo:
    """Describe a replica. `pipeline_status` is what it has just answered, if it was asked."""
    return ReplicaInfo(
        id=replica.id,
        node=replica.node,
        stage=replica.stage,
        pipeline=replica.status if pipeline_status is None else pipeline_status.status,
        sessions=replica.sessions,
        slots=replica.slots,
        error=None if pipeline_status is None else pipeline_status.error,
    )


def merge_status(replies: Iterable[ReplicaReply], desired: DesiredState) -> ClusterStatus:
    """Return the common status of all replicas. Replicas that are starting count only if no replica serves yet."""
    statuses = [(each.replica, _replica_pipeline_status(each)) for each in replies if each.response.ok]
    replicas = [make_replica_info(member, own) for member, own in statuses]
    serving = [own for member, own in statuses if member.stage == "serving"] or [own for _, own in statuses]
    if not serving:
        waits = desired.pipeline_id is not None
        return ClusterStatus(
            status="loading" if waits else "not_loaded",
            pipeline_id=desired.pipeline_id,
            stage="waiting for replicas" if waits else None,
            progress=0.0 if waits else None,
        )
    # The replica farthest from the desired state. If no pipeline is desired, that is one that has not unloaded yet.
    worst = (max if desired.pipeline_id is None else min)(serving, key=_status_rank)
    behind = [own for own in serving if own.pipeline_id != desired.pipeline_id] if desired.pipeline_id else []
    if behind and worst.status != "loading":  # their next heartbeat tells them within a second
        worst = PipelineStatus(
            status="loading", pipeline_id=desired.pipeline_id, stage="telling the replicas", progress=0.0
        )
    return ClusterStatus(**worst.model_dump(), replicas=replicas)


def _replica_pipeline_status(replies: ReplicaReply) -> PipelineStatus:
    member = replies.replica
    if member.load_error is not None:
        return PipelineStatus(
            status="error", pipeline_id=member.applied_state.pipeline_id, error=member.load_error
        )
    return PipelineStatus.model_validate(replies.json())


def _status_rank(own: PipelineStatus) -> tuple[int, float]:
    order = {"loading": 0, "error": 1, "not_loaded": 2, "loaded": 3}
    return order[own.status], own.progress or 0.0


def merge_sessions(replies: Iterable[ReplicaReply]) -> SessionList:
    """Return all live sessions, oldest first. A leaving replica counts only the slots that are in use."""
    lists = [(each.replica, SessionList.model_validate(each.json())) for each in replies if each.response.ok]
    every = sorted((one for _, part in lists for one in part.sessions), key=lambda one: one.opened_at)
    return SessionList(sessions=every, max_sessions=sum(member.slots for member, _ in lists))


def merge_recordings(replies: Iterable[ReplicaReply]) -> list[Json]:
    """Return all recordings, newest first.

    Replicas on one machine share a folder; the entry of the replica that ran the session is preferred.
    """
    found: dict[str, Json] = {}
    for each in replies:
        if each.response.ok:
            for info in each.json()["recordings"]:
                if info["recording_id"] not in found or info["session_id"] is not None:
                    found[info["recording_id"]] = info
    return sorted(found.values(), key=lambda info: str(info["started_at"]), reverse=True)


def merge_models_status(replies: list[ReplicaReply]) -> Json:
    """Merge the weights' status of one replica per machine; `replies` must not be empty.

    The weights count as downloaded when every machine has them; `progress` is that of the slowest machine.
    """
    statuses = [each.json() for each in replies]
    missing = sorted({name for one in statuses for name in one["missing"]})
    loading = [one["progress"] for one in statuses if one["progress"] is not None]
    errors = [
        f"{each.replica.node}: {one['error']}"
        for each, one in zip(replies, statuses, strict=True)
        if one["error"]
    ]
    return {
        "pipeline_id": statuses[0]["pipeline_id"],
        "downloaded": all(one["downloaded"] for one in statuses),
        "missing": missing,
        "progress": min(loading, key=lambda one: float(one["percentage"]), default=None),
        "error": "; ".join(errors) or None,
    }


class _MergedMetrics(Collector):
    """Metrics that were collected elsewhere."""

    def __init__(self, metrics: Iterable[Metric]) -> None:
        self._metrics = metrics

    def collect(self) -> Iterable[Metric]:
        """Return the metrics."""
        return self._metrics


def merge_metrics(replies: Iterable[ReplicaReply], replicas: Iterable[ReplicaStatus]) -> bytes:
    """Return every replica's metrics with the label `replica`, and the numbers of replicas and slots."""
    families: dict[str, Metric] = {}
    for each in replies:
        if not each.response.ok:
            continue
        for family in text_string_to_metric_families(each.response.body.decode()):
            whole = families.setdefault(family.name, Metric(family.name, family.documentation, family.type))
            for sample in family.samples:
                labels = {"replica": each.replica.id, **sample.labels}
                whole.add_sample(sample.name, labels, sample.value)
    return generate_latest(_MergedMetrics([*families.values(), *_make_cluster_metrics(list(replicas))]))


def _make_cluster_metrics(replicas: list[ReplicaStatus]) -> list[Metric]:
    count = GaugeMetricFamily("personalive_replicas", "Replicas, by what they are at.", labels=["stage"])
    for stage in ("starting", "serving", "leaving"):
        count.add_metric([stage], sum(member.stage == stage for member in replicas))
    slots = GaugeMetricFamily(
        "personalive_slots", "Sessions that there may be, on each replica.", labels=["replica"]
    )
    for member in replicas:
        slots.add_metric([member.id], member.slots)
    return [count, slots]
