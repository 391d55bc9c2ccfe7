"""The one pipeline that is loaded: loading it in the background, replacing it, and saying how far that is."""

from __future__ import annotations

import asyncio
import logging
import traceback
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import BaseModel, Field

from personalive.errors import InputError, PersonaLiveError, PipelineUnavailableError, UnknownPipelineError
from personalive.pipelines import registry
from personalive.pipelines.interface import Availability, LoadParameters, Pipeline
from personalive.pipelines.parameters import build
from personalive.pipelines.registry import AnyPipeline
from personalive.serving.answers import ConflictError
from personalive.serving.live.memory import give_back_memory, is_out_of_memory, settle
from personalive.serving.live.streams import Streams
from personalive.serving.live.worker import Worker
from personalive.serving.observing import logs

_log = logging.getLogger(__name__)

_LOOK_AGAIN_S = 0.05


class PipelineStatus(BaseModel):
    """What is loaded, or on its way. An error stays until the next load."""

    status: Literal["not_loaded", "loading", "loaded", "error"]
    pipeline_id: str | None = Field(None, description="What is loaded, is being loaded, or failed to.")
    load_params: dict[str, Any] | None = Field(
        None, description="All of its load parameters, defaults included."
    )
    stage: str | None = Field(None, description="What the loading is at.")
    progress: float | None = Field(None, ge=0, le=1, description="How much of the loading is done.")
    error: str | None = Field(None, description="Why the last load failed.")
    warnings: list[str] = Field(
        default_factory=list, description="What may be wrong with the results as it was loaded."
    )


@dataclass(frozen=True, slots=True)
class _Asked:
    """A pipeline and its checked parameters."""

    id: str
    pipeline: AnyPipeline
    parameters: LoadParameters
    availability: Availability


class _AbandonedError(Exception):
    """Ends a load that nobody waits for any more."""


class _Loading:
    """A load on its way. The worker's thread writes, the event loop reads."""

    def __init__(self) -> None:
        self.stage, self.progress = "waiting for the worker", 0.0
        self.abandoned = False

    def report(self, stage: str, progress: float) -> None:
        """What the pipeline calls. Raises to end a load that was given up."""
        if self.abandoned:
            raise _AbandonedError
        self.stage, self.progress = stage, min(max(float(progress), 0.0), 1.0)


class PipelineHost:
    """Loads, replaces and unloads the pipeline on the worker's thread. Use it on the event loop only."""

    def __init__(self, worker: Worker, streams: Streams, paths: Mapping[str, object] | None = None) -> None:
        """`paths` are load parameters that name places on this machine: no client may choose those."""
        self._paths = dict(paths or {})
        self.on_loaded: list[Callable[[], Awaitable[None]]] = []
        """Called after each load that went well."""
        self.on_unloading: list[Callable[[], None]] = []
        """Called before a pipeline is closed: let go of whatever it made."""
        self._worker = worker
        self._streams = streams
        self._pipeline: Pipeline[Any, Any] | None = None
        self._asked: _Asked | None = None
        self._error: str | None = None
        self._loading: _Loading | None = None
        self._unloading = False
        self._task: asyncio.Task[None] | None = None

    @property
    def pipeline(self) -> Pipeline[Any, Any] | None:
        """The pipeline that is loaded and ready, or None."""
        return self._pipeline

    def status(self) -> PipelineStatus:
        """What is loaded, or how far the loading is. Changes nothing."""
        asked, loading = self._asked, self._loading
        if asked is None:
            return PipelineStatus(status="not_loaded")
        told = PipelineStatus(
            status="loaded",
            pipeline_id=asked.id,
            load_params=asked.parameters.model_dump(mode="json"),
        )
        if loading is not None:
            return told.model_copy(
                update={"status": "loading", "stage": loading.stage, "progress": loading.progress}
            )
        if self._error is not None:
            return told.model_copy(update={"status": "error", "error": self._error})
        if self._pipeline is None:
            return PipelineStatus(status="not_loaded")
        return told.model_copy(update={"progress": 1.0, "warnings": list(self._pipeline.warnings)})

    async def load(
        self, pipeline_id: str, load_params: Mapping[str, object] | None, *, force: bool = False
    ) -> str:
        """Begin to load a pipeline in place of the one that is loaded; returns what to tell the user.

        The same with the same parameters is left alone, sessions and all. `force` ends sessions that stream.

        Raises `UnknownPipelineError`, `InputError` for parameters that cannot be, `PipelineUnavailableError` where
        something is missing, `ConflictError` while another load runs or, without `force`, sessions stream.
        """
        asked = await asyncio.to_thread(_check, pipeline_id, load_params or {}, self._paths)
        # No await from here on: two loads cannot both find the way free.
        self._require_idle()
        if self._pipeline is not None and self._is_loaded(asked):
            return f"The {asked.id} pipeline is loaded already, with these parameters."
        if not asked.availability.ready:
            raise PipelineUnavailableError(
                f"The {asked.id} pipeline cannot be loaded: {asked.availability.sentence}"
            )
        if not force:
            self._require_no_sessions("loading another pipeline")
        self._pipeline, self._asked, self._error = None, asked, None
        self._loading = _Loading()
        self._task = asyncio.create_task(self._load(asked, self._loading), name="load-pipeline")
        return f"Loading the {asked.id} pipeline: GET /api/v1/pipeline/status says how far it is."

    async def unload(self, *, force: bool = True) -> str:
        """Close the pipeline, or give up its loading, and give its memory back; returns what to tell the user.

        Raises `ConflictError` when not forced to and sessions stream or a load runs.
        """
        if not force:
            self._require_idle()
            self._require_no_sessions("unloading")
        there = self._pipeline is not None or self._loading is not None
        message = "The pipeline is unloaded." if there else "No pipeline was loaded."
        if self._loading is not None and self._task is not None:
            self._loading.abandoned = True
            await asyncio.wait([self._task])
        if self._pipeline is None or self._unloading:
            return message
        self._pipeline, self._unloading = None, True
        try:
            await self._end_sessions("The pipeline was unloaded.", "unloaded")
            await self._worker.call(self._close)
        finally:
            self._unloading = False
        logs.event("pipeline_unloaded", pipeline=None if self._asked is None else self._asked.id)
        return message

    def _is_loaded(self, asked: _Asked) -> bool:
        now = self._asked
        return now is not None and now.id == asked.id and now.parameters == asked.parameters

    def _require_idle(self) -> None:
        if self._unloading:
            raise ConflictError("The pipeline is being unloaded: try again in a moment.")
        if self._loading is not None and self._asked is not None:
            raise ConflictError(f"The {self._asked.id} pipeline is being loaded: wait until that has ended.")

    def _require_no_sessions(self, what: str) -> None:
        count = len(self._streams)
        if count:
            many = "1 session streams" if count == 1 else f"{count} sessions stream"
            raise ConflictError(f'{many}: close them before {what}, or send "force": true to end them.')

    async def _load(self, asked: _Asked, loading: _Loading) -> None:
        logs.event("pipeline_loading", pipeline=asked.id)
        try:
            await self._end_sessions("Another pipeline is being loaded.", "pipeline_replaced")
            made = await self._worker.call(self._replace, asked, loading)
        except Exception as error:
            made = _in_words(asked, error)
            if not isinstance(error, PersonaLiveError):
                _log.exception("loading the %s pipeline failed", asked.id)
        self._loading = None
        if isinstance(made, str):
            self._error = None if loading.abandoned else made
            logs.event("pipeline_failed", level=logging.ERROR, pipeline=asked.id, error=made)
            return
        self._pipeline = made
        logs.event("pipeline_loaded", pipeline=asked.id)
        if loading.abandoned:
            return
        for tell in list(self.on_loaded):
            try:
                await tell()
            except Exception:
                _log.exception("what follows a load failed")

    async def _end_sessions(self, message: str, reason: str) -> None:
        while len(self._streams):
            # One that was being opened meanwhile appears a little later.
            await self._streams.end_all(message, reason)
            if len(self._streams):
                await asyncio.sleep(_LOOK_AGAIN_S)
        for let_go in self.on_unloading:
            let_go()

    def _replace(self, asked: _Asked, loading: _Loading) -> Pipeline[Any, Any] | str:
        """The new pipeline, or why there is none. On the worker's thread."""
        self._close()
        try:
            loading.report("loading", 0.0)
            pipeline = asked.pipeline.load(asked.parameters, loading.report)
        except Exception as error:
            # As text, and not passed on: its traceback keeps alive whatever had been loaded.
            failure = _in_words(asked, error)
            if not isinstance(error, PersonaLiveError | _AbandonedError):
                _log.error("loading the %s pipeline failed\n%s", asked.id, traceback.format_exc())
        else:
            self._worker.pipeline = pipeline
            settle()
            return pipeline
        give_back_memory()
        return failure

    def _close(self) -> None:
        pipeline, self._worker.pipeline = self._worker.pipeline, None
        if pipeline is None:
            return
        try:
            pipeline.close()
        except Exception:
            _log.exception("closing the pipeline failed")
        del pipeline
        settle()
        give_back_memory()


def _check(pipeline_id: str, load_params: Mapping[str, object], paths: Mapping[str, object]) -> _Asked:
    """Imports the pipeline, which may take seconds."""
    if pipeline_id not in registry.names():
        known = ", ".join(registry.names())
        raise UnknownPipelineError(f"There is no pipeline {pipeline_id!r}. Known: {known}.")
    pipeline = registry.get(pipeline_id)
    own = _path_fields(pipeline)
    for name in own & set(load_params):
        if load_params[name] != paths.get(name):
            raise InputError(
                f"{name} is a place on the server: it is chosen with personalive serve --set {name}=DIR."
            )
    given = {name: value for name, value in paths.items() if name in own}
    parameters = build(pipeline.load_parameters, {**load_params, **given})
    try:
        availability = pipeline.availability_with(parameters.model_dump())
    except (OSError, RuntimeError, ValueError) as error:
        # A path of nobody's home, or one longer than paths may be.
        raise InputError(f"The {pipeline_id} pipeline cannot be loaded with these: {error}.") from error
    return _Asked(pipeline_id, pipeline, parameters, availability)


def _path_fields(pipeline: AnyPipeline) -> set[str]:
    """The load parameters that name files or folders."""
    fields = pipeline.load_parameters.model_fields
    return {name for name, field in fields.items() if Path in (field.annotation, *get_args(field.annotation))}


def _in_words(asked: _Asked, error: Exception) -> str:
    if isinstance(error, PersonaLiveError):
        return str(error)
    if isinstance(error, _AbandonedError):
        return f"Loading the {asked.id} pipeline was given up."
    if is_out_of_memory(error):
        return (
            f"There is not enough memory for the {asked.id} pipeline: close other programs that use it, or load "
            "with a smaller height and width."
        )
    return f"Loading the {asked.id} pipeline failed: {type(error).__name__}: {error}"
