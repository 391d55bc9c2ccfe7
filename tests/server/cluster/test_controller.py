from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from personalive.server.cluster import controller as module
from personalive.server.cluster.controller import SILENCE_S, Ledger
from personalive.server.cluster.messages import Kept, Member, Wanted, mark_of, replica_of

ONE = Member("one", "10.0.0.1", "http://10.0.0.1:1", "key", "serving", "loaded", 0, 4, Wanted())


def kept(id: str, size: int = 10) -> Kept:
    return Kept(
        id, b"x" * size, allow_no_face=False, crop=True, info={"reference_id": id}, thumbnail=b"small"
    )


def test_a_replica_that_says_nothing_is_forgotten() -> None:
    now = 0.0
    ledger = Ledger(clock=lambda: now)

    async def scene() -> None:
        nonlocal now
        await ledger.beat(ONE)
        now = SILENCE_S - 1
        await ledger.beat(replace(ONE, id="other"))
        assert [member.id for member in await ledger.members()] == ["one", "other"]
        now = SILENCE_S + 1
        assert [member.id for member in await ledger.members()] == ["other"]
        await ledger.leave("other")
        assert await ledger.members() == []

    asyncio.run(scene())


def test_replicas_hear_what_is_wanted_and_when_all_is_to_end() -> None:
    async def scene() -> None:
        ledger = Ledger(Wanted(1, "preview"))
        assert (await ledger.beat(ONE)).wanted.pipeline_id == "preview"
        await ledger.want("other", {"width": 256})
        orders = await ledger.beat(ONE)
        assert orders.wanted == Wanted(2, "other", {"width": 256})
        assert not orders.stopping
        await ledger.stop()
        assert (await ledger.beat(ONE)).stopping

    asyncio.run(scene())


def test_a_replica_hears_whether_another_one_has_what_is_wanted() -> None:
    async def scene() -> None:
        ledger = Ledger(Wanted(1, "preview"))
        assert not (await ledger.beat(replace(ONE, wanted=Wanted(1, "preview")))).elsewhere
        assert (await ledger.beat(replace(ONE, id="two", status="error"))).elsewhere
        await ledger.want("other", {})
        assert not (await ledger.beat(replace(ONE, id="two", status="error"))).elsewhere

    asyncio.run(scene())


def test_a_ledger_that_was_lost_learns_from_the_replicas_what_was_wanted() -> None:
    async def scene() -> None:
        ledger = Ledger(Wanted(1, "preview"))
        later = Wanted(5, "personalive", {"width": 512})
        assert (await ledger.beat(replace(ONE, wanted=later))).wanted == later
        assert (await ledger.beat(replace(ONE, id="late"))).wanted == later

    asyncio.run(scene())


def test_the_reference_given_last_is_the_default_until_it_is_forgotten() -> None:
    async def scene() -> None:
        ledger = Ledger()
        await ledger.keep(kept("a"))
        await ledger.keep(kept("b"))
        assert await ledger.default() == "b"
        told = await ledger.references()
        assert [(one.id, one.info["default"]) for one in told] == [("b", True), ("a", False)]
        assert not any(one.data or one.thumbnail for one in told)
        looked = await ledger.look_at("a")
        assert looked is not None
        assert looked.thumbnail == b"small"
        assert await ledger.forget("b")
        assert not await ledger.forget("b")
        assert await ledger.default() is None
        assert await ledger.reference("b") is None

    asyncio.run(scene())


def test_those_used_longest_ago_go_when_there_are_too_many_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "KEPT_BYTES", 30)

    async def scene() -> None:
        ledger = Ledger()
        for id in "abc":
            await ledger.keep(kept(id))
        await ledger.reference("a")
        await ledger.keep(kept("d"))
        assert {one.id for one in await ledger.references()} == {"a", "c", "d"}
        await ledger.keep(kept("large", 100))
        assert {one.id for one in await ledger.references()} == {"large"}

    asyncio.run(scene())


def test_a_session_s_id_says_whose_it_is() -> None:
    assert replica_of(mark_of("r1") + "abc_-9") == "r1"
    assert replica_of("r1.abc.0.7f") == "r1"  # a viewer of it


def test_the_portrait_of_the_start_is_awaited_until_it_is_given() -> None:
    async def scene() -> None:
        assert not await Ledger().awaits_reference()
        ledger = Ledger(awaits_reference=True)
        await ledger.beat(replace(ONE, stage="starting"))
        await ledger.beat(ONE)
        assert await ledger.awaits_reference()
        await ledger.keep(kept("a"))
        assert not await ledger.awaits_reference()
        # One that was lost finds replicas that serve already: the portrait is not given once more.
        again = Ledger(awaits_reference=True)
        await again.beat(ONE)
        assert not await again.awaits_reference()

    asyncio.run(scene())
