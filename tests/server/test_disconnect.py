"""Clients that hang up before they are answered: what was begun for them is given up."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from personalive.server.sessions import session_manager
from tests.server.served import OFFER, Served, answer_of, connected, served

LATE = 30.0


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("recordings")
    with (
        pytest.MonkeyPatch.context() as patch,
        served(folder, connect_timeout_s=600, max_sessions=1) as running,
    ):
        patch.setattr(session_manager, "_SILENCE_TIMEOUT_S", 1e9)  # no newcomer makes room for itself
        yield running


def request(path: str) -> bytes:
    body, kind = OFFER.encode(), "application/sdp"
    if path.startswith("/api"):
        body, kind = json.dumps({"sdp": OFFER, "type": "offer"}).encode(), "application/json"
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def wait(true: Callable[[], bool]) -> None:
    until = time.monotonic() + LATE
    while not true():
        assert time.monotonic() < until
        time.sleep(0.02)


def is_free(running: Served) -> bool:
    return len(running.server.sessions) == 0 and not running.server.signaling._peers


def opens(running: Served, path: str) -> bool:
    with connected(running.address) as client:
        client.sendall(request(path))
        status, said = answer_of(client)
    assert status in {200, 201, 503}, said
    return status != 503


@pytest.mark.slow
@pytest.mark.parametrize("path", ["/whip", "/api/v1/webrtc/offer"])
@pytest.mark.parametrize("worker_is_busy", [False, True])
def test_an_offer_whose_client_has_left_keeps_no_place(
    running: Served, path: str, worker_is_busy: bool
) -> None:
    """Whether its session is still waited for, being opened, or there already."""
    wait(lambda: is_free(running))
    go_on = threading.Event()
    if worker_is_busy:
        occupied = running.begin(running.server.workers[0].call(go_on.wait, LATE))
    with connected(running.address) as client:
        client.sendall(request(path))
        if worker_is_busy:
            wait(lambda: len(running.server.sessions) == 1)
    try:
        wait(lambda: is_free(running))
    finally:
        go_on.set()
    if worker_is_busy:
        assert occupied.result(LATE)
    wait(lambda: opens(running, path))
    (stream,) = running.server.sessions.all()
    running.call(stream.end("client_closed"))


def test_a_viewer_who_has_left_is_forgotten(running: Served) -> None:
    wait(lambda: is_free(running))
    with connected(running.address) as client:
        client.sendall(request("/whip"))
        assert answer_of(client)[0] == 201
    for _ in range(5):
        with connected(running.address) as client:
            client.sendall(request("/whep"))
    wait(lambda: not running.server.signaling._viewers)
    (stream,) = running.server.sessions.all()
    assert not stream.ended
    running.call(stream.end("client_closed"))
