"""The service on a small cluster: the contract of the single server, from several replicas at one address."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from aiortc import MediaStreamTrack, RTCPeerConnection
from websockets.exceptions import InvalidStatus

from personalive.media import MAX_IMAGE_BYTES
from tests.server.camera import Camera
from tests.server.client import PORTRAIT, Client, streaming
from tests.server.cluster.crowd import Crowd, owner
from tests.server.cluster.local import Nodes, cluster, give_reference, replicas, served, serving, wait_for
from tests.server.running import RunningServer
from tests.server.test_first_stream import assert_animated, load_request, shown_by_client
from tests.server.webrtc.test_signaling import accept, offered
from tests.server.websocket.client import WebSocketClient
from tests.server.websocket.client import connected as connected_websocket

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.filterwarnings("default"),
]

KEY = "the-key-of-this-service"
SDP = {"Content-Type": "application/sdp"}


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    with cluster(2) as found:
        yield found


@pytest.fixture(scope="module")
def server(nodes: Nodes) -> Iterator[RunningServer]:
    arguments = ("--replicas", 2, "--gpus-per-replica", 1, "--sessions-per-replica", 2)
    with served(nodes, *arguments, key=KEY) as one:
        yield one


def test_a_websocket_reaches_its_session_s_replica(server: RunningServer) -> None:
    give_reference(server)

    async def scene() -> None:
        async with (
            connected_websocket(server.url, key=KEY) as one,
            connected_websocket(server.url, "VP8", key=KEY) as two,
        ):
            for client in (one, two):
                await client.stream(20)
                await client.until(lambda client=client: len(client.seen) >= 5, "frames")
                await client.until(lambda client=client: client.acknowledged, "acknowledgements")
            assert {each["id"] for each in server.sessions()} == {one.id, two.id}
            assert {owner(one.id), owner(two.id)} <= serving(server)
            gone = httpx.delete(
                f"{server.url}/api/v1/websocket/offer/{one.id}", headers={"Authorization": f"Bearer {KEY}"}
            )
            assert gone.status_code == 204
            assert (await one.closed())[0] == 1000
            stranger = WebSocketClient(server.url)
            stranger.id, stranger.token = two.id, "wrong"
            with pytest.raises(InvalidStatus):
                await stranger.connect()

    asyncio.run(scene())
    wait_for(lambda: not server.sessions(), 10)


def test_sessions_are_spread_and_each_is_reached_where_it_is(server: RunningServer) -> None:
    async def scene() -> None:
        async with (
            streaming(server.url, Camera(10), key=KEY) as one,
            streaming(server.url, Camera(10), key=KEY, trickle=True) as two,
            streaming(server.url, Camera(10), key=KEY) as three,
            streaming(server.url, Camera(10), key=KEY) as four,
        ):
            clients = [one, two, three, four]
            for client in clients:
                await client.frames(5)
            ids = [str(client.id) for client in clients]
            assert len({id.partition(".")[0] for id in ids}) == 2
            told = await one.http.get("/api/v1/sessions")
            assert {each["id"] for each in told.json()["sessions"]} == set(ids)
            assert told.json()["max_sessions"] == 4
            for id in ids:
                found = await one.http.get(f"/api/v1/sessions/{id}")
                assert found.json()["id"] == id
            refused = await one.http.post(
                "/api/v1/webrtc/offer", json={"sdp": one.peer.localDescription.sdp, "type": "offer"}
            )
            assert refused.status_code == 503
            assert "slots are taken" in refused.json()["detail"]
            assert int(refused.headers["Retry-After"]) > 0
            changed = await two.ask({"gain": 0.5}, "parameters_updated")
            assert changed["gain"] == 0.5
            gone = await one.http.delete(f"/api/v1/webrtc/offer/{two.id}")
            assert gone.status_code == 204
            assert (await one.http.get(f"/api/v1/sessions/{two.id}")).status_code == 404
            assert (await one.http.delete(f"/api/v1/webrtc/offer/{two.id}")).status_code == 204

    asyncio.run(scene())
    wait_for(lambda: not server.sessions(), 10)


def test_a_reference_is_given_once_and_known_everywhere(server: RunningServer) -> None:
    added = server.post("/api/v1/personalive/reference", content=PORTRAIT.read_bytes()).json()
    assert added["success"]
    id = added["reference_id"]
    listed = server.get("/api/v1/personalive/reference").json()
    assert listed["default"] == id
    assert server.get(f"/api/v1/personalive/reference/{id}").json()["default"] is True
    assert server.get(f"/api/v1/personalive/reference/{id}/thumbnail").headers["content-type"] == "image/jpeg"

    async def scene() -> None:
        async with (
            Client(server.url, Camera(10), key=KEY) as one,
            Client(server.url, Camera(10), key=KEY) as two,
        ):
            for client in (
                one,
                two,
            ):
                await client.connect(parameters={"reference_id": id})
                await client.frames(3)
            told = await one.ask({"reference_id": "no-such"}, "error")
            assert "no such reference" in told["message"]

    asyncio.run(scene())


def test_all_replicas_load_what_one_was_told_to(server: RunningServer) -> None:
    server.load("paced", width=320, height=256, loading=3)  # longer than it takes until all have heard of it
    status = server.get("/api/v1/pipeline/status").json()
    assert status["load_params"]["width"] == 320
    assert [each["pipeline"] for each in status["replicas"]] == ["loaded", "loaded"]
    assert server.post("/api/v1/pipeline/load", json={"pipeline_id": "none"}).status_code == 404
    assert server.post("/api/v1/pipeline/unload").status_code == 200
    wait_for(lambda: server.get("/api/v1/pipeline/status").json()["status"] == "not_loaded", 10)
    assert server.get("/health/ready").status_code == 503
    server.load("paced", width=256, height=256)


def test_figures_name_their_replica(server: RunningServer) -> None:
    text = server.get("/metrics").text
    for replica in replicas(server):
        assert f'personalive_sessions{{replica="{replica["id"]}"}} 0.0' in text
    assert 'personalive_replicas{stage="serving"} 2' in text


def test_the_rest_is_as_from_one_server(server: RunningServer) -> None:
    assert "paced" in server.get("/api/v1/pipelines/schemas").json()["pipelines"]
    assert server.get("/api/v1/hardware/info").json()["cpu_count"] > 0
    assert server.get("/api/v1/models/status", params={"pipeline_id": "paced"}).json()["downloaded"] is True
    assert server.get("/api/v1/nothing").status_code == 404
    assert server.get("/api/v1/recordings").json() == {"recordings": []}
    assert "/api/v1/webrtc/offer" in server.get("/openapi.json").json()["paths"]
    page = server.get("/")
    assert page.status_code == 200
    assert "default-src 'self'" in page.headers["Content-Security-Policy"]
    assert (
        server.post("/api/v1/personalive/reference", content=b"x" * (MAX_IMAGE_BYTES + 1)).status_code == 413
    )


@pytest.mark.parametrize("key", [None, "another"])
def test_who_has_no_key_sees_the_page_and_the_health_only(server: RunningServer, key: str | None) -> None:
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    with httpx.Client(base_url=server.url, headers=headers, timeout=20) as stranger:
        for path in ("/", "/stage", "/health", "/health/live", "/health/ready"):
            assert stranger.get(path).status_code == 200
        for path in (
            "/metrics",
            "/openapi.json",
            "/api/v1/cluster",
            "/api/v1/sessions",
            "/api/v1/recordings",
        ):
            assert stranger.get(path).status_code == 401
        for path in ("/api/v1/webrtc/offer", "/whip", "/whep", "/api/v1/personalive/reference"):
            assert stranger.post(path, content=b"{}").status_code == 401


def test_one_pushes_by_whip_and_another_watches_by_whep(server: RunningServer) -> None:
    give_reference(server)

    async def scene() -> None:
        camera, viewer = RTCPeerConnection(), RTCPeerConnection()
        camera.addTransceiver(Camera(10), "sendonly")
        viewer.addTransceiver("video", "recvonly")
        tracks: asyncio.Queue[MediaStreamTrack] = asyncio.Queue()
        viewer.on("track", tracks.put_nowait)
        pushed = await asyncio.to_thread(server.post, "/whip", content=await offered(camera), headers=SDP)
        assert pushed.status_code == 201
        await accept(camera, pushed.text)
        pulled = await asyncio.to_thread(server.post, "/whep", content=await offered(viewer), headers=SDP)
        assert pulled.status_code == 201
        assert owner(pulled.headers["location"].rpartition("/")[2]) == owner(pushed.headers["X-Session-Id"])
        await accept(viewer, pulled.text)
        track = await tracks.get()
        for _ in range(5):
            await asyncio.wait_for(track.recv(), 10)
        fragment = "a=mid:0\r\na=candidate:1 1 udp 2130706431 127.0.0.1 9 typ host\r\na=end-of-candidates"
        trickle = {"Content-Type": "application/trickle-ice-sdpfrag"}
        own = pushed.headers["location"]
        for location in (own, pulled.headers["location"]):
            told = await asyncio.to_thread(server.patch, location, content=fragment, headers=trickle)
            assert told.status_code == 204
        for location, status in ((pulled.headers["location"], 200), (own, 200), (own, 404)):
            assert (await asyncio.to_thread(server.delete, location)).status_code == status
        await camera.close()
        await viewer.close()

    asyncio.run(scene())
    wait_for(lambda: not server.sessions(), 10)


def test_what_two_replicas_recorded_is_fetched_from_one_address(server: RunningServer) -> None:
    give_reference(server)
    with Crowd(server.url, key=KEY) as crowd:
        clients = [crowd.join(), crowd.join()]
        paths = [f"/api/v1/sessions/{client.id}/recording" for client in clients]
        for path in paths:
            assert server.post(path, json={"fps": 25}).status_code == 201
            assert server.post(path).status_code == 409
        for client in clients:
            crowd.wait(client, 6)
        kept = [server.delete(path).json() for path in paths]
    assert len({owner(str(client.id)) for client in clients}) == 2
    listed = server.get("/api/v1/recordings").json()["recordings"]
    assert {each["recording_id"] for each in listed} == {each["recording_id"] for each in kept}
    for each in kept:
        file = server.get(each["url"])
        assert (file.headers["content-type"], len(file.content)) == ("video/mp4", each["bytes"])
        part = server.get(each["url"], headers={"Range": "bytes=0-99"})
        assert (part.status_code, part.content) == (206, file.content[:100])
        assert server.delete(each["url"]).status_code == 204
        assert server.get(each["url"]).status_code == 404
    assert server.get("/api/v1/recordings").json() == {"recordings": []}


def test_the_readme_s_client_gets_animated_frames(server: RunningServer, tmp_path: Path) -> None:
    json = {"Content-Type": "application/json"}
    assert server.post("/api/v1/pipeline/load", content=load_request(), headers=json).status_code == 200
    server.wait_until_loaded()
    give_reference(server)
    assert_animated(shown_by_client(tmp_path, server.url, KEY))
