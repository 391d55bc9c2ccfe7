from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from personalive.server.cluster import controller as module
from personalive.server.cluster.controller import REPLICA_TIMEOUT_S, ClusterController
from personalive.server.cluster.messages import (
    DesiredState,
    ReplicaStatus,
    StoredClusterReference,
    make_id_prefix,
    parse_replica_id,
)

ONE = ReplicaStatus("one", "10.0.0.1", "http://10.0.0.1:1", "key", "serving", "loaded", 0, 4, DesiredState())


def kept(id: str, size: int = 10) -> StoredClusterReference:
    return StoredClusterReference(
        id, b"x" * size, allow_no_face=False, crop=True, info={"reference_id": id}, thumbnail=b"small"
    )


def test_a_replica_that_says_nothing_is_forgotten() -> None:
    now = 0.0
    ledger = ClusterController(clock=lambda: now)

    async def scene() -> None:
        nonlocal now
        await ledger.heartbeat(ONE)
        now = REPLICA_TIMEOUT_S - 1
        await ledger.heartbeat(replace(ONE, id="other"))
        assert [member.id for member in await ledger.list_replicas()] == ["one", "other"]
        now = REPLICA_TIMEOUT_S + 1
        assert [member.id for member in await ledger.list_replicas()] == ["other"]
        await ledger.remove_replica("other")
        assert await ledger.list_replicas() == []

    asyncio.run(scene())


def test_replicas_hear_what_is_wanted_and_when_all_is_to_end() -> None:
    async def scene() -> None:
        ledger = ClusterController(DesiredState(1, "preview"))
        assert (await ledger.heartbeat(ONE)).desired_state.pipeline_id == "preview"
        await ledger.set_desired("other", {"width": 256})
        orders = await ledger.heartbeat(ONE)
        assert orders.desired_state == DesiredState(2, "other", {"width": 256})
        assert not orders.stopping
        await ledger.drain()
        assert (await ledger.heartbeat(ONE)).stopping

    asyncio.run(scene())


def test_a_replica_hears_whether_another_one_has_what_is_wanted() -> None:
    async def scene() -> None:
        ledger = ClusterController(DesiredState(1, "preview"))
        assert not (
            await ledger.heartbeat(replace(ONE, applied_state=DesiredState(1, "preview")))
        ).loaded_elsewhere
        assert (await ledger.heartbeat(replace(ONE, id="two", status="error"))).loaded_elsewhere
        await ledger.set_desired("other", {})
        assert not (await ledger.heartbeat(replace(ONE, id="two", status="error"))).loaded_elsewhere

    asyncio.run(scene())


def test_a_ledger_that_was_lost_learns_from_the_replicas_what_was_wanted() -> None:
    async def scene() -> None:
        ledger = ClusterController(DesiredState(1, "preview"))
        later = DesiredState(5, "personalive", {"width": 512})
        assert (await ledger.heartbeat(replace(ONE, applied_state=later))).desired_state == later
        assert (await ledger.heartbeat(replace(ONE, id="late"))).desired_state == later

    asyncio.run(scene())


def test_the_reference_given_last_is_the_default_until_it_is_forgotten() -> None:
    async def scene() -> None:
        ledger = ClusterController()
        await ledger.add_reference(kept("a"))
        await ledger.add_reference(kept("b"))
        assert await ledger.get_default_reference() == "b"
        told = await ledger.list_references()
        assert [(one.id, one.info["default"]) for one in told] == [("b", True), ("a", False)]
        assert not any(one.data or one.thumbnail for one in told)
        looked = await ledger.get_reference_info("a")
        assert looked is not None
        assert looked.thumbnail == b"small"
        assert await ledger.remove_reference("b")
        assert not await ledger.remove_reference("b")
        assert await ledger.get_default_reference() is None
        assert await ledger.get_reference("b") is None

    asyncio.run(scene())


def test_those_used_longest_ago_go_when_there_are_too_many_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_REFERENCE_BYTES", 30)

    async def scene() -> None:
        ledger = ClusterController()
        for id in "abc":
            await ledger.add_reference(kept(id))
        await ledger.get_reference("a")
        await ledger.add_reference(kept("d"))
        assert {one.id for one in await ledger.list_references()} == {"a", "c", "d"}
        await ledger.add_reference(kept("large", 100))
        assert {one.id for one in await ledger.list_references()} == {"large"}

    asyncio.run(scene())


def test_a_session_s_id_says_whose_it_is() -> None:
    assert parse_replica_id(make_id_prefix("r1") + "abc_-9") == "r1"
    assert parse_replica_id("r1.abc.0.7f") == "r1"  # a viewer of it


def test_the_portrait_of_the_start_is_awaited_until_it_is_given() -> None:
    async def scene() -> None:
        assert not await ClusterController().is_awaiting_reference()
        ledger = ClusterController(awaits_reference=True)
        await ledger.heartbeat(replace(ONE, stage="starting"))
        await ledger.heartbeat(ONE)
        assert await ledger.is_awaiting_reference()
        await ledger.add_reference(kept("a"))
        assert not await ledger.is_awaiting_reference()
        # One that was lost finds replicas that serve already: the portrait is not given once more.
        again = ClusterController(awaits_reference=True)
        await again.heartbeat(ONE)
        assert not await again.is_awaiting_reference()

    asyncio.run(scene())
