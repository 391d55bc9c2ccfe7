from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from personalive.server.cluster import aggregate
from personalive.server.cluster.messages import DesiredState, ReplicaStatus
from personalive.server.cluster.replica_client import ProxyResponse
from personalive.server.cluster.replica_set import ReplicaReply
from personalive.server.telemetry.metrics import Metrics

ONE = ReplicaStatus(
    "one", "10.0.0.1", "http://10.0.0.1:1", "key", "serving", "loaded", 1, 4, DesiredState(2, "preview")
)
TWO = replace(ONE, id="two", node="10.0.0.2")


def said(member: ReplicaStatus, body: Any, status: int = 200) -> ReplicaReply:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return ReplicaReply(member, ProxyResponse(status, {}, data))


def loaded(**changed: Any) -> dict[str, Any]:
    return {"status": "loaded", "pipeline_id": "preview", "load_params": {}, "progress": 1.0, **changed}


WANTED = DesiredState(2, "preview")


def test_it_is_loaded_when_all_are() -> None:
    assert aggregate.merge_status([said(ONE, loaded()), said(TWO, loaded())], WANTED).status == "loaded"
    half = loaded(status="loading", stage="networks", progress=0.5)
    told = aggregate.merge_status([said(ONE, loaded()), said(TWO, half)], WANTED)
    assert (told.status, told.stage, told.progress) == ("loading", "networks", 0.5)
    assert [(each.id, each.pipeline) for each in told.replicas] == [("one", "loaded"), ("two", "loading")]


def test_a_load_that_failed_on_one_is_told() -> None:
    failed = loaded(status="error", progress=None, error="No weights.")
    told = aggregate.merge_status([said(ONE, loaded()), said(TWO, failed)], WANTED)
    assert (told.status, told.error) == ("error", "No weights.")
    assert [each.error for each in told.replicas] == [None, "No weights."]


def test_a_load_that_one_machine_refuses_is_told() -> None:
    refuses = replace(TWO, load_error="Weights are missing.", status="not_loaded")
    told = aggregate.merge_status([said(ONE, loaded()), said(refuses, {"status": "not_loaded"})], WANTED)
    assert (told.status, told.error) == ("error", "Weights are missing.")


def test_replicas_that_start_do_not_hide_those_that_serve() -> None:
    starting = replace(TWO, stage="starting")
    fresh = {"status": "not_loaded"}
    assert aggregate.merge_status([said(ONE, loaded()), said(starting, fresh)], WANTED).status == "loaded"
    assert aggregate.merge_status([said(starting, fresh)], WANTED).status == "loading"
    assert aggregate.merge_status([], WANTED).status == "loading"
    assert aggregate.merge_status([], DesiredState(1)).status == "not_loaded"


def test_one_that_has_not_heard_of_it_yet_is_waited_for() -> None:
    told = aggregate.merge_status([said(ONE, loaded()), said(TWO, {"status": "not_loaded"})], WANTED)
    assert told.status == "loading"


def test_it_is_unloaded_when_all_are() -> None:
    nothing, gone = DesiredState(3), {"status": "not_loaded"}
    assert aggregate.merge_status([said(ONE, loaded()), said(TWO, gone)], nothing).status == "loaded"
    assert aggregate.merge_status([said(ONE, gone), said(TWO, gone)], nothing).status == "not_loaded"


def test_figures_keep_their_kinds_under_their_replica_s_name() -> None:
    metrics = Metrics()
    metrics.sessions_ended.labels("idle").inc()
    metrics.latency_seconds.observe(0.2)
    body = metrics.render()
    text = aggregate.merge_metrics([said(ONE, body), said(TWO, body)], [ONE, TWO]).decode()
    families = {family.name: family for family in text_string_to_metric_families(text)}
    ended = families["personalive_sessions_ended"]
    assert ended.type == "counter"
    assert [
        (sample.labels["replica"], sample.value) for sample in ended.samples if "total" in sample.name
    ] == [
        ("one", 1.0),
        ("two", 1.0),
    ]
    latency = families["personalive_latency_seconds"]
    assert latency.type == "histogram"
    assert any(sample.labels.get("le") == "+Inf" for sample in latency.samples)
    assert text.count("# TYPE personalive_latency_seconds ") == 1
    assert 'personalive_slots{replica="two"} 4' in text
    assert 'personalive_replicas{stage="serving"} 2' in text


def test_weights_are_there_when_every_machine_has_them() -> None:
    full = {"pipeline_id": "personalive", "downloaded": True, "missing": [], "progress": None, "error": None}
    lacks = {**full, "downloaded": False, "missing": ["b", "a"], "error": "no space"}
    told = aggregate.merge_models_status([said(ONE, full), said(TWO, lacks)])
    assert told["downloaded"] is False
    assert told["missing"] == ["a", "b"]
    assert told["error"] == "10.0.0.2: no space"
    assert aggregate.merge_models_status([said(ONE, full), said(TWO, full)]) == full


def test_a_recording_that_two_replicas_see_is_told_once_by_the_one_that_made_it() -> None:
    seen = {"recording_id": "r", "session_id": None, "started_at": "2026-01-01T00:00:00Z"}
    made = {**seen, "session_id": "one.x"}
    later = {"recording_id": "s", "session_id": None, "started_at": "2026-01-02T00:00:00Z"}
    found = aggregate.merge_recordings(
        [said(TWO, {"recordings": [seen, later]}), said(ONE, {"recordings": [made]})]
    )
    assert found == [later, made]
