"""Download a pipeline's weights in the background, one download at a time, with progress for the page."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING

from pydantic import BaseModel, Field

from personalive.errors import PersonaLiveError, PipelineUnavailableError
from personalive.pipelines import registry
from personalive.server.errors import ConflictError
from personalive.server.state.load_plan import require_known_pipeline
from personalive.server.telemetry import logs

if TYPE_CHECKING:
    from personalive.pipelines.diffusion.checkpoints.download.progress import DownloadStep

_log = logging.getLogger(__name__)


class DownloadProgress(BaseModel):
    """The progress of a download. Bytes that were there before it began count as done."""

    percentage: float = Field(ge=0, le=100)
    current_file: str
    bytes_done: int
    bytes_total: int


class ModelsStatus(BaseModel):
    """The state of a pipeline's weights."""

    pipeline_id: str
    downloaded: bool = Field(description="Whether nothing is missing. True for a pipeline without weights.")
    missing: list[str] = Field(description="Files that are missing, relative to the folder of the weights.")
    progress: DownloadProgress | None = Field(None, description="Null while nothing is downloaded.")
    error: str | None = Field(None, description="Why the last download failed, or the pipeline cannot run.")


class _StoppedError(Exception):
    """Raised to end a download because the server stops."""


class _DownloadMonitor:
    """The receiver of a download's progress. The download's thread writes, and other threads read."""

    def __init__(self) -> None:
        self.progress = DownloadProgress(percentage=0, current_file="", bytes_done=0, bytes_total=0)
        self.stopped = False

    def note(self, text: str) -> None:
        """Log a sentence on what comes next."""
        logs.event("download_note", text=text)
        self._raise_if_stopped()

    def step(self, step: DownloadStep) -> None:
        """Record the progress after some more bytes."""
        self._raise_if_stopped()
        done, size = (step.all_done, step.all_size) if step.all_size else (step.done, step.size)
        percentage = min(100 * done / size, 100.0) if size else 0.0
        self.progress = DownloadProgress(
            percentage=round(max(percentage, 0.0), 2),
            current_file=step.name,
            bytes_done=done,
            bytes_total=size,
        )

    def _raise_if_stopped(self) -> None:
        if self.stopped:
            raise _StoppedError


class DownloadManager:
    """The downloads. Any thread may use it, but not the event loop, except for `stop`: all else reads the disk."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._monitor: _DownloadMonitor | None = None
        self._error: str | None = None

    def get_status(self, pipeline_id: str, *, tiny: bool = False) -> ModelsStatus:
        """Return whether a pipeline's weights are there. `tiny`: those of the tiny autoencoder too.

        Raises `UnknownPipelineError`; `PipelineUnavailableError` for a pipeline that cannot be imported.
        """
        require_known_pipeline(pipeline_id)
        if pipeline_id != registry.DIFFUSION:
            state = registry.get_pipeline(pipeline_id).availability()
            error = None if state.ready else state.message
            return ModelsStatus(pipeline_id=pipeline_id, downloaded=state.ready, missing=[], error=error)
        watch, missing = self._monitor, _find_missing(tiny)
        return ModelsStatus(
            pipeline_id=pipeline_id,
            downloaded=not missing,
            missing=missing,
            progress=None if watch is None else watch.progress,
            error=self._error,
        )

    def start(self, pipeline_id: str, *, tiny: bool = False) -> str:
        """Begin to download the missing files, and return a message for the user.

        Raises `UnknownPipelineError`, `ConflictError` while a download runs, and `PipelineUnavailableError` if the
        pipeline's weights cannot be downloaded here and it is not ready.
        """
        require_known_pipeline(pipeline_id)
        if pipeline_id != registry.DIFFUSION:
            state = registry.get_pipeline(pipeline_id).availability()
            if not state.ready:
                raise PipelineUnavailableError(f"The {pipeline_id} pipeline is not ready: {state.message}")
            return f"The {pipeline_id} pipeline is ready: nothing is to be downloaded."
        with self._lock:
            if self._monitor is not None:
                raise ConflictError("A download is running: GET /api/v1/models/status says how far it is.")
            self._monitor, self._error = _DownloadMonitor(), None
            # A daemon thread: a stalled download must not keep the server from stopping. Fetched parts are kept.
            threading.Thread(
                target=self._run, args=(self._monitor, tiny), name="download", daemon=True
            ).start()
        logs.event("download_started", pipeline=pipeline_id)
        return f"Downloading the weights of the {pipeline_id} pipeline."

    async def stop(self) -> None:
        """End a download at its next piece, without waiting for it. The next download continues from there."""
        watch = self._monitor
        if watch is not None:
            watch.stopped = True

    def _run(self, monitor: _DownloadMonitor, tiny: bool) -> None:
        from personalive.pipelines.diffusion.checkpoints.download.downloader import download_weights

        error: str | None = None
        try:
            download_weights(tiny=tiny, progress=monitor)
        except _StoppedError:
            error = "The download was stopped; the next one goes on from there."
        except PersonaLiveError as failure:
            error = str(failure)
        except Exception as failure:
            _log.exception("a download failed")
            error = f"The download failed: {type(failure).__name__}: {failure}"
        with self._lock:
            self._monitor, self._error = None, error
        logs.event("download_ended", level=logging.ERROR if error else logging.INFO, error=error)


def _find_missing(tiny: bool) -> list[str]:
    from personalive.pipelines.diffusion.checkpoints.download.plan import files_of_set, needed_files
    from personalive.pipelines.diffusion.checkpoints.layout import default_weights_dir

    root = default_weights_dir()
    return [
        (file.folder / file.names[0]).as_posix()
        for file in needed_files(root, files_of_set(tiny=tiny))
        if file.find_in(root) is None
    ]
