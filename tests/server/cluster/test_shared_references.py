from __future__ import annotations

import asyncio
from functools import partial

import pytest

from personalive.server.cluster.messages import Kept
from personalive.server.cluster.shared_references import SharedReferences
from personalive.server.server import Server
from personalive.server.settings import Settings
from personalive.server.state.reference_store import NoReferenceError, UnknownReferenceError
from tests.server.parts import encoded, loaded, portrait


@pytest.mark.slow
def test_a_reference_that_is_elsewhere_is_fetched_once() -> None:
    picture = encoded(portrait())
    asked: list[str] = []

    async def fetch(id: str) -> Kept | None:
        asked.append(id)
        if id == "none":
            return None
        return Kept(id, picture, allow_no_face=False, crop=True, info={}, thumbnail=b"")

    async def scene() -> None:
        server = Server(Settings(), references=partial(SharedReferences, fetch=fetch), mark="r1.")
        await server.start()
        try:
            references = server.references
            assert isinstance(references, SharedReferences)
            await loaded(server.host)
            with pytest.raises(NoReferenceError):
                await references.fused()
            id = (await references.add(picture)).id
            references.forget(id)
            assert references.default_id is None  # the cluster's is the ledger's to say
            references.tell_default(id)
            one, two = await asyncio.gather(references.fused(), references.fused(id))
            assert one is two
            assert asked == [id]
            assert references.default_id == id
            with pytest.raises(UnknownReferenceError):
                await references.fused("none")
            assert server.host.pipeline is not None
            stream = await server.streams.open(server.host.pipeline, id, one, {})
            assert stream.id.startswith("r1.")
        finally:
            await server.stop()

    asyncio.run(scene())
