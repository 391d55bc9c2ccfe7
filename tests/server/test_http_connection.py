"""Clients by hand, over real sockets: those that say nothing, too slowly, too much or in too many pieces."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import Iterator
from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from personalive.server import http_connection
from personalive.server.http_connection import TaskQueue
from tests.server.served import Served, answer_of, connected, served

HEADER_S = 1.0
MOST_OF_ONE = 12
HEALTH = b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
LATE = 20.0
"""Seconds within which what should happen has happened on any machine."""


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("recordings")
    with served(
        folder,
        load=False,
        most=40,
        header_timeout_s=HEADER_S,
        body_timeout_s=1.5,
        max_connections=MOST_OF_ONE,
    ) as running:
        yield running


@pytest.fixture
def client(running: Served) -> Iterator[socket.socket]:
    with connected(running.address) as client:
        yield client


def rest(client: socket.socket) -> bytes:
    """All that comes until the server hangs up."""
    client.settimeout(LATE)
    said = b""
    with contextlib.suppress(ConnectionError):
        while piece := client.recv(65_536):
            said += piece
    return said


def is_healthy(running: Served) -> bool:
    with connected(running.address) as client:
        client.sendall(HEALTH)
        return answer_of(client)[0] == 200


def test_who_says_nothing_is_hung_up_on(client: socket.socket) -> None:
    assert rest(client) == b""


def test_headers_that_drip_are_cut_off_with_a_reason(client: socket.socket) -> None:
    client.sendall(b"GET /health HTTP/1.1\r\nX-A: ")
    begun = time.monotonic()
    with contextlib.suppress(OSError):
        while time.monotonic() - begun < 2 * HEADER_S:
            client.sendall(b"b")
            time.sleep(0.05)
    said = rest(client)
    assert said.startswith(b"HTTP/1.1 408 ")
    assert b'{"detail":"The request\'s headers did not come within 1 s."}' in said


def test_so_are_those_of_a_later_request(client: socket.socket) -> None:
    client.sendall(HEALTH)
    assert answer_of(client)[0] == 200
    client.sendall(b"GET /hea")
    assert rest(client).startswith(b"HTTP/1.1 408 ")


def test_a_body_that_nobody_wants_does_not_keep_the_connection(client: socket.socket) -> None:
    """Refused by its length, and sent for ever all the same."""
    client.sendall(b"POST /whip HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 99000000\r\n\r\n")
    assert answer_of(client)[0] == 413
    begun = time.monotonic()
    with contextlib.suppress(OSError):
        while time.monotonic() - begun < LATE:
            client.sendall(b"\n" * 1000)
            time.sleep(0.02)
    assert HEADER_S / 2 < time.monotonic() - begun < LATE


def test_the_reason_reaches_a_client_that_sends_all_before_it_reads(client: socket.socket) -> None:
    body = b"x" * 3_000_000
    client.sendall(b"POST /whip HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
    status, said = answer_of(client)
    assert (status, b"64 kB are accepted" in said) == (413, True)
    client.sendall(HEALTH)  # the connection is of use still
    assert answer_of(client)[0] == 200


def test_too_many_headers_are_refused(client: socket.socket) -> None:
    client.sendall(b"GET /health HTTP/1.1\r\n" + b"a:b\r\n" * 3000 + b"\r\n")
    assert rest(client).startswith(b"HTTP/1.1 431 ")


@pytest.mark.parametrize(
    "junk", [b"\x16\x03\x01\x02\x00\x01\x00", b"hello\r\n\r\n", b"GET / HTTP/one\r\n\r\n"]
)
def test_what_is_no_http_is_told_so(client: socket.socket, junk: bytes) -> None:
    client.sendall(junk + b"\r\n\r\n")
    assert rest(client).startswith(b"HTTP/1.1 400 ")


@pytest.mark.parametrize("begin", [b"", b"GET /health HTTP/1.1\r\nX-A: b", HEALTH])
def test_idle_sockets_make_room_for_newcomers(running: Served, begin: bytes) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(3 * MOST_OF_ONE):
            stack.enter_context(connected(running.address)).sendall(begin)
        assert is_healthy(running)
        assert len(running.crowd) <= MOST_OF_ONE + 1


def test_so_do_requests_whose_bodies_never_come(running: Served) -> None:
    begin = b"POST /whip HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 900\r\n\r\nx"
    with contextlib.ExitStack() as stack:
        for _ in range(3 * MOST_OF_ONE):
            stack.enter_context(connected(running.address)).sendall(begin)
        assert is_healthy(running)
        assert len(running.crowd) <= MOST_OF_ONE + 1


def test_who_does_not_read_is_hung_up_on(running: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_connection, "_WRITE_TIMEOUT_S", 0.5)
    with connected(running.address) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.settimeout(5)
        begun = time.monotonic()
        with contextlib.suppress(OSError):
            while time.monotonic() - begun < LATE:
                client.sendall(b"GET /openapi.json HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
                time.sleep(0.01)
        deadline = time.monotonic() + LATE
        while len(running.crowd) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert len(running.crowd) == 0


def test_chunks_of_a_byte_are_refused(client: socket.socket) -> None:
    head = b"POST /whip HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\n"
    with contextlib.suppress(OSError):
        client.sendall(head + b"1\r\nx\r\n" * 40_000)
    said = rest(client)
    assert (said[:13], b"chunks that are too small" in said) == (b"HTTP/1.1 400 ", True)


def test_an_endless_chunked_body_gets_its_reason(client: socket.socket) -> None:
    head = b"POST /whip HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\n"
    with contextlib.suppress(OSError):
        client.sendall(head + (b"3e8\r\n" + b"x" * 1000 + b"\r\n") * 500)
    assert rest(client).startswith(b"HTTP/1.1 413 ")


@given(st.lists(st.integers(1, 5), max_size=20))
def test_connections_take_turns(work: list[int]) -> None:
    """Each piece of work adds the next one; in one turn of the loop one is done, and none is left out."""
    done: list[tuple[int, int]] = []

    async def run() -> list[int]:
        turns, counts = TaskQueue(), list[int]()

        def piece(number: int, left: int) -> None:
            done.append((number, left))
            if left > 1:
                turns.schedule(partial(piece, number, left - 1))

        for number, pieces in enumerate(work):
            turns.schedule(partial(piece, number, pieces))
        while len(done) < sum(work):
            before = len(done)
            await asyncio.sleep(0)
            counts.append(len(done) - before)
        return counts

    assert max(asyncio.run(run()), default=0) <= 1
    assert sorted(done) == sorted(
        (number, left + 1) for number, pieces in enumerate(work) for left in range(pieces)
    )


PIECES = st.lists(st.integers(1, 3000), min_size=1, max_size=40)


@settings(max_examples=20)
@given(PIECES, st.booleans(), st.integers(1, 400))
def test_a_body_is_the_same_however_it_comes(
    running: Served, cuts: list[int], chunked: bool, chunk: int
) -> None:
    """Pieces of any size, at once or by and by; then the next request on the same connection."""
    text = bytes(97 + n % 26 for n in range(min(sum(cuts), 5000 if chunk > 8 else 1000)))
    body = b'{"pipeline_id":"none","load_params":{"text":"' + text + b'"}}'
    head = b"POST /api/v1/pipeline/load HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    if chunked:
        parts = [body[at : at + chunk] for at in range(0, len(body), chunk)]
        coded = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"
        sent = head + b"Transfer-Encoding: chunked\r\n\r\n" + coded
    else:
        sent = head + b"Content-Length: %d\r\n\r\n" % len(body) + body
    with connected(running.address) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for cut in cuts:
            client.sendall(sent[:cut])
            sent = sent[cut:]
        client.sendall(sent + HEALTH)
        status, said = answer_of(client)
        assert status == 404, said  # it was read to its end, and names no pipeline
        while b"healthy" not in said:  # of the next answer any part may have come with the first
            piece = client.recv(65_536)
            assert piece, said
            said += piece
        assert b"HTTP/1.1 200" in said
