from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import httpx

from personalive.media import read_provenance
from personalive.server.routes import recordings
from personalive.server.server import Server
from tests.server.parts import client_of, drive, encoded, loaded, opened, portrait, running

PICTURE = encoded(portrait())


def with_client(
    tmp_path: Path, test: Callable[[httpx.AsyncClient, Server], Coroutine[Any, Any, None]]
) -> None:
    async def run() -> None:
        async with (
            running(tmp_path / "kept") as server,
            client_of(server, [recordings.router]) as client,
        ):
            await loaded(server.pipelines, "echo")
            await server.references.add(PICTURE)
            await test(client, server)

    asyncio.run(run())


def test_record_fetch_and_delete(plugins: None, tmp_path: Path) -> None:
    async def test(client: httpx.AsyncClient, server: Server) -> None:
        stream = await opened(server)
        own = f"/api/v1/sessions/{stream.id}/recording"
        answer = await client.post(own, json={"fps": 25})
        assert answer.status_code == 201
        assert answer.json()["state"] == "recording"
        assert (await client.post(own)).status_code == 409
        await drive(stream, 24)
        answer = await client.delete(own)
        assert answer.status_code == 200
        info = answer.json()
        assert (info["state"], info["fps"]) == ("finished", 25.0)
        assert (await client.get("/api/v1/recordings")).json() == {"recordings": [info]}
        file = await client.get(info["url"])
        assert file.headers["content-type"] == "video/mp4"
        assert len(file.content) == info["bytes"]
        part = await client.get(info["url"], headers={"range": "bytes=0-99"})
        assert (part.status_code, part.content) == (206, file.content[:100])
        assert (await client.get(info["url"], headers={"range": "bytes=9999999-"})).status_code == 416
        path = tmp_path / "fetched.mp4"
        path.write_bytes(file.content)
        marks = read_provenance(path)
        assert marks is not None
        assert marks["reference_sha256"] == hashlib.sha256(PICTURE).hexdigest()
        assert (await client.delete(info["url"])).status_code == 204
        assert (await client.get(info["url"])).status_code == 404
        assert (await client.delete(own)).status_code == 404

    with_client(tmp_path, test)


def test_refusals(plugins: None, tmp_path: Path) -> None:
    async def test(client: httpx.AsyncClient, server: Server) -> None:
        for id in ("nobody", "%2e%2e", "%00", "..%2f..%2fetc%2fpasswd"):
            assert (await client.post(f"/api/v1/sessions/{id}/recording")).status_code == 404
            assert (await client.delete(f"/api/v1/sessions/{id}/recording")).status_code == 404
            assert (await client.get(f"/api/v1/recordings/{id}")).status_code == 404
            assert (await client.delete(f"/api/v1/recordings/{id}")).status_code == 404
        stream = await opened(server)
        own = f"/api/v1/sessions/{stream.id}/recording"
        wrong: list[object] = [{"fps": 0}, {"fps": 1e9}, {"fps": "fast"}, {"name": "../x"}, []]
        for body in wrong:
            assert (await client.post(own, json=body)).status_code == 422
        server.references.remove(stream.reference_id)
        assert (await client.post(own)).status_code == 201

    with_client(tmp_path, test)
