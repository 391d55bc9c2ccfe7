"""Errors as the server answers them: `{"detail": …}` with the status that fits, documented as such."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from personalive.errors import (
    AccessDeniedError,
    DiskFullError,
    DownloadError,
    InputError,
    MediaError,
    MediaTooLargeError,
    MissingWeightsError,
    NoFaceError,
    OutputExistsError,
    PersonaLiveError,
    PipelineLostError,
    PipelineUnavailableError,
    SessionClosedError,
    UnknownPipelineError,
    UnsupportedMediaError,
    WeightsError,
)

_log = logging.getLogger(__name__)

_STATUS: Mapping[type[PersonaLiveError], int] = {
    MediaTooLargeError: 413,
    UnsupportedMediaError: 415,
    MediaError: 400,
    NoFaceError: 422,
    UnknownPipelineError: 404,
    OutputExistsError: 409,
    MissingWeightsError: 409,
    WeightsError: 422,
    InputError: 422,
    PipelineUnavailableError: 409,
    SessionClosedError: 409,
    PipelineLostError: 503,
    DiskFullError: 507,
    AccessDeniedError: 502,
    DownloadError: 502,
    PersonaLiveError: 500,
}


class HttpError(PersonaLiveError):
    """What only a server has to refuse. `headers` go with the answer."""

    status = 500

    def __init__(self, message: str, *, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.headers = dict(headers or {})


class BadRequestError(HttpError):
    """The request cannot be understood."""

    status = 400


class NotFoundError(HttpError):
    """Nothing of that name is here."""

    status = 404


class ConflictError(HttpError):
    """Not as things stand now."""

    status = 409


class ServiceUnavailableError(HttpError):
    """Not now; the client may try again after `retry_after` seconds."""

    status = 503

    def __init__(self, message: str, *, retry_after: int) -> None:
        super().__init__(message, headers={"Retry-After": str(retry_after)})


class FieldError(BaseModel):
    """One thing that is wrong in a request."""

    loc: list[str | int] = Field(description="Where: body, query or path, and the field.")
    msg: str
    type: str


class ErrorResponse(BaseModel):
    """Why a request was refused: a sentence, or what is wrong field by field."""

    detail: str | list[FieldError]


def error_responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """A route's `responses=` for these statuses."""
    return {
        status: {"model": ErrorResponse, "description": HTTPStatus(status).phrase}
        for status in sorted(statuses)
    }


COMMON_RESPONSES = error_responses(400, 401, 403, 408, 413, 422)
"""What any route may answer: a body that cannot be used, or came too slowly, no key, or a foreign page."""


def get_status_code(error: PersonaLiveError) -> int:
    """The status that an error is answered with."""
    if isinstance(error, HttpError):
        return error.status
    return next(_STATUS[kind] for kind in type(error).__mro__ if kind in _STATUS)


def make_error_response(
    status: int, detail: str | list[dict[str, object]], headers: Mapping[str, str] | None = None
) -> JSONResponse:
    """An error as a response."""
    return JSONResponse({"detail": _replace_surrogates(detail)}, status, dict(headers or {}))


def install_error_handlers(app: FastAPI, on_error: Callable[[], None] | None = None) -> None:
    """Make `app` answer every error in this form. `on_error` is called when one is our own fault.

    Call it before any middleware is added: those then see the answers too.
    """
    app.add_exception_handler(PersonaLiveError, _handle_personalive_error)
    app.add_exception_handler(RequestValidationError, _handle_validation_error)
    app.add_middleware(ServerErrorMiddleware, on_error=on_error)


class ServerErrorMiddleware:
    """Answers 500 without a word about the cause, which goes into the log."""

    def __init__(self, app: ASGIApp, on_error: Callable[[], None] | None = None) -> None:
        self._app = app
        self._on_error = on_error

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, and answer where it breaks down."""
        begun = False

        async def watched(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await self._app(scope, receive, watched)
        except Exception:
            if scope["type"] != "http":
                raise
            _log.exception("%s %s broke down", scope["method"], scope["path"])
            if self._on_error is not None:
                self._on_error()
            if begun:  # half an answer is out: only cutting the connection says that it is not whole
                raise
            await make_error_response(500, "internal error")(scope, receive, send)


async def _handle_personalive_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, PersonaLiveError)
    status = get_status_code(error)
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR and not isinstance(error, HttpError):
        _log.error("%s %s: %s", request.method, request.url.path, error)
    headers = error.headers if isinstance(error, HttpError) else None
    return make_error_response(status, str(error), headers)


async def _handle_validation_error(request: Request, error: Exception) -> JSONResponse:
    """Without the value that is wrong: it may be secret, huge, or nothing that JSON can carry."""
    del request
    assert isinstance(error, RequestValidationError)
    faults: list[dict[str, object]] = [
        {"loc": list(item["loc"]), "msg": item["msg"], "type": item["type"]} for item in error.errors()
    ]
    return make_error_response(422, faults)


def _replace_surrogates(value: Any) -> Any:
    """Half a surrogate pair, which JSON may carry in, cannot go out as UTF-8."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, list):
        return [_replace_surrogates(item) for item in value]
    if isinstance(value, dict):
        return {key: _replace_surrogates(item) for key, item in value.items()}
    return value
