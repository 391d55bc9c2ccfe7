"""The HTTP side as strangers try it: every operation with generated values, over real sockets."""

from __future__ import annotations

import http.client
import random
import socket
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.server.client import PORTRAIT
from tests.server.running import RunningServer, running

KEY = "a-key-of-the-tests"
SMALL = {"width": 256, "height": 256}
# 503 is an answer like others: all slots are taken. 500 is documented nowhere.
CHECKS = [response_schema_conformance, content_type_conformance, status_code_conformance]
METHODS = {"get", "post", "put", "patch", "delete"}

settings.register_profile(
    "fuzz", settings(deadline=None, max_examples=20, suppress_health_check=list(HealthCheck))
)


@pytest.fixture(scope="module")
def server() -> Iterator[RunningServer]:
    chosen = {"log_level": "warning", "body_timeout_s": 1, "connect_timeout_s": 2}
    # Downloads are among what is tried: they end before the network.
    with running(chosen, environment={"HF_HUB_OFFLINE": "1"}) as one:
        yield one


def prepare(server: RunningServer) -> None:
    """After all that was tried before: a pipeline is loaded, and a reference there."""
    server.load("paced", **SMALL, force=True)
    server.post("/api/v1/personalive/reference", content=PORTRAIT.read_bytes()).raise_for_status()


@pytest.fixture(autouse=True)
def prepared(request: pytest.FixtureRequest) -> None:
    if "server" in request.fixturenames:
        prepare(request.getfixturevalue("server"))


@pytest.fixture(scope="module")
def guarded() -> Iterator[RunningServer]:
    with running({"api_key": KEY, "log_level": "warning"}) as one:
        yield one


@schemathesis.serializer("application/sdp", "application/trickle-ice-sdpfrag")
def plain(context: schemathesis.SerializationContext, value: object) -> bytes:
    del context
    return value if isinstance(value, bytes) else str(value).encode()


@pytest.mark.slow
def test_every_operation_answers_as_documented(server: RunningServer) -> None:
    schema = schemathesis.openapi.from_url(f"{server.url}/openapi.json")
    operations = [found.ok() for found in schema.get_all_operations() if isinstance(found, Ok)]
    assert len(operations) > 20
    wrong: list[str] = []
    for operation in operations:
        prepare(server)
        for mode in schemathesis.GenerationMode:

            @settings(settings.get_profile("fuzz"))
            @given(operation.as_strategy(generation_mode=mode))
            def holds(case: schemathesis.Case[Any]) -> None:
                case.call_and_validate(checks=CHECKS, timeout=20)

            try:
                holds()
            except Unsatisfiable:  # nothing can be wrong with a request of that operation
                assert mode is schemathesis.GenerationMode.NEGATIVE
            except Exception as error:
                wrong.append(f"{operation.label}, {mode.value}:\n{error}")
    assert not wrong, "\n\n".join(wrong)


@settings(settings.get_profile("fuzz"), max_examples=40)
@given(st.data())
def test_pictures_that_are_broken_are_refused(server: RunningServer, data: st.DataObject) -> None:
    picture = bytearray(PORTRAIT.read_bytes())
    for _ in range(data.draw(st.integers(1, 20))):
        picture[data.draw(st.integers(0, len(picture) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(picture)))
    answer = server.post("/api/v1/personalive/reference", content=bytes(picture[:cut]))
    assert answer.status_code in {200, 400, 413, 415, 422}, answer.text
    assert answer.status_code == 200 or isinstance(answer.json()["detail"], str)


@settings(settings.get_profile("fuzz"), max_examples=40)
@given(st.binary(max_size=4096))
def test_what_is_no_picture_is_refused(server: RunningServer, body: bytes) -> None:
    answer = server.post("/api/v1/personalive/reference", content=body)
    assert answer.status_code in {400, 415}, answer.text


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
NAMES = st.sampled_from(["width", "height", "seed", "chunk_frames", "cost", "delay_frames"]) | st.text(
    max_size=8
)


@settings(settings.get_profile("fuzz"), max_examples=60)
@given(st.dictionaries(NAMES, JSON, min_size=1, max_size=4))
def test_load_parameters_are_taken_or_refused(server: RunningServer, wishes: dict[str, object]) -> None:
    answer = server.post("/api/v1/pipeline/load", json={"pipeline_id": "paced", "load_params": wishes})
    assert answer.status_code in {200, 422}, answer.text
    if answer.status_code == 200:
        server.wait_until_loaded()


def test_the_server_is_well_after_all_that(server: RunningServer) -> None:
    server.wait_for_sessions(0)
    held = server.held()
    assert server.get("/health").status_code == 200
    assert held.threads < 60
    assert held.handles < 100


ROUTES_OUTSIDE_THE_SCHEMA = [("GET", "/openapi.json"), ("GET", "/docs/oauth2-redirect")]
PUBLIC = {"/health", "/health/live", "/health/ready"}


def test_every_route_but_the_public_ones_wants_the_key(guarded: RunningServer) -> None:
    keyed = {"Authorization": f"Bearer {KEY}"}
    document = guarded.get("/openapi.json", headers=keyed).json()
    found = [
        (method.upper(), path.replace("{", "").replace("}", ""))
        for path, operations in document["paths"].items()
        for method in operations
        if method in METHODS
    ]
    assert len(found) > 20
    with httpx.Client(base_url=guarded.url, timeout=20) as http_:
        for method, path in [*found, *ROUTES_OUTSIDE_THE_SCHEMA]:
            if path in PUBLIC:
                assert http_.request(method, path).status_code != 401
                continue
            for headers in ({}, {"Authorization": "Bearer another"}, {"Authorization": f"Basic {KEY}"}):
                refused = http_.request(method, path, headers=headers)
                assert refused.status_code == 401, (method, path, headers)
                assert refused.headers["WWW-Authenticate"] == "Bearer"
            assert http_.request(method, path, headers=keyed).status_code != 401, (method, path)


UP = ["..", "%2e%2e", "%2E%2E", ".%2e", "..%2f..", "%2e%2e%2f%2e%2e", "..%5c..", "%252e%252e"]
OUTSIDE = [
    *(f"/{up}/{up}/{up}/etc/passwd" for up in UP),
    *(f"/assets/{up}/{up}/settings.py" for up in UP),
    *(f"/api/v1/recordings/{up}%2f{up}%2fetc%2fpasswd" for up in UP),
    *(f"/api/v1/personalive/reference/{up}%2fetc%2fpasswd/thumbnail" for up in UP),
    "//etc/passwd",
    "/assets//etc/passwd",
    "/assets///etc/passwd",
    "/assets/%2fetc%2fpasswd",
    "/assets/js/../../settings.py",
    "/assets/index.html%00.js",
    "/assets/",
    "/etc/passwd",
    "/file:///etc/passwd",
]


@pytest.mark.parametrize("path", OUTSIDE)
def test_no_path_leads_outside(server: RunningServer, path: str) -> None:
    """Sent as it is: HTTP clients tidy such paths up."""
    host, _, port = server.url.removeprefix("http://").partition(":")
    line = http.client.HTTPConnection(host, int(port), timeout=10)
    line.putrequest("GET", path, skip_host=False)
    line.endheaders()
    answer = line.getresponse()
    body = answer.read()
    line.close()
    assert answer.status == 404, body
    assert b"root:" not in body
    assert b"import" not in body


def raw(server: RunningServer, data: bytes) -> socket.socket:
    host, _, port = server.url.removeprefix("http://").partition(":")
    line = socket.create_connection((host, int(port)), timeout=10)
    line.sendall(data)
    return line


def test_a_body_that_drips_is_cut_off(server: RunningServer) -> None:
    head = b"POST /api/v1/personalive/reference HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 100000\r\n\r\n"
    with raw(server, head) as line:
        begun = time.monotonic()
        line.settimeout(0.2)
        answer = b""
        while not answer and time.monotonic() < begun + 5:
            line.sendall(b"x")
            try:
                answer = line.recv(4096)
            except TimeoutError:
                continue
        assert answer.startswith(b"HTTP/1.1 408")


@pytest.mark.slow
@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_that_never_ends_is_cut_off(server: RunningServer, chunked: bool) -> None:
    kind = b"Transfer-Encoding: chunked" if chunked else b"Content-Length: 3000000000"
    head = b"POST /api/v1/pipeline/load HTTP/1.1\r\nHost: 127.0.0.1\r\n" + kind + b"\r\n\r\n"
    block = random.Random(1).randbytes(65_536)
    piece = b"10000\r\n" + block + b"\r\n" if chunked else block
    before = server.held().rss
    sent, answer = 0, b""
    with raw(server, head) as line:
        try:
            while sent < 64_000_000:
                line.sendall(piece)
                sent += len(block)
        except (ConnectionError, TimeoutError):
            pass
        line.settimeout(2)
        try:
            answer = line.recv(4096)
        except (ConnectionError, TimeoutError):
            answer = b""
    # Either it got the answer in time, or the connection was cut under its hands.
    assert answer.startswith(b"HTTP/1.1 413") or sent < 64_000_000
    assert server.held().rss < before + 50_000_000
