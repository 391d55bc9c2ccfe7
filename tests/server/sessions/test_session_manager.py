"""Several workers, as where a server has several GPUs: where sessions go, and what a lost pipeline takes along."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from personalive.errors import DeviceOutOfMemoryError
from personalive.server.errors import ConflictError, ServiceUnavailableError
from personalive.server.server import Server
from personalive.server.sessions.session import ServerSession
from tests.server.parts import encoded, loaded, portrait, running

pytestmark = pytest.mark.usefixtures("plugins")


@pytest.fixture(autouse=True)
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """There is none here; what matters is that there are two workers."""
    monkeypatch.setattr("personalive.server.server.resolve_gpus", lambda named: named)


def run(act: Callable[[Server], Awaitable[None]], **settings: Any) -> None:
    async def whole() -> None:
        async with running(gpus=("0", "1"), **settings) as server:
            await act(server)

    asyncio.run(whole())


async def begun(server: Server) -> ServerSession:
    """A session as an offer opens it."""
    with server.sessions.reserve_slot(server.pipelines.is_ready) as pipeline:
        reference = await server.references.get_fused(None, pipeline)
        assert server.references.default_id is not None
        return await server.sessions.open(pipeline, server.references.default_id, reference, {})


def test_sessions_go_where_there_is_room_until_there_is_none() -> None:
    async def act(server: Server) -> None:
        with (
            pytest.raises(ConflictError, match="No pipeline is loaded"),
            server.sessions.reserve_slot(server.pipelines.is_ready),
        ):
            pass
        await loaded(server.pipelines, "paced")
        assert len({id(worker.pipeline) for worker in server.workers}) == 2
        await server.references.add(encoded(portrait()))
        first = [await begun(server) for _ in range(4)]
        assert [stream.worker.name for stream in first] == ["0", "1", "0", "1"]
        assert server.sessions.limit == 4
        with pytest.raises(ServiceUnavailableError, match="4 sessions stream already"):
            await begun(server)
        await first[1].end("over")
        assert (await begun(server)).worker.name == "1"

    run(act, max_sessions=2)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            DeviceOutOfMemoryError("There is too little GPU memory for another session."),
            "for another session. Try again",
        ),
        (RuntimeError("CUDA error: out of memory"), "too little memory left for another session. Try again"),
    ],
)
def test_a_session_that_the_device_has_no_memory_for_is_refused_and_its_slot_is_free(
    error: Exception, said: str
) -> None:
    def full(*_: object, **__: object) -> None:
        raise error

    async def act(server: Server) -> None:
        await loaded(server.pipelines, "paced")
        await server.references.add(encoded(portrait()))
        first, second = (worker.pipeline for worker in server.workers)
        with pytest.MonkeyPatch.context() as patch:
            for pipeline in (first, second):
                patch.setattr(pipeline, "open_session", full)
            for _ in range(3):
                with pytest.raises(ServiceUnavailableError, match=said):
                    await begun(server)
        assert len(server.sessions) == 0
        await begun(server)

    run(act, max_sessions=1)


@pytest.mark.slow
def test_offers_at_the_same_time_are_spread() -> None:
    async def act(server: Server) -> None:
        await loaded(server.pipelines, "paced")
        await server.references.add(encoded(portrait()))
        streams = await asyncio.gather(begun(server), begun(server))
        assert {stream.worker.name for stream in streams} == {"0", "1"}
        with pytest.raises(ServiceUnavailableError):
            await begun(server)

    run(act, max_sessions=1)


@pytest.mark.slow
def test_as_many_offers_at_the_same_time_as_there_are_slots_are_all_taken() -> None:
    async def act(server: Server) -> None:
        await loaded(server.pipelines, "paced")
        await server.references.add(encoded(portrait()))
        streams = await asyncio.gather(*(begun(server) for _ in range(8)))
        assert [stream.worker.name for stream in streams].count("0") == 4

    run(act, max_sessions=4)


@pytest.mark.slow
def test_ending_one_workers_sessions_leaves_the_others() -> None:
    async def act(server: Server) -> None:
        await loaded(server.pipelines, "paced")
        await server.references.add(encoded(portrait()))
        one, other = await begun(server), await begun(server)
        told: list[dict[str, Any]] = []
        one.add_message_listener(told.append)
        await server.sessions.end_all("It is gone.", "pipeline_lost", worker=one.worker)
        assert told[-1] == {"type": "stream_stopped", "error_message": "It is gone.", "retry": True}
        assert one.ended
        assert not other.ended

    run(act, max_sessions=1)
