from __future__ import annotations

import asyncio
import hashlib
import io
from pathlib import Path

import numpy as np
import PIL.Image

from personalive.media import read_provenance
from personalive.server.routes import picture
from tests.server.parts import client_of, drive, encoded, loaded, opened, portrait, running

PICTURE = encoded(portrait())


def test_the_frame_that_was_sent_last_is_a_marked_picture(plugins: None, tmp_path: Path) -> None:
    async def run() -> None:
        async with running(tmp_path) as server, client_of(server, [picture.router]) as client:
            await loaded(server.pipelines, "echo")
            await server.references.add(PICTURE)
            stream = await opened(server)
            path = f"/api/v1/sessions/{stream.id}/picture"
            assert (await client.get(path)).status_code == 409
            await drive(stream, 8)
            await stream.set_paused(True)
            sent, answer = None, await client.get(path)
            while sent is not stream.last_sent:  # frames that were on their way are sent after a pause, too
                sent = stream.last_sent
                answer = await client.get(path)
            assert (answer.status_code, answer.headers["content-type"]) == (200, "image/png")
            assert sent is not None
            with PIL.Image.open(io.BytesIO(answer.content)) as image:
                np.testing.assert_array_equal(np.asarray(image), sent.image)
            (tmp_path / "saved.png").write_bytes(answer.content)
            mark = read_provenance(tmp_path / "saved.png")
            assert mark is not None
            assert mark["pipeline"] == "echo"
            assert mark["reference_sha256"] == hashlib.sha256(PICTURE).hexdigest()
            server.references.remove(stream.reference_id)
            assert (await client.get(path)).status_code == 200
            for id in ("nobody", "%2e%2e"):
                assert (await client.get(f"/api/v1/sessions/{id}/picture")).status_code == 404

    asyncio.run(run())
