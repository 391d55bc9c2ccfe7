from __future__ import annotations

import asyncio
from functools import partial

import pytest

from personalive.server.cluster.messages import StoredClusterReference
from personalive.server.cluster.shared_references import SharedReferenceStore
from personalive.server.server import Server
from personalive.server.settings import Settings
from personalive.server.state.reference_store import NoReferenceError, UnknownReferenceError
from tests.server.parts import encoded, loaded, portrait


@pytest.mark.slow
def test_a_reference_that_is_elsewhere_is_fetched_once() -> None:
    picture = encoded(portrait())
    asked: list[str] = []

    async def fetch(id: str) -> StoredClusterReference | None:
        asked.append(id)
        if id == "none":
            return None
        return StoredClusterReference(id, picture, allow_no_face=False, crop=True, info={}, thumbnail=b"")

    async def scene() -> None:
        server = Server(
            Settings(), make_references=partial(SharedReferenceStore, fetch=fetch), id_prefix="r1."
        )
        await server.start()
        try:
            references = server.references
            assert isinstance(references, SharedReferenceStore)
            await loaded(server.pipelines)
            with pytest.raises(NoReferenceError):
                await references.get_fused()
            id = (await references.add(picture)).id
            references.remove(id)
            assert references.default_id is None  # the cluster's is the controller's to say
            references.set_cluster_default(id)
            one, two = await asyncio.gather(references.get_fused(), references.get_fused(id))
            assert one is two
            assert asked == [id]
            assert references.default_id == id
            with pytest.raises(UnknownReferenceError):
                await references.get_fused("none")
            assert server.pipelines.pipeline is not None
            stream = await server.sessions.open(server.pipelines.pipeline, id, one, {})
            assert stream.id.startswith("r1.")
        finally:
            await server.stop()

    asyncio.run(scene())
