from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from fastapi import FastAPI, Request
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from personalive.media import MAX_IMAGE_BYTES
from personalive.server import errors, middleware
from personalive.server.middleware import MAX_BODY_BYTES, PUBLIC_PATHS, REFERENCE_PATH
from personalive.server.settings import Settings
from tests.server.asgi import Answered, ask, pieces

KEY = "the-key-of-this-server"
SECURE = Settings(api_key=SecretStr(KEY), body_timeout_s=0.3)
OPEN = Settings(body_timeout_s=0.3)
PATIENT = Settings(body_timeout_s=60)


def application(settings: Settings = OPEN) -> FastAPI:
    app = FastAPI(redirect_slashes=False)

    @app.api_route("/{path:path}", methods=["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
    async def anything(path: str, request: Request) -> dict[str, Any]:
        if path == "breaks":
            raise RuntimeError("it breaks")
        return {"path": path, "bytes": len(await request.body())}

    errors.install_error_handlers(app)
    middleware.install_middleware(app, settings)
    return app


def call(
    method: str,
    path: str,
    headers: dict[str, str] | None = None,
    body: Callable[[], AsyncIterator[bytes]] | None = None,
    settings: Settings = OPEN,
    **options: Any,
) -> Answered:
    async def run() -> Answered:
        app = application(settings)
        return await ask(app, method, path, headers, None if body is None else body(), **options)

    return asyncio.run(run())


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


# -- the key


@pytest.mark.parametrize("method", ["GET", "POST", "PATCH", "DELETE", "OPTIONS"])
@pytest.mark.parametrize(
    "path",
    [
        "/metrics",
        "/openapi.json",
        "/api/v1/sessions",
        "/whip",
        "//health",
        "/health/",
        "/healthy",
        "/Health",
    ],
)
def test_without_the_key_nothing_is_let_through(method: str, path: str) -> None:
    answered = call(method, path, settings=SECURE)
    assert answered.status == 401
    assert answered.headers["www-authenticate"] == "Bearer"
    assert "Authorization: Bearer KEY" in answered.detail


@pytest.mark.parametrize(
    "headers",
    [
        {},
        bearer(KEY[:-1]),
        bearer(KEY + "x"),
        bearer(KEY.upper()),
        bearer(""),
        {"Authorization": KEY},
        {"Authorization": f"Basic {KEY}"},
        {"Authorization": "Bearer"},
        {"X-Api-Key": KEY},
    ],
)
def test_another_key_is_no_key(headers: dict[str, str]) -> None:
    assert call("GET", "/metrics", headers, settings=SECURE).status == 401


@pytest.mark.parametrize("headers", [bearer(KEY), {"authorization": f"bearer  {KEY} "}])
def test_the_key_opens(headers: dict[str, str]) -> None:
    assert call("POST", "/api/v1/sessions", headers, settings=SECURE).status == 200


def test_a_key_in_the_query_is_no_key() -> None:
    assert call("GET", "/metrics", settings=SECURE, query=f"api_key={KEY}").status == 401


@pytest.mark.parametrize("path", sorted(PUBLIC_PATHS | {"/assets/page.css"}))
def test_public_routes_are_for_reading_only(path: str) -> None:
    assert call("GET", path, settings=SECURE).status == 200
    assert call("HEAD", path, settings=SECURE).status == 200
    assert call("POST", path, settings=SECURE).status == 401


@given(st.binary().filter(lambda given: given.strip(b" \t") != KEY.encode()))
def test_no_other_bytes_open(given: bytes) -> None:
    scope = {
        "type": "http",
        "method": "GET",
        "path": "/metrics",
        "headers": [(b"authorization", b"Bearer " + given)],
    }
    guard = middleware.ApiKeyMiddleware(application(), KEY)
    assert not guard._is_authorized(scope)


def test_refused_before_the_body_is_read() -> None:
    answered = call("POST", "/whip", {}, lambda: pieces([b"x"] * 9), settings=SECURE)
    assert (answered.status, answered.taken) == (401, 0)


# -- web pages of others


@pytest.mark.parametrize(
    "headers",
    [
        {"host": "evil.example:8000"},
        {"host": ""},
        {"host": "127.0.0.1.evil.example"},
        {"host": "[::1"},
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"origin": "http://127.0.0.1:9999"},
        {"host": "evil.example", "origin": "http://evil.example"},
    ],
)
def test_pages_of_others_cannot_use_a_server_without_a_key(headers: dict[str, str]) -> None:
    assert call("POST", "/api/v1/pipeline/load", headers).status == 403


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"host": "localhost:8000"},
        {"host": "LOCALHOST"},
        {"host": "app.localhost:8000"},
        {"host": "[::1]:8000"},
        {"host": "192.168.1.5:8000"},
        {"origin": "http://127.0.0.1:8000"},
        {"host": "localhost:8000", "origin": "http://localhost:8000"},
    ],
)
def test_its_own_page_and_programs_can(headers: dict[str, str]) -> None:
    assert call("POST", "/api/v1/pipeline/load", headers).status == 200


def test_with_a_key_or_by_wish_other_names_will_do() -> None:
    other = {"host": "live.example.com", "origin": "https://live.example.com"}
    assert call("GET", "/metrics", other | bearer(KEY), settings=SECURE).status == 200
    assert call("GET", "/metrics", other, settings=Settings(insecure=True)).status == 200


# -- CORS


def test_origins_that_are_listed_may_call_and_ask_without_the_key() -> None:
    settings = Settings(api_key=SecretStr(KEY), cors_origins=("https://app.example",))
    headers = {"origin": "https://app.example", "access-control-request-method": "POST"}
    asked = call(
        "OPTIONS", "/whip", headers | {"access-control-request-headers": "authorization"}, settings=settings
    )
    assert asked.status == 200
    assert asked.headers["access-control-allow-origin"] == "https://app.example"
    called = call("POST", "/whip", {"origin": "https://app.example"} | bearer(KEY), settings=settings)
    assert called.headers["access-control-allow-origin"] == "https://app.example"
    refused = call("POST", "/whip", {"origin": "https://app.example"}, settings=settings)
    assert (refused.status, refused.headers["access-control-allow-origin"]) == (401, "https://app.example")


def test_others_may_not() -> None:
    settings = Settings(cors_origins=("https://app.example",))
    assert call("GET", "/metrics", {"origin": "https://evil.example"}, settings=settings).status == 403
    assert call("GET", "/metrics", {"origin": "https://app.example"}, settings=settings).status == 200
    assert "access-control-allow-origin" not in call("GET", "/metrics").headers


# -- bodies


@pytest.mark.parametrize(("path", "most"), [("/whip", MAX_BODY_BYTES), (REFERENCE_PATH, MAX_IMAGE_BYTES)])
def test_a_body_may_be_as_large_as_its_limit(path: str, most: int) -> None:
    part = b"x" * (most // 10)
    answered = call("POST", path, None, lambda: pieces([part] * 10), PATIENT)
    assert answered.status == 200
    assert f'"bytes":{most}' in answered.body.decode()


@pytest.mark.parametrize(("path", "most"), [("/whip", MAX_BODY_BYTES), (REFERENCE_PATH, MAX_IMAGE_BYTES)])
def test_larger_is_cut_off_while_it_comes(path: str, most: int) -> None:
    part = b"x" * (most // 10)
    answered = call("POST", path, None, lambda: pieces([part] * 100), PATIENT)
    assert (answered.status, answered.taken) == (413, 11)
    assert ("100 MB" if path == REFERENCE_PATH else "64 kB") in answered.detail
    assert "connection" not in answered.headers  # closed while more is coming, it would take the answer along


def test_a_length_that_says_so_is_refused_unread() -> None:
    answered = call("POST", "/whip", {"content-length": "1000001"}, lambda: pieces([b"x"]))
    assert (answered.status, answered.taken) == (413, 0)


def test_a_length_that_lies_helps_nobody() -> None:
    answered = call("POST", "/whip", {"content-length": "10"}, lambda: pieces([b"x" * 600_000] * 9))
    assert answered.status == 413


@pytest.mark.parametrize("length", ["-1", "ten", "00", "1e3", "+5"])
def test_a_length_that_is_no_number_is_no_way_around(length: str) -> None:
    guard = middleware.BodyLimitMiddleware(application(), 1.0)
    answered = asyncio.run(
        ask(guard, "POST", "/whip", {"content-length": length}, pieces([b"x" * 600_000] * 9))
    )
    assert answered.status == 413


def test_a_body_that_drips_is_cut_off() -> None:
    answered = call("POST", "/whip", None, lambda: pieces([b"x"] * 1000, pause=0.02))
    assert answered.status == 408
    assert answered.taken < 30
    assert answered.headers["connection"] == "close"


def test_a_large_body_has_as_long_as_a_slow_line_needs() -> None:
    answered = call("POST", REFERENCE_PATH, None, lambda: pieces([b"x" * 10_000] * 20, pause=0.04))
    assert answered.status == 200  # in 0.8 s, where 0.3 s are enough for a small one


def test_no_pause_is_bought_by_haste() -> None:
    async def stopping() -> AsyncIterator[bytes]:
        yield b"x" * 1_000_000
        await asyncio.sleep(9)
        yield b"x"

    assert call("POST", REFERENCE_PATH, None, stopping).status == 408


def test_a_body_that_never_comes_is_cut_off() -> None:
    assert call("POST", "/whip", {"content-length": "5"}, lambda: pieces([b""], pause=9)).status == 408


def test_a_client_that_leaves_gets_nothing() -> None:
    answered = call("POST", "/whip", None, lambda: pieces([b"x"]), leave=True)
    assert answered.status == 0


def test_without_a_body_nothing_is_waited_for() -> None:
    assert call("GET", "/metrics", {"content-length": "0"}).status == 200


# -- headers and the log


@pytest.mark.parametrize("path", ["/", "/metrics", "/docs", "/breaks", "/assets/page.css"])
def test_every_answer_has_the_headers(path: str) -> None:
    headers = call("GET", path).headers
    assert headers["x-content-type-options"] == "nosniff"
    policy = headers["content-security-policy"]
    assert "frame-ancestors 'none'" in policy
    assert "http" not in policy
    assert "unsafe" not in policy.replace("style-src 'self' 'unsafe-inline'" if path == "/docs" else "", "")


def test_refusals_have_them_too() -> None:
    assert call("GET", "/metrics", settings=SECURE).headers["x-content-type-options"] == "nosniff"


def test_a_request_is_one_line_without_query_or_key(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="personalive"):
        call("GET", "/metrics", bearer(KEY), settings=SECURE, query="token=hush")
        call("GET", "/breaks")
        call("POST", "/whip", None, lambda: pieces([b"x"]), leave=True)
    lines = [
        record.__dict__["personalive_fields"] for record in caplog.records if record.getMessage() == "request"
    ]
    assert [(line["method"], line["path"], line["status"]) for line in lines] == [
        ("GET", "/metrics", 200),
        ("GET", "/breaks", 500),
        ("POST", "/whip", 499),
    ]
    assert all(line["ms"] >= 0 for line in lines)
    assert not any(word in str(lines) for word in (KEY, "hush"))


# -- what a page of others shows


@pytest.mark.parametrize(
    "path", ["/api/v1/personalive/reference/0123/thumbnail", "/api/v1/recordings/x", "/"]
)
@pytest.mark.parametrize("site", ["cross-site", "same-site"])
@pytest.mark.parametrize("kind", ["image", "video", "script", "iframe", "empty", "embed"])
def test_a_picture_on_another_page_is_refused(path: str, site: str, kind: str) -> None:
    mode = "navigate" if kind in {"iframe", "embed"} else "no-cors"
    headers = {"Sec-Fetch-Site": site, "Sec-Fetch-Mode": mode, "Sec-Fetch-Dest": kind}
    assert call("GET", path, headers).status == 403
    assert call("GET", path, headers | {"Sec-Fetch-Site": "same-origin"}).status == 200


def test_a_link_on_another_page_may_be_followed() -> None:
    headers = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
    assert call("GET", "/", headers).status == 200
    assert call("GET", "/", {"Sec-Fetch-Site": "none"}).status == 200
    # A form of theirs carries their origin.
    assert call("POST", "/whip", headers | {"Origin": "https://evil.example.com"}).status == 403


def test_a_page_that_may_call_the_server_still_may() -> None:
    settings = Settings(cors_origins=("https://app.example.com",))
    headers = {"Origin": "https://app.example.com", "Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "cors"}
    assert call("GET", "/api/v1/sessions", headers, settings=settings).status == 200


@pytest.mark.parametrize("settings", [OPEN, SECURE, Settings(insecure=True)])
def test_browsers_are_told_to_show_nothing_on_other_pages(settings: Settings) -> None:
    answered = call("GET", "/api/v1/x", bearer(KEY), settings=settings)
    assert answered.headers["cross-origin-resource-policy"] == "same-origin"


@pytest.mark.parametrize("method", ["POST", "PATCH", "DELETE"])
@pytest.mark.parametrize("settings", [Settings(cors_origins=("https://app.example.com",))])
def test_broadcasters_in_browsers_may_ask_first(method: str, settings: Settings) -> None:
    keyed = settings.model_copy(update={"api_key": SecretStr(KEY)})
    headers = {
        "Origin": "https://app.example.com",
        "Access-Control-Request-Method": method,
        "Access-Control-Request-Headers": "authorization, content-type, if-match",
    }
    answered = call("OPTIONS", "/whip/any", headers, settings=keyed)
    assert answered.status == 200
    assert "If-Match" in answered.headers["access-control-allow-headers"]
    assert method in answered.headers["access-control-allow-methods"]
    given = call("POST", "/whip", bearer(KEY) | {"Origin": "https://app.example.com"}, settings=keyed)
    exposed = set(given.headers["access-control-expose-headers"].split(", "))
    assert {"ETag", "Link", "Location", "Retry-After"} <= exposed
