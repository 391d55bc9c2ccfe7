"""Errors as HTTP answers: `{"detail": …}` with the fitting status, as the API's documentation describes them."""

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
    FaceChoiceError,
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
    """An error that only the server raises. `headers` are sent with the answer."""

    status = 500

    def __init__(self, message: str, *, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.headers = dict(headers or {})


class BadRequestError(HttpError):
    """Raised when the request is malformed."""

    status = 400


class NotFoundError(HttpError):
    """Raised when there is nothing with that name."""

    status = 404


class ConflictError(HttpError):
    """Raised when the server's current state does not allow the request."""

    status = 409


class ServiceUnavailableError(HttpError):
    """Raised when the request cannot be served now; the client may try again after `retry_after` seconds."""

    status = 503

    def __init__(self, message: str, *, retry_after: int) -> None:
        super().__init__(message, headers={"Retry-After": str(retry_after)})


class FieldError(BaseModel):
    """One invalid field of a request."""

    loc: list[str | int] = Field(description="Where: body, query or path, and the field.")
    msg: str
    type: str


class ListedFace(BaseModel):
    """A face to choose by its number. `box` is left, top, right and bottom in pixels of the upright picture."""

    number: int
    box: tuple[float, float, float, float]


class PictureSize(BaseModel):
    """The size of the upright picture, which is the sent one turned clockwise by `rotation` degrees."""

    width: int
    height: int
    rotation: int


class ErrorResponse(BaseModel):
    """The reason why a request was refused: a sentence, or one error for each field."""

    detail: str | list[FieldError]
    faces: list[ListedFace] | None = Field(None, description="Where a face must be chosen: those there are.")
    picture: PictureSize | None = Field(None, description="With `faces`: what their boxes refer to.")


def error_responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return a route's `responses=` for these statuses."""
    return {
        status: {"model": ErrorResponse, "description": HTTPStatus(status).phrase}
        for status in sorted(statuses)
    }


COMMON_RESPONSES = error_responses(400, 401, 403, 408, 413, 422)
"""The error responses of any route: for an unusable or slow body, a missing key, or a foreign page."""


def get_status_code(error: PersonaLiveError) -> int:
    """Return the status with which an error is answered."""
    if isinstance(error, HttpError):
        return error.status
    return next(_STATUS[kind] for kind in type(error).__mro__ if kind in _STATUS)


def make_error_response(
    status: int,
    detail: str | list[dict[str, object]],
    headers: Mapping[str, str] | None = None,
    more: Mapping[str, object] | None = None,
) -> JSONResponse:
    """Return an error as a response, with `more` beside its detail."""
    body = {"detail": _replace_surrogates(detail), **(more or {})}
    return JSONResponse(body, status, dict(headers or {}))


def install_error_handlers(app: FastAPI, on_error: Callable[[], None] | None = None) -> None:
    """Make `app` answer every error in this form. `on_error` is called for internal errors.

    Call it before any middleware is added: those then see the answers too.
    """
    app.add_exception_handler(PersonaLiveError, _handle_personalive_error)
    app.add_exception_handler(RequestValidationError, _handle_validation_error)
    app.add_middleware(ServerErrorMiddleware, on_error=on_error)


class ServerErrorMiddleware:
    """Middleware that answers 500 without naming the cause, which it logs."""

    def __init__(self, app: ASGIApp, on_error: Callable[[], None] | None = None) -> None:
        self._app = app
        self._on_error = on_error

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, and answer 500 if that raises."""
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
            if begun:  # only closing the connection shows that the sent part is incomplete
                raise
            await make_error_response(500, "internal error")(scope, receive, send)


async def _handle_personalive_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, PersonaLiveError)
    status = get_status_code(error)
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR and not isinstance(error, HttpError):
        _log.error("%s %s: %s", request.method, request.url.path, error)
    headers = error.headers if isinstance(error, HttpError) else None
    faces = _list_faces(error) if isinstance(error, FaceChoiceError) else None
    return make_error_response(status, str(error), headers, faces)


def _list_faces(error: FaceChoiceError) -> dict[str, object]:
    """Return what a client needs to let a person choose a face."""
    faces = [ListedFace(number=number, box=box) for number, box in enumerate(error.boxes, 1)]
    width, height = error.size
    picture = PictureSize(width=width, height=height, rotation=error.rotation)
    return {"faces": [face.model_dump() for face in faces], "picture": picture.model_dump()}


async def _handle_validation_error(request: Request, error: Exception) -> JSONResponse:
    """Answer without the invalid value, which may be secret, huge, or not representable in JSON."""
    del request
    assert isinstance(error, RequestValidationError)
    faults: list[dict[str, object]] = [
        {"loc": list(item["loc"]), "msg": item["msg"], "type": item["type"]} for item in error.errors()
    ]
    return make_error_response(422, faults)


def _replace_surrogates(value: Any) -> Any:
    """Replace lone surrogates, which JSON input may contain but UTF-8 cannot encode."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, list):
        return [_replace_surrogates(item) for item in value]
    if isinstance(value, dict):
        return {key: _replace_surrogates(item) for key, item in value.items()}
    return value
