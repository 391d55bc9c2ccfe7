"""A session over a WebSocket, on a real server with real sockets, by a client that encodes with PyAV."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterator

import pytest

from personalive.server.websocket.media_message import MediaKind, MediaMessage
from personalive.server.websocket.rate_limit import MessageRateLimit
from personalive.server.websocket.video_codecs import VideoCodec
from tests.server.client import PORTRAIT
from tests.server.running import running as running_process
from tests.server.served import Served, served
from tests.server.websocket.client import WebSocketClient, connected

STALL_S = 0.02


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(tmp_path_factory.mktemp("recordings"), max_sessions=2) as started:
        yield started


@pytest.fixture
def url(running: Served) -> Iterator[str]:
    host, port = running.address
    yield f"http://{host}:{port}"
    run(lambda: no_sessions(running))


def run(act: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(act(), 60))


async def no_sessions(running: Served) -> None:
    """Every session has ended."""
    for _ in range(500):
        if len(running.server.sessions) == 0:
            return
        await asyncio.sleep(0.02)
    raise TimeoutError("a session is left")


@pytest.mark.parametrize("codec", ["H264", "VP8"])
def test_frames_come_back_and_are_acknowledged(running: Served, url: str, codec: VideoCodec) -> None:
    async def act() -> None:
        async with connected(url, codec) as client:
            await client.stream(30)
            await client.until(lambda: len(client.seen) >= 5, "frames")
            await client.until(lambda: client.last_sent in client.acknowledged, "acknowledgements")
            assert client.keyframes[0]
            # An encoder for another bitrate, as a busy machine may get one, begins with one too.
            assert sum(client.keyframes) < len(client.keyframes) / 2
            await client.until(lambda: client.told("stats"), "figures")
            assert client.messages[0] == {"type": "state", "state": "waiting_for_face"}
            assert client.acknowledged == sorted(client.acknowledged)

    with running.watched():
        run(act)
    assert running.held < STALL_S


def test_messages_are_those_of_the_data_channel(url: str) -> None:
    async def act() -> None:
        async with connected(url) as client:
            await client.say({"paused": True, "expression": 1.5, "colour": 1})
            await client.until(lambda: client.told("parameters_updated"), "an answer")
            assert client.told("parameters_updated")[0] == {
                "type": "parameters_updated",
                "paused": True,
                "expression": 1.5,
            }
            await client.until(lambda: client.told("error"), "an error")
            assert client.told("error")[0]["message"].startswith("Unknown: colour. Known: paused")
            await client.socket.send("{")
            await client.until(lambda: len(client.told("error")) == 2, "another error")
            await client.say({"paused": False})
            await client.until(lambda: len(client.told("parameters_updated")) == 2, "the session goes on")

    run(act)


def test_keyframes_come_when_asked_for_and_are_asked_for(url: str) -> None:
    async def act() -> None:
        async with connected(url) as client:
            client.encode(0)
            await client.socket.send(client.encode(1))  # the keyframe before it is not sent
            await client.until(lambda: client.keyframe_requests == 1, "a request for a keyframe")
            await client.stream(15, first=2)
            await client.until(lambda: len(client.seen) >= 3, "frames")
            before = len(client.keyframes)
            await client.socket.send(MediaMessage(MediaKind.KEYFRAME_REQUEST).pack())
            await client.stream(15, first=17)
            await client.until(lambda: any(client.keyframes[before:]), "a keyframe")

    run(act)


def test_sound_is_ignored_until_it_is_asked_for(running: Served, url: str) -> None:
    async def act() -> None:
        async with connected(url) as client:
            session = running.server.sessions.require(client.id)
            for timestamp in (3, 2, 1):
                await client.socket.send(sound(b"no opus", timestamp))
            await client.stream(5)
            await client.until(lambda: client.seen, "a frame")
            assert (client.sounds, session.audio.dropped) == (0, 0)

    run(act)


def test_sound_comes_back_while_it_is_on(running: Served, url: str) -> None:
    async def act() -> None:
        async with connected(url) as client:
            session = running.server.sessions.require(client.id)
            await client.stream(5)
            await client.say({"audio": True})
            await client.until(lambda: client.told("parameters_updated"), "an answer")
            await client.stream(30, with_sound=True)
            await client.until(lambda: client.sounds > 10, "sound")
            assert client.sound_timestamps == sorted(set(client.sound_timestamps))
            assert session.audio.dropped == 0
            # The clocks of both are one: what is due at about the same time has about the same timestamp.
            assert abs(client.sound_timestamps[-1] - client.last_received) < 2_000_000
            await client.socket.send(sound(b"\x03", client.last_sent + 10**6))  # one that cannot be decoded
            await client.until(lambda: session.audio.dropped == 1, "a count")
            await client.say({"audio": False})
            await client.until(lambda: len(client.told("parameters_updated")) == 2, "an answer")
            before = client.sounds
            await client.stream(10)
            assert client.sounds <= before + 2

    run(act)


def test_an_offer_may_ask_for_sound(url: str) -> None:
    async def act() -> None:
        async with WebSocketClient(url) as client:
            (await client.offer(initialParameters={"audio": True})).raise_for_status()
            await client.connect()
            await client.stream(30, with_sound=True)
            await client.until(lambda: client.sounds > 10, "sound")

    run(act)


def test_a_client_that_acknowledges_nothing_gets_no_sound(url: str) -> None:
    async def act() -> None:
        async with WebSocketClient(url, acknowledges=False) as client:
            (await client.offer(initialParameters={"audio": True})).raise_for_status()
            await client.connect()
            await client.stream(30, with_sound=True)
            await client.until(lambda: len(client.told("stats")) >= 2, "figures")
            assert client.sounds == 0

    run(act)


def test_sound_that_cannot_be_decoded_ends_the_session(running: Served, url: str) -> None:
    cases = [
        ([sound(b"\x03" * 3, k) for k in range(1, 4)], "cannot be decoded"),
        ([sound(bytes(9000), 1)], "may have 8192 bytes"),
        ([sound(b"\xfc", 7), sound(b"\xfc", 7)], "must increase"),
    ]

    async def act() -> None:
        for messages, why in cases:
            async with WebSocketClient(url) as client:
                (await client.offer(initialParameters={"audio": True})).raise_for_status()
                await client.connect()
                for message in messages:
                    await client.socket.send(message)
                code, reason = await client.closed()
                assert (code, why in (reason or "")) == (1007, True), (code, reason)
            await no_sessions(running)

    run(act)


def sound(packet: bytes, timestamp: int) -> bytes:
    return MediaMessage(MediaKind.AUDIO, timestamp, packet).pack()


def test_closing_the_websocket_ends_the_session(running: Served, url: str) -> None:
    async def act() -> None:
        async with connected(url) as client:
            assert len(running.server.sessions) == 1
            assert client.id in {session.id for session in running.server.sessions.all()}
        await no_sessions(running)

    run(act)


def test_the_end_of_a_session_closes_the_websocket(running: Served, url: str) -> None:
    async def act() -> None:
        async with connected(url) as client:
            session = running.server.sessions.require(client.id)
            ended = running.begin(session.end("shutdown", "The server is stopping."))
            assert await client.closed() == (1001, "The server is stopping.")
            assert client.messages[-1] == {
                "type": "stream_stopped",
                "error_message": "The server is stopping.",
            }
            await asyncio.wrap_future(ended)

    run(act)


def test_no_frames_are_sent_to_a_client_that_acknowledges_none(url: str) -> None:
    async def act() -> None:
        async with connected(url, acknowledges=False) as client:
            await client.stream(30)
            await client.until(lambda: len(client.told("stats")) >= 2, "figures")
            assert len(client.keyframes) == 1

    run(act)


# -- what a client sends that it should not


async def closing(url: str, *messages: bytes | str) -> tuple[int | None, str | None]:
    """How the server closes after these messages."""
    async with connected(url) as client:
        with contextlib.suppress(OSError):
            for message in messages:
                await client.socket.send(message)
        return await client.closed()


def video(payload: bytes, timestamp: int, *, is_keyframe: bool = True) -> bytes:
    return MediaMessage(MediaKind.VIDEO, timestamp, payload, is_keyframe).pack()


def test_hostile_messages_end_the_session_with_a_reason(running: Served, url: str) -> None:
    garbage = [video(b"\x99" * 500, k) for k in range(1, 5)]
    cases: list[tuple[list[bytes | str], int, str]] = [
        ([b"\x01\x00"], 1007, "12 bytes or more"),
        ([b"\x09" + bytes(20)], 1007, "kind 9"),
        ([video(b"a", 5, is_keyframe=False), video(b"a", 5)], 1007, "must increase"),
        (list(garbage), 1007, "cannot be decoded"),
        ([bytes(2_000_000)], 1009, ""),
        (["{}"] * (3 * MessageRateLimit.PER_SECOND), 1008, "messages in a second"),
    ]

    async def act() -> None:
        for messages, code, why in cases:
            closed, reason = await closing(url, *messages)
            assert (closed, why in (reason or "")) == (code, True), (closed, reason, why)
            await no_sessions(running)

    with running.watched():
        run(act)
    assert running.held < STALL_S


def test_truncated_and_giant_frames_do_no_harm(running: Served, url: str) -> None:
    async def act() -> None:
        async with connected(url) as client, connected(url) as other:
            whole = client.encode(0)
            await client.socket.send(whole[: len(whole) // 2])
            giant = giant_keyframe()
            for k in range(3):
                await client.socket.send(video(giant, 2**50 + k))
            code, reason = await client.closed()
            assert code == 1007
            assert "pixels" in (reason or "") or "decoded" in (reason or "")
            await other.stream(10)
            await other.until(lambda: other.seen, "frames of another client")

    with running.watched():
        run(act)
    assert running.held < STALL_S


def giant_keyframe() -> bytes:
    """A VP8 keyframe's header that says 16383 × 16383, as H.264 it is garbage."""
    return b"\x10\x02\x00\x9d\x01\x2a" + (16_383).to_bytes(2, "little") * 2 + bytes(100)


def test_fragments_and_pings_without_end_do_not_hold_the_event_loop(running: Served, url: str) -> None:
    async def act() -> None:
        async with connected(url) as client:
            transport = client.socket.transport
            masked = bytes([0x89, 0x80, 0, 0, 0, 0])  # a ping
            transport.write(masked * 20_000)
            await client.stream(3)
            await client.until(lambda: len(client.acknowledged) >= 1, "an acknowledgement")
        async with connected(url) as client:
            begin, more = bytes([0x02, 0x80, 0, 0, 0, 0]), bytes([0x00, 0x80, 0, 0, 0, 0])
            client.socket.transport.write(begin + more * 20_000)
            assert (await client.closed())[0] == 1008

    with running.watched():
        run(act)
    assert running.held < STALL_S


# -- who may connect


def test_a_token_is_valid_once_and_for_its_session_only(url: str) -> None:
    async def act() -> None:
        async with WebSocketClient(url) as client:
            await client.offer()
            token = client.token
            for wrong in ("", "wrong", token[:-1]):
                client.token = wrong
                await refused(client)
            client.token = token
            await client.connect()
            again = WebSocketClient(url)
            again.id, again.token = client.id, token
            await refused(again)
            again.id = "unknown"
            await refused(again)

    run(act)


async def refused(client: WebSocketClient) -> None:
    from websockets.exceptions import InvalidStatus

    with pytest.raises(InvalidStatus) as raised:
        await client.connect()
    assert raised.value.response.status_code == 403
    assert b"POST an offer first" in (raised.value.response.body or b"")


def test_offers_are_refused_as_webrtc_offers_are(running: Served, url: str) -> None:
    async def act() -> None:
        async with WebSocketClient(url) as client:
            unknown = await client.offer(initialParameters={"reference_id": "unknown"})
            assert unknown.status_code == 404
            assert (await client.offer(initialParameters={"expression": 9})).status_code == 422
            assert (await client.offer(drivingCodec="AV1")).status_code == 422
            assert (await client.offer(more=1)).status_code == 422
        clients = [WebSocketClient(url) for _ in range(3)]
        answers = [await client.offer() for client in clients]
        assert [answer.status_code for answer in answers] == [200, 200, 503]
        assert int(answers[2].headers["Retry-After"]) > 0
        for session in running.server.sessions.all():
            await asyncio.wrap_future(running.begin(session.end("client_closed")))

    run(act)


def test_the_key_is_wanted_for_offers(tmp_path_factory: pytest.TempPathFactory) -> None:
    async def act(url: str) -> None:
        assert (await WebSocketClient(url).offer()).status_code == 401
        async with connected(url, key="secret") as client:
            await client.stream(5)
            await client.until(lambda: client.acknowledged, "an acknowledgement")
        stranger = WebSocketClient(url)
        stranger.id, stranger.token = "unknown", "x"
        await refused(stranger)

    with served(tmp_path_factory.mktemp("recordings"), api_key="secret") as started:
        host, port = started.address
        run(lambda: act(f"http://{host}:{port}"))


def test_foreign_pages_are_refused(url: str) -> None:
    from websockets.exceptions import InvalidStatus

    async def act() -> None:
        foreign = {"Origin": "https://example.com"}
        assert (await WebSocketClient(url, headers=foreign).offer()).status_code == 403
        async with WebSocketClient(url) as client:
            await client.offer()
            with pytest.raises(InvalidStatus) as raised:
                await client.connect(origin="https://example.com")
            assert raised.value.response.status_code == 403
            await client.connect()

    run(act)


def test_a_session_whose_websocket_does_not_come_ends(tmp_path_factory: pytest.TempPathFactory) -> None:
    async def act(started: Served) -> None:
        host, port = started.address
        client = WebSocketClient(f"http://{host}:{port}")
        await client.offer()
        assert len(started.server.sessions) == 1
        await no_sessions(started)
        await refused(client)

    with served(tmp_path_factory.mktemp("recordings"), connect_timeout_s=0.5) as started:
        run(lambda: act(started))


@pytest.mark.slow
@pytest.mark.parametrize("codec", ["H264", "VP8"])
def test_each_frame_that_comes_back_shows_the_right_number(codec: VideoCodec) -> None:
    async def act(url: str) -> None:
        async with connected(url, codec) as client:
            await client.stream(60, fps=20)
            await client.until(lambda: 55 in client.seen, "a late frame")
            numbers = [number for number in client.seen if number is not None]
            assert len(numbers) >= 30
            assert numbers == sorted(numbers)

    load = {"chunk_frames": 1, "height": 256, "width": 256}
    with running_process({"pipeline": "paced", "load_params": load}) as server:
        server.wait_until_loaded()
        picture = PORTRAIT.read_bytes()
        server.post("/api/v1/personalive/reference", content=picture).raise_for_status()
        run(lambda: act(server.url))
