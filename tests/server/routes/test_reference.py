from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import httpx
import numpy as np
import pytest

from personalive.server.routes import reference
from personalive.server.server import Server
from tests.server.parts import GREY, client_of, encoded, loaded, portrait, running, two_faces

URL = "/api/v1/personalive/reference"


def with_client(
    test: Callable[[httpx.AsyncClient, Server], Coroutine[Any, Any, None]],
    pipeline_id: str | None = "preview",
) -> None:
    async def run() -> None:
        async with running() as server, client_of(server, [reference.router]) as client:
            if pipeline_id is not None:
                await loaded(server.pipelines, pipeline_id)
            await test(client, server)

    asyncio.run(run())


def test_give_see_and_forget_a_reference() -> None:
    async def test(client: httpx.AsyncClient, server: Server) -> None:
        answer = await client.post(
            URL, content=encoded(portrait(), "WEBP"), headers={"content-type": "text/plain"}
        )
        assert answer.status_code == 200
        given = answer.json()
        assert given["success"] is True
        assert (given["width"], given["height"]) == (512, 512)
        assert len(given["face"]["box"]) == 4
        assert 0.8 < given["face"]["score"] <= 1
        assert given["message"] == "The reference is ready."
        own = f"{URL}/{given['reference_id']}"
        listed = (await client.get(URL)).json()
        one = (await client.get(own)).json()
        assert listed == {"references": [one], "default": given["reference_id"]}
        assert one["default"] is True
        assert one["cropped"] is True
        thumbnail = await client.get(one["thumbnail"])
        assert thumbnail.headers["content-type"] == "image/jpeg"
        assert thumbnail.content[:3] == b"\xff\xd8\xff"
        assert (await client.delete(own)).status_code == 204
        assert (await client.delete(own)).status_code == 404
        assert (await client.get(own)).status_code == 404
        assert (await client.get(one["thumbnail"])).status_code == 404
        assert (await client.get(URL)).json() == {"references": [], "default": None}

    with_client(test)


@pytest.mark.parametrize(
    ("data", "query", "status", "words"),
    [
        (b"", "", 400, "empty"),
        (encoded(portrait())[:999], "", 400, "damaged"),
        (b"GIF89a" + bytes(50), "", 415, "JPEG, PNG, WebP, HEIC or AVIF"),
        (encoded(np.zeros((5000, 8001, 3), np.uint8)), "", 413, "40 megapixels"),
        (encoded(GREY), "", 422, "No face"),
        (encoded(GREY), "?allow_no_face=perhaps", 422, "allow_no_face"),
        (encoded(two_faces()), "", 422, "allow_no_face=true"),
    ],
    ids=["empty", "cut", "gif", "large", "no-face", "query", "two-faces"],
)
def test_refusals(data: bytes, query: str, status: int, words: str) -> None:
    async def test(client: httpx.AsyncClient, server: Server) -> None:
        answer = await client.post(URL + query, content=data)
        assert answer.status_code == status
        assert words in str(answer.json()["detail"])

    with_client(test)


@pytest.mark.slow
def test_a_form_is_answered_with_what_to_do() -> None:
    async def test(client: httpx.AsyncClient, server: Server) -> None:
        answer = await client.post(URL, files={"file": encoded(portrait())})
        assert answer.status_code == 415
        assert "--data-binary" in answer.json()["detail"]

    with_client(test)


@pytest.mark.slow
def test_one_of_several_faces_is_chosen_by_the_list_in_the_error() -> None:
    async def test(client: httpx.AsyncClient, server: Server) -> None:
        picture = encoded(two_faces())
        refused = (await client.post(URL, content=picture)).json()
        assert [face["number"] for face in refused["faces"]] == [1, 2]
        assert refused["picture"] == {"width": 580, "height": 300, "rotation": 0}
        ids = set()
        for face in refused["faces"]:
            left, top, right, bottom = face["box"]
            for choice in (face["number"], f"{(left + right) / 2:.0f},{(top + bottom) / 2:.0f}"):
                answer = (await client.post(f"{URL}?face={choice}", content=picture)).json()
                assert answer["face"]["box"] == pytest.approx(face["box"], abs=1)
                ids.add(answer["reference_id"])
        assert len(ids) == 4
        answer = await client.post(f"{URL}?face=3", content=picture)
        assert (answer.status_code, len(answer.json()["faces"])) == (422, 2)
        assert (await client.post(f"{URL}?face=middle", content=picture)).status_code == 422

    with_client(test)


@pytest.mark.slow
def test_a_box_is_taken_for_the_face() -> None:
    async def test(client: httpx.AsyncClient, server: Server) -> None:
        refused = (await client.post(URL, content=encoded(GREY))).json()
        assert refused["faces"] == []
        assert refused["picture"]["width"] == GREY.shape[1]
        answer = await client.post(f"{URL}?face_box=20,20,60,60", content=encoded(GREY))
        assert answer.status_code == 200
        assert answer.json()["face"]["box"] == pytest.approx([20, 20, 80, 80], abs=0.1)
        for wrong in ("face_box=1,2,3", "face_box=9999,9999,50,50", "face_box=20,20,60,60&face=1"):
            assert (await client.post(f"{URL}?{wrong}", content=encoded(GREY))).status_code == 422

    with_client(test)


@pytest.mark.slow
def test_overrides() -> None:
    async def test(client: httpx.AsyncClient, server: Server) -> None:
        answer = await client.post(f"{URL}?allow_no_face=true", content=encoded(GREY))
        assert (answer.status_code, answer.json()["face"]) == (200, None)
        answer = await client.post(f"{URL}?allow_no_face=true", content=encoded(two_faces()))
        assert answer.status_code == 200
        assert "more than one face" in answer.json()["message"]
        answer = await client.post(f"{URL}?crop=false", content=encoded(portrait()))
        one = (await client.get(f"{URL}/{answer.json()['reference_id']}")).json()
        assert one["cropped"] is False

    with_client(test)


def test_without_a_pipeline() -> None:
    async def test(client: httpx.AsyncClient, server: Server) -> None:
        answer = await client.post(URL, content=encoded(portrait()))
        assert answer.status_code == 409
        assert "No pipeline is loaded" in answer.json()["detail"]

    with_client(test, None)


def test_any_text_is_an_unknown_id() -> None:
    async def test(client: httpx.AsyncClient, server: Server) -> None:
        for id in ("x", "%00", "%2e%2e", "..%2fx", "%F0%9F%98%80", "%ff", "a" * 5000, "-1", "null"):
            for answer in (
                await client.get(f"{URL}/{id}"),
                await client.get(f"{URL}/{id}/thumbnail"),
                await client.delete(f"{URL}/{id}"),
            ):
                assert answer.status_code == 404, (id, answer.text)

    with_client(test, None)


@pytest.mark.slow
def test_the_event_loop_goes_on_meanwhile() -> None:
    """Nothing of a large picture's work is done on the loop, however busy the machine's other threads are."""

    async def test(client: httpx.AsyncClient, server: Server) -> None:
        large = encoded(np.tile(portrait(), (4, 4, 1)), "JPEG")
        ticks = 0

        async def tick() -> None:
            nonlocal ticks
            while True:
                await asyncio.sleep(0.001)
                ticks += 1

        beat = asyncio.create_task(tick())
        posted = asyncio.create_task(client.post(f"{URL}?allow_no_face=true", content=large))
        await posted
        beat.cancel()
        assert posted.result().status_code == 200
        assert ticks > 20

    with_client(test)
