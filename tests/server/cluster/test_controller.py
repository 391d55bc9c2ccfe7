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
    controller = ClusterController(clock=lambda: now)

    async def scene() -> None:
        nonlocal now
        await controller.heartbeat(ONE)
        now = REPLICA_TIMEOUT_S - 1
        await controller.heartbeat(replace(ONE, id="other"))
        assert [member.id for member in await controller.list_replicas()] == ["one", "other"]
        now = REPLICA_TIMEOUT_S + 1
        assert [member.id for member in await controller.list_replicas()] == ["other"]
        await controller.remove_replica("other")
        assert await controller.list_replicas() == []

    asyncio.run(scene())


def test_replicas_hear_what_is_wanted_and_when_all_is_to_end() -> None:
    async def scene() -> None:
        controller = ClusterController(DesiredState(1, "preview"))
        assert (await controller.heartbeat(ONE)).desired_state.pipeline_id == "preview"
        await controller.set_desired("other", {"width": 256})
        orders = await controller.heartbeat(ONE)
        assert orders.desired_state == DesiredState(2, "other", {"width": 256})
        assert not orders.stopping
        await controller.drain()
        assert (await controller.heartbeat(ONE)).stopping

    asyncio.run(scene())


def test_a_replica_hears_whether_another_one_has_what_is_wanted() -> None:
    async def scene() -> None:
        controller = ClusterController(DesiredState(1, "preview"))
        assert not (
            await controller.heartbeat(replace(ONE, applied_state=DesiredState(1, "preview")))
        ).loaded_elsewhere
        assert (await controller.heartbeat(replace(ONE, id="two", status="error"))).loaded_elsewhere
        await controller.set_desired("other", {})
        assert not (await controller.heartbeat(replace(ONE, id="two", status="error"))).loaded_elsewhere

    asyncio.run(scene())


def test_a_controller_that_was_lost_learns_from_the_replicas_what_was_wanted() -> None:
    async def scene() -> None:
        controller = ClusterController(DesiredState(1, "preview"))
        later = DesiredState(5, "personalive", {"width": 512})
        assert (await controller.heartbeat(replace(ONE, applied_state=later))).desired_state == later
        assert (await controller.heartbeat(replace(ONE, id="late"))).desired_state == later

    asyncio.run(scene())


def test_the_reference_given_last_is_the_default_until_it_is_forgotten() -> None:
    async def scene() -> None:
        controller = ClusterController()
        await controller.add_reference(kept("a"))
        await controller.add_reference(kept("b"))
        assert await controller.get_default_reference() == "b"
        told = await controller.list_references()
        assert [(one.id, one.info["default"]) for one in told] == [("b", True), ("a", False)]
        assert not any(one.data or one.thumbnail for one in told)
        looked = await controller.get_reference_info("a")
        assert looked is not None
        assert looked.thumbnail == b"small"
        assert await controller.remove_reference("b")
        assert not await controller.remove_reference("b")
        assert await controller.get_default_reference() is None
        assert await controller.get_reference("b") is None

    asyncio.run(scene())


def test_those_used_longest_ago_go_when_there_are_too_many_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_REFERENCE_BYTES", 30)

    async def scene() -> None:
        controller = ClusterController()
        for id in "abc":
            await controller.add_reference(kept(id))
        await controller.get_reference("a")
        await controller.add_reference(kept("d"))
        assert {one.id for one in await controller.list_references()} == {"a", "c", "d"}
        await controller.add_reference(kept("large", 100))
        assert {one.id for one in await controller.list_references()} == {"large"}

    asyncio.run(scene())


def test_a_session_s_id_says_whose_it_is() -> None:
    assert parse_replica_id(make_id_prefix("r1") + "abc_-9") == "r1"
    assert parse_replica_id("r1.abc.0.7f") == "r1"  # a viewer of it


def test_the_portrait_of_the_start_is_awaited_until_it_is_given() -> None:
    async def scene() -> None:
        assert not await ClusterController().is_awaiting_reference()
        controller = ClusterController(awaits_reference=True)
        await controller.heartbeat(replace(ONE, stage="starting"))
        await controller.heartbeat(ONE)
        assert await controller.is_awaiting_reference()
        await controller.add_reference(kept("a"))
        assert not await controller.is_awaiting_reference()
        # One that was lost finds replicas that serve already: the portrait is not given once more.
        again = ClusterController(awaits_reference=True)
        await again.heartbeat(ONE)
        assert not await again.is_awaiting_reference()

    asyncio.run(scene())
