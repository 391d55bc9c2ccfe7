"""The loaded pipeline: load it in the background, replace it, restart it, and report the progress."""

from __future__ import annotations

import asyncio
import logging
import traceback
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from personalive.errors import PersonaLiveError, PipelineUnavailableError
from personalive.pipelines.base import Pipeline
from personalive.pipelines.registry import AnyPipeline
from personalive.server.errors import ConflictError
from personalive.server.process.remote_pipeline import RemotePipeline
from personalive.server.sessions.memory import freeze_gc, gpu_memory_bytes, release_memory
from personalive.server.sessions.session import PIPELINE_LOST, RESTARTING_MESSAGE
from personalive.server.sessions.session_manager import SessionManager
from personalive.server.sessions.worker import PipelineWorker
from personalive.server.state.load_plan import LoadPlan, PipelineStatus, plan_load
from personalive.server.state.load_progress import LoadCancelledError, LoadProgress, explain_load_error
from personalive.server.state.restart_policy import RestartPolicy
from personalive.server.telemetry import logs

_log = logging.getLogger(__name__)

_END_POLL_S = 0.05
_RESTART_DELAY_S = 1.0
"""Seconds after a failed start: the device may still be freeing the memory of the previous process."""

Isolate = Callable[[AnyPipeline, PipelineWorker], AnyPipeline]
"""Turns a pipeline class into one whose pipelines live in processes with that worker's environment."""


class PipelineManager:
    """The loader of the pipeline, which works on each worker's thread. Use it on the event loop only.

    Each of several workers has a copy of the same pipeline. A pipeline whose process ends is started again.
    """

    def __init__(
        self,
        workers: Sequence[PipelineWorker],
        sessions: SessionManager,
        path_parameters: Mapping[str, object] | None = None,
        isolate: Isolate | None = None,
    ) -> None:
        """`path_parameters` are load parameters that name paths on this machine: no client may choose those.

        `isolate` turns a pipeline class into one whose pipelines live in processes; None keeps them in this one.
        """
        self._path_parameters = dict(path_parameters or {})
        self.on_loaded: list[Callable[[], Awaitable[None]]] = []
        """Called after each successful load."""
        self.on_unloading: list[Callable[[], None]] = []
        """Called before a pipeline is closed: drop all references to objects that it made."""
        self._workers = list(workers)
        self._sessions = sessions
        self._isolate = isolate
        self._ready: dict[PipelineWorker, Pipeline[Any, Any]] = {}
        self._requested: LoadPlan | None = None
        self._error: str | None = None
        self._loading: list[LoadProgress] = []
        self._restarts: dict[PipelineWorker, RestartPolicy] = {}
        self._restarting: dict[PipelineWorker, tuple[LoadProgress, asyncio.Task[None]]] = {}
        self._unloading = False
        self._task: asyncio.Task[None] | None = None

    @property
    def pipeline(self) -> Pipeline[Any, Any] | None:
        """The pipeline that is loaded and ready, the first of several, or None."""
        return next(iter(self._ready.values()), None)

    @property
    def is_restarting(self) -> bool:
        """Whether no pipeline is ready, and one whose process ended is being started again."""
        return not self._ready and bool(self._restarting)

    @property
    def is_idle(self) -> bool:
        """Whether no session is open or being opened."""
        return not len(self._sessions)

    def is_ready(self, pipeline: Pipeline[Any, Any]) -> bool:
        """Return whether that pipeline is loaded and ready."""
        return any(ready is pipeline for ready in self._ready.values())

    def get_worker(self, pipeline: Pipeline[Any, Any]) -> PipelineWorker | None:
        """Return the worker that steps that pipeline's sessions, or None if the pipeline is no longer ready."""
        return next((worker for worker, ready in self._ready.items() if ready is pipeline), None)

    async def is_responsive(self, timeout: float) -> bool:
        """Return whether a worker answers within `timeout` seconds; ask those with a ready pipeline, if any."""
        answers = [
            worker.is_responsive(timeout) for worker in (self._ready or self._workers) if worker.is_alive
        ]
        return any(await asyncio.gather(*answers))

    def gpu_memory_bytes(self) -> int:
        """Return how much GPU memory tensors hold, in this process and in those of pipelines."""
        remote = (
            ready.connection.gpu_memory_bytes
            for ready in self._ready.values()
            if isinstance(ready, RemotePipeline)
        )
        return gpu_memory_bytes() + sum(remote)

    def get_status(self) -> PipelineStatus:
        """Return what is loaded, or how far loading is. Changes nothing."""
        plan = self._requested
        if plan is None:
            return PipelineStatus(status="not_loaded")
        status = PipelineStatus(
            status="loaded",
            pipeline_id=plan.id,
            load_params=plan.parameters.model_dump(mode="json"),
        )
        under_way = self._loading or (
            [one for one, _ in self._restarting.values()] if self.is_restarting else []
        )
        if under_way:
            last = min(under_way, key=lambda loading: loading.progress)
            return status.model_copy(
                update={"status": "loading", "stage": last.stage, "progress": last.progress}
            )
        if self._error is not None and self.pipeline is None:
            return status.model_copy(update={"status": "error", "error": self._error})
        if self.pipeline is None:
            return PipelineStatus(status="not_loaded")
        warnings = [*self.pipeline.warnings, *([] if self._error is None else [self._error])]
        return status.model_copy(
            update={"progress": 1.0, "warnings": warnings, "notes": list(self.pipeline.notes)}
        )

    async def load(
        self, pipeline_id: str, load_params: Mapping[str, object] | None, *, force: bool = False
    ) -> str:
        """Begin to load a pipeline in place of the current one, and return a message for the user.

        A pipeline that is loaded already with these parameters and its sessions are kept. `force` ends sessions.

        Raises:
            UnknownPipelineError: There is no such pipeline.
            InputError: The parameters are not valid.
            PipelineUnavailableError: Something that the pipeline needs is missing.
            ConflictError: Another load runs or, without `force`, sessions are open.
        """
        plan = await asyncio.to_thread(plan_load, pipeline_id, load_params or {}, self._path_parameters)
        # No await between here and the assignment of `_loading`: two loads must not both pass these checks.
        self._require_idle()
        if self.pipeline is not None and self._error is None and self._is_loaded(plan):
            return f"The {plan.id} pipeline is loaded already, with these parameters."
        if not plan.availability.ready:
            raise PipelineUnavailableError(
                f"The {plan.id} pipeline cannot be loaded: {plan.availability.message}"
            )
        if not force:
            self._require_no_sessions("loading another pipeline")
        self._ready, self._requested, self._error = {}, plan, None
        self._restarts = {worker: RestartPolicy() for worker in self._workers}
        self._loading = [LoadProgress() for _ in self._workers]
        self._task = asyncio.create_task(self._load_all(plan, self._loading), name="load-pipeline")
        return f"Loading the {plan.id} pipeline: GET /api/v1/pipeline/status says how far it is."

    async def unload(self, *, force: bool = True) -> str:
        """Close the pipeline or cancel its loading, free its memory, and return a message for the user.

        Raises `ConflictError` if, without `force`, sessions are open or a load runs.
        """
        if not force:
            self._require_idle()
            self._require_no_sessions("unloading")
        there = self.pipeline is not None or bool(self._loading) or bool(self._restarting)
        message = "The pipeline is unloaded." if there else "No pipeline was loaded."
        await self._cancel_loading()
        if not there or self._unloading:
            return message
        self._ready, self._unloading = {}, True
        try:
            await self._end_sessions("The pipeline was unloaded.", "unloaded")
            await self._close_all()
        finally:
            self._unloading = False
        logs.event("pipeline_unloaded", pipeline=None if self._requested is None else self._requested.id)
        return message

    async def _cancel_loading(self) -> None:
        """Cancel the loads and restarts that are running, and wait until they have ended."""
        for loading in self._loading:
            loading.is_cancelled = True
        for loading, _ in self._restarting.values():
            loading.is_cancelled = True
        tasks = [task for _, task in self._restarting.values()]
        if self._loading and self._task is not None:
            tasks.append(self._task)
        if tasks:
            await asyncio.wait(tasks)

    async def _close_all(self) -> None:
        await asyncio.gather(*(worker.call(self._close_pipeline, worker) for worker in self._workers))

    def _is_loaded(self, plan: LoadPlan) -> bool:
        now = self._requested
        return now is not None and now.id == plan.id and now.parameters == plan.parameters

    def _require_idle(self) -> None:
        if self._unloading:
            raise ConflictError("The pipeline is being unloaded: try again in a moment.")
        if self._loading and self._requested is not None:
            raise ConflictError(
                f"The {self._requested.id} pipeline is being loaded: wait until that has ended."
            )
        if self._restarting and self._requested is not None:
            raise ConflictError(
                f"The {self._requested.id} pipeline is being started again: wait until that has ended."
            )

    def _require_no_sessions(self, what: str) -> None:
        count = len(self._sessions)
        if count:
            many = "1 session streams" if count == 1 else f"{count} sessions stream"
            raise ConflictError(f'{many}: close them before {what}, or send "force": true to end them.')

    async def _load_all(self, plan: LoadPlan, loading: list[LoadProgress]) -> None:
        logs.event("pipeline_loading", pipeline=plan.id)
        failure: str | None = None
        try:
            await self._end_sessions("Another pipeline is being loaded.", "pipeline_replaced")
            starting = (
                self._load_on_worker(worker, plan, each)
                for worker, each in zip(self._workers, loading, strict=True)
            )
            made = await asyncio.gather(*starting)
            failure = next((each for each in made if isinstance(each, str)), None)
            if failure is not None:
                await self._close_all()
        except Exception as error:
            failure = explain_load_error(plan, error)
            if not isinstance(error, PersonaLiveError):
                _log.exception("loading the %s pipeline failed", plan.id)
        self._loading = []
        abandoned = any(each.is_cancelled for each in loading)
        if failure is not None:
            self._error = None if abandoned else failure
            logs.event("pipeline_failed", level=logging.ERROR, pipeline=plan.id, error=failure)
            return
        pairs = zip(self._workers, made, strict=True)
        self._ready = {worker: each for worker, each in pairs if not isinstance(each, str)}
        for restarts in self._restarts.values():
            restarts.on_started()
        notes = " ".join(self.pipeline.notes) if self.pipeline is not None else ""
        logs.event("pipeline_loaded", pipeline=plan.id, notes=notes or None)
        self._check_processes()
        if abandoned:
            return
        for tell in list(self.on_loaded):
            try:
                await tell()
            except Exception:
                _log.exception("what follows a load failed")

    async def _load_on_worker(
        self, worker: PipelineWorker, plan: LoadPlan, loading: LoadProgress
    ) -> Pipeline[Any, Any] | str:
        """Load a pipeline on that worker. Return it, or a message on why it failed."""
        try:
            return await worker.call(self._replace_pipeline, worker, plan, loading)
        except PersonaLiveError as error:  # the worker has stopped
            return explain_load_error(plan, error)

    async def _end_sessions(self, message: str, reason: str) -> None:
        while len(self._sessions):
            # A session that was just being opened appears a little later.
            await self._sessions.end_all(message, reason)
            if len(self._sessions):
                await asyncio.sleep(_END_POLL_S)
        for let_go in self.on_unloading:
            let_go()

    def _replace_pipeline(
        self, worker: PipelineWorker, plan: LoadPlan, loading: LoadProgress
    ) -> Pipeline[Any, Any] | str:
        """Close the old pipeline and load the new one. Return it, or a message on why it failed.

        Runs on the worker's thread.
        """
        self._close_pipeline(worker)
        try:
            loading.report("loading", 0.0)
            kind = plan.pipeline if self._isolate is None else self._isolate(plan.pipeline, worker)
            pipeline = kind.load(plan.parameters, loading.report)
        except Exception as error:
            # Only the text is passed on: the traceback would keep alive everything that had been loaded.
            failure = explain_load_error(plan, error)
            if not isinstance(error, PersonaLiveError | LoadCancelledError):
                _log.error("loading the %s pipeline failed\n%s", plan.id, traceback.format_exc())
        else:
            worker.pipeline = pipeline
            freeze_gc()
            return pipeline
        release_memory()
        return failure

    def _close_pipeline(self, worker: PipelineWorker) -> None:
        pipeline, worker.pipeline = worker.pipeline, None
        if pipeline is None:
            return
        try:
            pipeline.close()
        except Exception:
            _log.exception("closing the pipeline failed")
        del pipeline
        freeze_gc()
        release_memory()

    # -- a pipeline whose process has ended

    def on_process_exit(self, worker: PipelineWorker, pipeline: RemotePipeline, reason: str) -> None:
        """Restart that worker's pipeline, whose process has ended, and end its sessions."""
        if self._ready.get(worker) is not pipeline or self._requested is None:
            return  # it is replaced, unloaded, or not ready yet: see `_check_processes`
        del self._ready[worker]
        logs.event("pipeline_lost", level=logging.ERROR, pipeline=self._requested.id, error=reason)
        loading = LoadProgress()
        task = asyncio.create_task(
            self._restart_pipeline(worker, self._requested, loading, reason), name="restart-pipeline"
        )
        self._restarting[worker] = loading, task

    def _check_processes(self) -> None:
        """Restart pipelines whose process ended before all the others were ready."""
        for worker, ready in list(self._ready.items()):
            if isinstance(ready, RemotePipeline) and not ready.connection.is_alive:
                self.on_process_exit(worker, ready, "The pipeline's process ended unexpectedly.")

    async def _restart_pipeline(
        self, worker: PipelineWorker, plan: LoadPlan, loading: LoadProgress, reason: str
    ) -> None:
        try:
            await self._sessions.end_all(f"{reason} {RESTARTING_MESSAGE}", PIPELINE_LOST, worker=worker)
            for let_go in self.on_unloading:
                let_go()
            made: Pipeline[Any, Any] | str = reason
            restarts = self._restarts[worker]
            while isinstance(made, str) and restarts.should_restart() and not loading.is_cancelled:
                made = await self._load_on_worker(worker, plan, loading)
                if isinstance(made, str):
                    reason = made
                    await asyncio.sleep(_RESTART_DELAY_S)
        finally:
            del self._restarting[worker]
        if not isinstance(made, str):
            self._ready[worker] = made
            restarts.on_started()
            logs.event("pipeline_restarted", pipeline=plan.id)
            self._check_processes()
        elif not loading.is_cancelled:
            await worker.call(self._close_pipeline, worker)
            self._error = restarts.describe_failure(reason)
            logs.event("pipeline_failed", level=logging.ERROR, pipeline=plan.id, error=self._error)
