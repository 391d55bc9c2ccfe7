"""The service on a small cluster: the contract of the single server, from several replicas at one address."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from tests.cluster.serving.local import Nodes, cluster, replicas, served, wait_for
from tests.serving.camera import Camera
from tests.serving.client import PORTRAIT, Client, streaming
from tests.serving.running import RunningServer

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.filterwarnings("default"),
]

KEY = "the-key-of-this-service"


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    with cluster(2) as found:
        yield found


@pytest.fixture(scope="module")
def server(nodes: Nodes) -> Iterator[RunningServer]:
    arguments = ("--replicas", 2, "--gpus-per-replica", 1, "--sessions-per-replica", 2)
    with served(nodes, *arguments) as one:
        yield one


def test_sessions_are_spread_and_each_is_reached_where_it_is(server: RunningServer) -> None:
    async def scene() -> None:
        async with (
            streaming(server.url, Camera(10)) as one,
            streaming(server.url, Camera(10), trickle=True) as two,
            streaming(server.url, Camera(10)) as three,
            streaming(server.url, Camera(10)) as four,
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
        async with Client(server.url, Camera(10)) as one, Client(server.url, Camera(10)) as two:
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
    assert server.get("/", headers={"Host": "evil.example.com"}).status_code == 403
    assert server.post("/api/v1/personalive/reference", content=b"x" * 21_000_000).status_code == 413
