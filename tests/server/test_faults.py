"""What goes wrong while clients stream, and what each of them then sees: real sockets, the server on its own."""

from __future__ import annotations

import asyncio
import functools
import io
import json
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, ParamSpec

import numpy as np
import PIL.Image
import pytest

from personalive.media import read_image
from tests.server.camera import Camera
from tests.server.client import PORTRAIT, Client, streaming
from tests.server.running import ClientProcess, RunningServer, running

P = ParamSpec("P")

SMALL = {"width": 256, "height": 256}
FEW = 10
"""Frames that show that a stream runs."""
IDLE = 3.0


@pytest.fixture(scope="module")
def server() -> Iterator[RunningServer]:
    settings = {"max_sessions": 3, "idle_timeout_s": IDLE, "connect_timeout_s": 2}
    with running({"pipeline": "paced", "load_params": SMALL, **settings}) as one:
        one.wait_until_loaded()
        yield one


@pytest.fixture(autouse=True)
def nobody(server: RunningServer) -> None:
    """A test that fails must not take the slots of the next."""
    server.wait_for_sessions(0)


def alive(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """A test that awaits."""

    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        asyncio.run(test(*args, **kwargs))

    return run


async def goes_on(client: Client) -> None:
    """It is still served."""
    await client.frames(FEW)
    assert client.report.ended is None
    assert not client.report.told("stream_stopped")


async def is_ended(client: Client) -> str:
    """It is told so, and the connection closes after that. The reason it is given."""
    told = await client.told("stream_stopped")
    await client.gone()
    return str(told.get("error_message", ""))


async def refused(client: Client, body: object) -> tuple[int, str]:
    """Status and reason that an offer is refused with."""
    answer = await client.http.post("/api/v1/webrtc/offer", json=body)
    return answer.status_code, str(answer.json().get("detail"))


@alive
async def test_a_client_that_vanishes_is_missed_and_the_others_go_on(server: RunningServer) -> None:
    async with streaming(server.url, Camera(15)) as client:
        with ClientProcess(server.url, "--seconds", 1, "--vanish") as other:
            await asyncio.to_thread(other.report, 30)
        assert len(server.sessions()) == 2
        await asyncio.to_thread(server.wait_for_sessions, 1, IDLE + 5)
        await goes_on(client)


@alive
async def test_a_client_that_never_connects_gives_its_slot_back(server: RunningServer) -> None:
    async with Client(server.url) as client:
        await client.post_reference(PORTRAIT.read_bytes())
        answer = await client.http.post(
            "/api/v1/webrtc/offer", json={"sdp": await client.offer(trickle=True), "type": "offer"}
        )
        assert answer.status_code == 200
        assert len(server.sessions()) == 1
        await asyncio.to_thread(server.wait_for_sessions, 0, 6)


BAD_SDP = {
    "empty": "",
    "prose": "please let me in",
    "only a version": "v=0\r\n",
    "no media": "v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\n",
    "zeros": "\0" * 1000,
    "half of one": "HALF",
    "no fingerprint": "a=fingerprint",
    "no ice": "a=ice-",
    "unknown codecs": "a=rtpmap",
    "not sending": "a=sendrecv",
}


@pytest.mark.parametrize("kind", BAD_SDP)
@alive
async def test_a_bad_offer_is_refused_in_words(server: RunningServer, kind: str) -> None:
    async with Client(server.url) as client:
        await client.post_reference(PORTRAIT.read_bytes())
        good = await client.offer()
        bad = BAD_SDP[kind]
        if bad == "HALF":
            bad = good[: len(good) // 2]
        elif bad.startswith("a="):
            lines = good.splitlines(keepends=True)
            bad = "".join(line for line in lines if not line.startswith(bad))
            bad = bad if kind != "not sending" else good.replace("a=sendrecv", "a=inactive")
        status, detail = await refused(client, {"sdp": bad, "type": "offer"})
        assert status == 400, detail
        assert "SDP" in detail or "video" in detail
        await asyncio.to_thread(server.wait_for_sessions, 0, 5)


@pytest.mark.parametrize("kind", ["empty", "prose", "only a version", "no media", "zeros"])
def test_a_bad_push_is_refused_in_words(server: RunningServer, kind: str) -> None:
    server.post("/api/v1/personalive/reference", content=PORTRAIT.read_bytes()).raise_for_status()
    for path in ("/whip", "/whep"):
        answer = server.post(path, content=BAD_SDP[kind], headers={"Content-Type": "application/sdp"})
        # Nobody streams that could be watched.
        assert answer.status_code == (409 if path == "/whep" else 400)
        assert isinstance(answer.json()["detail"], str)
    assert server.sessions() == []


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({}, 422),
        ({"sdp": "v=0", "type": "answer"}, 422),
        ({"sdp": 5, "type": "offer"}, 422),
        ({"sdp": "v=0", "type": "offer", "extra": 1}, 422),
        ({"sdp": "v=0", "type": "offer", "initialParameters": {"reference_id": "nobody"}}, 404),
        ({"sdp": "v=0", "type": "offer", "initialParameters": {"gain": 99}}, 422),
        ({"sdp": "v=0", "type": "offer", "initialParameters": {"prompts": [], "input_mode": "video"}}, 400),
    ],
)
@alive
async def test_what_an_offer_asks_for_is_checked(
    server: RunningServer, body: dict[str, object], status: int
) -> None:
    async with Client(server.url) as client:
        await client.post_reference(PORTRAIT.read_bytes())
        assert (await refused(client, body))[0] == status
        assert server.sessions() == []


@alive
async def test_candidates_are_checked_and_may_come_for_those_who_stream_only(server: RunningServer) -> None:
    async with streaming(server.url, Camera(15), trickle=True) as client:
        path = f"/api/v1/webrtc/offer/{client.id}"
        nonsense = {"candidate": "candidate:nonsense", "sdpMid": "0", "sdpMLineIndex": 0}
        assert (await client.http.patch(path, json={"candidates": [nonsense]})).status_code == 400
        assert (await client.http.patch(path, json={"candidates": []})).status_code == 204
        gone = await client.http.patch("/api/v1/webrtc/offer/nobody", json={"candidates": []})
        assert gone.status_code == 404
        await goes_on(client)


GARBAGE: list[str | bytes] = [
    "",
    "{",
    "[]",
    "null",
    "7",
    b"\xff\xfe\x00",
    "[" * 15_000,
    json.dumps({"gain": "loud"}),
    json.dumps({"gain": 99}),
    json.dumps({"paused": "yes"}),
    json.dumps({"reset_cache": 1}),
    json.dumps({"reference_id": "nobody"}),
    json.dumps({"reference_id": {"a": 1}}),
    json.dumps({"no_such_thing": True}),
    json.dumps({"text": "x" * 20_000}),
    '{"gain": 1e999}',
    '{"gain": NaN}',
]


@alive
async def test_garbage_on_the_data_channel_is_answered_and_forgotten(server: RunningServer) -> None:
    async with streaming(server.url, Camera(15)) as client:
        for garbage in GARBAGE:
            told = await client.ask(garbage, "error")
            assert isinstance(told["message"], str), garbage
            assert 0 < len(told["message"]) < 500, garbage
        assert len(client.report.told("error")) == len(GARBAGE)
        assert (await client.ask({"gain": 0.5}, "parameters_updated"))["gain"] == 0.5
        assert server.sessions()[0]["parameters"]["gain"] == 0.5
        await goes_on(client)


@alive
async def test_more_wishes_than_can_be_worked_off_drown_nobody(server: RunningServer) -> None:
    async with streaming(server.url, Camera(15)) as client, streaming(server.url, Camera(15)) as other:
        for index in range(200):
            client.send({"gain": index / 200})
        kinds = ("error", "parameters_updated")
        await client.until(lambda: sum(len(client.report.told(kind)) for kind in kinds) >= 200, "200 answers")
        assert "Too many messages" in client.report.told("error")[0]["message"]
        await goes_on(other)
        await goes_on(client)


@alive
async def test_a_pause_stands_still_and_goes_on_where_the_camera_is(server: RunningServer) -> None:
    async with streaming(server.url, Camera(15)) as client:
        await client.frames(FEW)
        await client.ask({"paused": True}, "parameters_updated")
        await asyncio.sleep(1)
        paused = server.sessions()[0]
        assert paused["state"] == "paused"
        begin = len(client.report.numbers)
        await asyncio.sleep(1.5)
        assert len(set(client.report.numbers[begin:])) <= 1
        await client.ask({"paused": False}, "parameters_updated")
        resumed = len(client.camera.captured)
        await client.until(lambda: max(client.report.numbers) >= resumed, "frames after the pause")
        await goes_on(client)


def portrait(brighter: int) -> bytes:
    """The sample portrait a little brighter: other bytes, another reference."""
    image = read_image(PORTRAIT).astype(np.int16) + brighter
    file = io.BytesIO()
    PIL.Image.fromarray(np.clip(image, 0, 255).astype(np.uint8)).save(file, "JPEG")
    return file.getvalue()


@alive
async def test_a_reference_may_be_replaced_fifty_times_while_it_streams(server: RunningServer) -> None:
    async with streaming(server.url, Camera(15)) as client:
        await client.frames(FEW)
        pictures = [portrait(brighter) for brighter in range(10)]
        for picture in pictures * 5:
            posted = await client.post_reference(picture)
            told = await client.ask({"reference_id": posted["reference_id"]}, "parameters_updated")
            assert told["reference_id"] == posted["reference_id"]
        listed = (await client.http.get("/api/v1/personalive/reference")).json()
        assert listed["default"] == posted["reference_id"] == server.sessions()[0]["reference_id"]
        assert len({one["reference_id"] for one in listed["references"]}) >= len(pictures)
        assert max(client.report.gaps) < 3
        await goes_on(client)


@alive
async def test_a_reference_that_is_forgotten_stays_where_it_streams(server: RunningServer) -> None:
    async with streaming(server.url, Camera(15)) as client:
        path = f"/api/v1/personalive/reference/{server.sessions()[0]['reference_id']}"
        assert (await client.http.delete(path)).status_code == 204
        assert (await client.http.get(path)).status_code == 404
        await goes_on(client)


@pytest.mark.parametrize(
    ("fault", "said"),
    [("fail_at", "an error in the server"), ("oom_at", "out of memory")],
    ids=["defect", "memory"],
)
@alive
async def test_a_session_that_breaks_down_ends_alone(server: RunningServer, fault: str, said: str) -> None:
    async with streaming(server.url, Camera(15)) as other:
        async with streaming(server.url, Camera(15), parameters={fault: 20}) as client:
            assert said in await is_ended(client)
            assert 0 < len(client.report.seen) <= 20
        await goes_on(other)
        async with streaming(server.url, Camera(15)) as another:
            await goes_on(another)
        assert server.get("/health/ready").status_code == 200
    assert 'kind="' in (metrics := server.get("/metrics").text), metrics


async def load(client: Client, **wishes: object) -> tuple[int, str]:
    """Status and what is said to a load."""
    answer = await client.http.post("/api/v1/pipeline/load", json=wishes)
    return answer.status_code, answer.text


@alive
async def test_a_load_ends_no_session_unless_it_is_forced(server: RunningServer) -> None:
    async with streaming(server.url, Camera(15)) as client, streaming(server.url, Camera(15)) as other:
        assert (await load(client, pipeline_id="paced", load_params=SMALL))[0] == 200
        status, said = await load(client, pipeline_id="paced", load_params={**SMALL, "seed": 7})
        assert (status, "2 sessions" in said, "force" in said) == (409, True, True)
        assert (await load(client, pipeline_id="nobody", load_params={}, force=True))[0] == 404
        assert (await load(client, pipeline_id="paced", load_params={"width": 5}, force=True))[0] == 422
        await goes_on(client)
        await goes_on(other)
        slow = {**SMALL, "seed": 7, "loading": 1.0}
        assert (await load(client, pipeline_id="paced", load_params=slow, force=True))[0] == 200
        assert (await load(client, pipeline_id="paced", load_params=SMALL, force=True))[0] == 409
        assert "being loaded" in await is_ended(client)
        assert "being loaded" in await is_ended(other)
    async with Client(server.url) as late:
        assert (await refused(late, {"sdp": await late.offer(), "type": "offer"}))[0] == 503
    await asyncio.to_thread(server.wait_until_loaded)
    async with streaming(server.url, Camera(15)) as again:
        await goes_on(again)
    await asyncio.to_thread(server.load, "paced", **SMALL)


@alive
async def test_an_unload_ends_no_session_unless_it_is_forced(server: RunningServer) -> None:
    async with streaming(server.url, Camera(15)) as client:
        assert (await client.http.post("/api/v1/pipeline/unload")).status_code == 409
        await goes_on(client)
        assert (await client.http.post("/api/v1/pipeline/unload", json={"force": True})).status_code == 200
        assert "unloaded" in await is_ended(client)
        assert server.get("/api/v1/pipeline/status").json()["status"] == "not_loaded"
        assert server.get("/health/ready").status_code == 503
    await asyncio.to_thread(server.load, "paced", **SMALL)


@alive
async def test_a_client_may_close_twice_and_others_do_not_notice(server: RunningServer) -> None:
    async with streaming(server.url, Camera(15)) as client, streaming(server.url, Camera(15)) as other:
        path = f"/api/v1/webrtc/offer/{client.id}"
        assert (await other.http.delete(path)).status_code == 204
        assert await is_ended(client) == ""
        assert (await other.http.delete(path)).status_code == 204
        await goes_on(other)


def test_weights_that_are_missing_are_named_with_the_command_that_fetches_them(server: RunningServer) -> None:
    remedies = {
        "personalive": "Run: personalive download",
        "missing": "Run `download_models --pipeline missing`",
    }
    for pipeline, remedy in remedies.items():
        answer = server.post("/api/v1/pipeline/load", json={"pipeline_id": pipeline, "load_params": {}})
        assert answer.status_code == 409
        assert remedy in answer.json()["detail"]
        assert server.get("/api/v1/pipeline/status").json()["status"] == "loaded"
    told = server.get("/api/v1/models/status", params={"pipeline_id": "personalive"}).json()
    assert told["downloaded"] is False
    assert told["missing"]
