"""Fetching a pipeline's weights in the background: one download at a time, which the page can watch."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING

from pydantic import BaseModel, Field

from personalive.errors import PersonaLiveError, PipelineUnavailableError, UnknownPipelineError
from personalive.pipelines import registry
from personalive.server.errors import ConflictError
from personalive.server.telemetry import logs

if TYPE_CHECKING:
    from personalive.pipelines.diffusion.checkpoints.download.progress import Step

_log = logging.getLogger(__name__)


class DownloadProgress(BaseModel):
    """How far a download is. Bytes that were there before it began count as done."""

    percentage: float = Field(ge=0, le=100)
    current_file: str
    bytes_done: int
    bytes_total: int


class ModelsStatus(BaseModel):
    """Whether a pipeline's weights are there."""

    pipeline_id: str
    downloaded: bool = Field(description="Whether nothing is missing. True for a pipeline without weights.")
    missing: list[str] = Field(description="Files that are missing, relative to the folder of the weights.")
    progress: DownloadProgress | None = Field(None, description="Null while nothing is downloaded.")
    error: str | None = Field(None, description="Why the last download failed, or the pipeline cannot run.")


class _StoppedError(Exception):
    """Ends a download because the server stops."""


class _Watch:
    """What a download tells on the way. Its thread writes, others read."""

    def __init__(self) -> None:
        self.now = DownloadProgress(percentage=0, current_file="", bytes_done=0, bytes_total=0)
        self.stopped = False

    def note(self, text: str) -> None:
        """A sentence on what comes next."""
        logs.event("download_note", text=text)
        self._check()

    def step(self, step: Step) -> None:
        """Some bytes more."""
        self._check()
        done, size = (step.all_done, step.all_size) if step.all_size else (step.done, step.size)
        percentage = min(100 * done / size, 100.0) if size else 0.0
        self.now = DownloadProgress(
            percentage=round(max(percentage, 0.0), 2),
            current_file=step.name,
            bytes_done=done,
            bytes_total=size,
        )

    def _check(self) -> None:
        if self.stopped:
            raise _StoppedError


class Downloads:
    """May be used from any thread; all of it reads the disk, so not on the event loop, but for `stop`."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._watch: _Watch | None = None
        self._error: str | None = None

    def status(self, pipeline_id: str, *, tiny: bool = False) -> ModelsStatus:
        """Whether a pipeline's weights are there. `tiny`: those of the tiny autoencoder too.

        Raises `UnknownPipelineError`; `PipelineUnavailableError` for a pipeline that cannot be imported.
        """
        _require_known(pipeline_id)
        if pipeline_id != registry.DIFFUSION:
            state = registry.get(pipeline_id).availability()
            error = None if state.ready else state.sentence
            return ModelsStatus(pipeline_id=pipeline_id, downloaded=state.ready, missing=[], error=error)
        watch, missing = self._watch, _missing(tiny)
        return ModelsStatus(
            pipeline_id=pipeline_id,
            downloaded=not missing,
            missing=missing,
            progress=None if watch is None else watch.now,
            error=self._error,
        )

    def start(self, pipeline_id: str, *, tiny: bool = False) -> str:
        """Begin to fetch what is missing; returns what to tell the user.

        Raises `UnknownPipelineError`, `ConflictError` while a download runs, and `PipelineUnavailableError` where
        the pipeline's weights are its own matter and it is not ready.
        """
        _require_known(pipeline_id)
        if pipeline_id != registry.DIFFUSION:
            state = registry.get(pipeline_id).availability()
            if not state.ready:
                raise PipelineUnavailableError(f"The {pipeline_id} pipeline is not ready: {state.sentence}")
            return f"The {pipeline_id} pipeline is ready: nothing is to be downloaded."
        with self._lock:
            if self._watch is not None:
                raise ConflictError("A download is running: GET /api/v1/models/status says how far it is.")
            self._watch, self._error = _Watch(), None
            # A daemon: a server that stalls must not keep this one from stopping. What was fetched is kept.
            threading.Thread(target=self._run, args=(self._watch, tiny), name="download", daemon=True).start()
        logs.event("download_started", pipeline=pipeline_id)
        return f"Downloading the weights of the {pipeline_id} pipeline."

    async def stop(self) -> None:
        """End a download at its next piece, without waiting for it; the next one goes on from there."""
        watch = self._watch
        if watch is not None:
            watch.stopped = True

    def _run(self, watch: _Watch, tiny: bool) -> None:
        from personalive.pipelines.diffusion.checkpoints.download.downloader import download

        error: str | None = None
        try:
            download(tiny=tiny, progress=watch)
        except _StoppedError:
            error = "The download was stopped; the next one goes on from there."
        except PersonaLiveError as failure:
            error = str(failure)
        except Exception as failure:
            _log.exception("a download failed")
            error = f"The download failed: {type(failure).__name__}: {failure}"
        with self._lock:
            self._watch, self._error = None, error
        logs.event("download_ended", level=logging.ERROR if error else logging.INFO, error=error)


def _require_known(pipeline_id: str) -> None:
    if pipeline_id not in registry.names():
        known = ", ".join(registry.names())
        raise UnknownPipelineError(f"There is no pipeline {pipeline_id!r}. Known: {known}.")


def _missing(tiny: bool) -> list[str]:
    from personalive.pipelines.diffusion.checkpoints.download.plan import needed, wanted
    from personalive.pipelines.diffusion.checkpoints.layout import default_root

    root = default_root()
    return [
        (file.folder / file.names[0]).as_posix()
        for file in needed(root, wanted(tiny=tiny))
        if file.find(root) is None
    ]
