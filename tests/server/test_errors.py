from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict, Field

from personalive import errors as user_errors
from personalive.errors import PersonaLiveError
from personalive.server import errors
from personalive.server.errors import (
    BadRequestError,
    ConflictError,
    NotFoundError,
    ServiceUnavailableError,
    get_status_code,
)
from tests.server.asgi import Answered, ask, pieces


class Wanted(BaseModel):
    model_config = ConfigDict(extra="forbid")

    size: int = Field(ge=1)


def application(error: Exception | None = None, defects: list[int] | None = None) -> FastAPI:
    app = FastAPI(responses=errors.COMMON_RESPONSES)

    @app.get("/fails")
    async def fails() -> None:
        if error is not None:
            raise error

    @app.post("/takes")
    async def takes(wanted: Wanted) -> Wanted:
        return wanted

    @app.get("/half")
    async def half() -> StreamingResponse:
        async def content() -> Any:
            yield b"begun"
            raise RuntimeError("secret cause")

        return StreamingResponse(content())

    errors.install_error_handlers(app, None if defects is None else lambda: defects.append(1))
    return app


def get(error: Exception) -> Answered:
    return asyncio.run(ask(application(error), "GET", "/fails"))


def post(body: bytes, kind: str = "application/json") -> Answered:
    headers = {"content-type": kind, "content-length": str(len(body))}
    return asyncio.run(ask(application(), "POST", "/takes", headers, pieces([body])))


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (user_errors.InputError("no"), 422),
        (user_errors.NoFaceError("no"), 422),
        (user_errors.MediaError("no"), 400),
        (user_errors.MediaTooLargeError("no"), 413),
        (user_errors.UnsupportedMediaError("no"), 415),
        (user_errors.UnknownPipelineError("no"), 404),
        (user_errors.PipelineUnavailableError("no"), 409),
        (user_errors.MissingWeightsError("no"), 409),
        (user_errors.OfflineError("no"), 502),
        (user_errors.DiskFullError("no"), 507),
        (BadRequestError("no"), 400),
        (NotFoundError("no"), 404),
        (ConflictError("no"), 409),
        (ServiceUnavailableError("no", retry_after=7), 503),
    ],
)
def test_every_class_has_its_status_and_the_sentence_is_told(error: PersonaLiveError, status: int) -> None:
    answered = get(error)
    assert (answered.status, answered.detail) == (status, "no")
    assert get_status_code(error) == status


def test_every_error_of_the_house_has_a_status() -> None:
    kinds = [kind for kind in vars(user_errors).values() if isinstance(kind, type)]
    assert all(
        400 <= get_status_code(kind("no")) <= 507 for kind in kinds if issubclass(kind, PersonaLiveError)
    )


def test_busy_says_when_to_try_again() -> None:
    assert get(ServiceUnavailableError("All slots are taken.", retry_after=7)).headers["retry-after"] == "7"


def test_a_defect_says_nothing_and_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    defects: list[int] = []
    with caplog.at_level(logging.ERROR):
        answered = asyncio.run(ask(application(RuntimeError("secret cause"), defects), "GET", "/fails"))
    assert (answered.status, answered.detail) == (500, "internal error")
    assert "secret cause" in caplog.text
    assert defects == [1]


def test_half_an_answer_is_cut_off() -> None:
    with pytest.raises(Exception, match="secret cause"):
        asyncio.run(ask(application(), "GET", "/half"))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"{}",
        b'{"size": 0}',
        b'{"size": NaN}',
        b'{"size": 1, "more": 2}',
        b'{"size": "\\ud800"}',
        b'{"size": 1, "\\ud800": 2}',
        b'{"size": ' + b"9" * 5000 + b"}",
        b'{"size": ' + b"[" * 5000 + b"]" * 5000 + b"}",
    ],
)
def test_bodies_that_cannot_be_used_are_told_field_by_field(body: bytes) -> None:
    answered = post(body)
    assert answered.status in {400, 422}
    problem = errors.ErrorResponse.model_validate_json(answered.body)
    if isinstance(problem.detail, list):
        assert problem.detail[0].loc[0] == "body"
    assert len(answered.body) < 1000


def test_what_was_sent_is_not_repeated() -> None:
    assert b"hush" not in post(b'{"size": "hush"}').body


def test_bytes_that_are_no_text_are_refused() -> None:
    assert post(b"\xff\xfe{}").status in {400, 422}


def test_a_sentence_with_half_a_letter_is_told_all_the_same() -> None:
    assert get(NotFoundError("There is no '\ud800'.")).detail == "There is no '?'."


def test_unknown_paths_and_methods_answer_alike() -> None:
    app = application()
    assert asyncio.run(ask(app, "GET", "/nonesuch")).detail == "Not Found"
    assert asyncio.run(ask(app, "PUT", "/takes")).status == 405


def test_the_documented_schema_is_what_is_answered() -> None:
    told = application().openapi()["paths"]["/takes"]["post"]["responses"]
    assert {"200", "400", "401", "403", "408", "413", "422"} == set(told)
    reference = told["422"]["content"]["application/json"]["schema"]["$ref"]
    assert reference.endswith("/ErrorResponse")
