"""A pipeline class whose loaded pipelines each live in a separate process.

Requests are handled in order. All methods but `submit_steps` wait for the answer. Any thread may send driving
frames ahead with `prepare`.
"""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

from typing_extensions import override

from personalive.errors import InputError
from personalive.face.face import Box
from personalive.media.types import Image
from personalive.pipelines.base import (
    AnimatedChunk,
    Availability,
    DetectedFace,
    FrameChunk,
    LoadParameters,
    LoadProgressCallback,
    Pipeline,
    Reference,
    RunParameters,
    Session,
)
from personalive.pipelines.registry import AnyPipeline
from personalive.server.process import messages
from personalive.server.process.connection import ProcessConnection
from personalive.server.process.pending_chunk import PendingChunk
from personalive.server.process.remote_session import RemoteSession
from personalive.server.telemetry.logs import LogFormat

T = TypeVar("T")

CALL_TIMEOUT_S = 60.0
_STEP_TIMEOUT_FACTOR = 10.0
"""The limit of a request grows by this multiple of a step's estimated time, if there is an estimate."""


OnExit = Callable[["RemotePipeline", str], None]
"""Called with the pipeline and a sentence once its process has ended without being closed, on a thread."""


def make_remote_class(
    pipeline: AnyPipeline,
    *,
    environment: Mapping[str, str] | None = None,
    on_exit: OnExit | None = None,
    log_format: LogFormat = "text",
    log_level: str = "info",
) -> type[RemotePipeline]:
    """Return the class whose `load` starts a process and loads `pipeline` there.

    `environment` is added to the process's variables: CUDA_VISIBLE_DEVICES chooses its GPU.
    """
    return type(
        f"Remote{pipeline.__name__}",
        (RemotePipeline,),
        {
            "info": pipeline.info,
            "load_parameters": pipeline.load_parameters,
            "run_parameters": pipeline.run_parameters,
            "_launch": _LaunchOptions(
                pipeline, dict(environment or {}), on_exit or _ignore_exit, log_format, log_level
            ),
        },
    )


@dataclass(frozen=True, slots=True)
class _LaunchOptions:
    """The arguments of `make_remote_class`."""

    pipeline: AnyPipeline
    environment: dict[str, str]
    exit_callback: OnExit
    log_format: LogFormat
    log_level: str


def _ignore_exit(pipeline: RemotePipeline, reason: str) -> None:
    del pipeline, reason


class RemoteReference(Reference):
    """A reference that was fused in the pipeline's process, which releases it when this object is deleted."""

    def __init__(self, owner: RemotePipeline, number: int, fused: messages.FusedReferenceInfo) -> None:
        self.id = fused.id
        self.image: Image = fused.image
        self.face: DetectedFace | None = fused.face
        self.owner = owner
        self.number = number
        weakref.finalize(self, owner.connection.release_reference_later, number).atexit = False


class RemotePipeline(Pipeline[Any, Any]):
    """A pipeline in a process. Made by the classes that `make_remote_class` returns."""

    _launch: ClassVar[_LaunchOptions]

    def __init__(self) -> None:
        self._sessions: weakref.WeakValueDictionary[int, RemoteSession] = weakref.WeakValueDictionary()
        self._numbers = itertools.count(1)
        self._loaded: messages.LoadedPipeline | None = None
        self.connection = ProcessConnection(
            self._launch.environment, self._on_process_exit, self._on_notification
        )

    @classmethod
    @override
    def availability(cls) -> Availability:
        return cls._launch.pipeline.availability()

    @classmethod
    @override
    def availability_with(cls, given: Mapping[str, object]) -> Availability:
        return cls._launch.pipeline.availability_with(given)

    @classmethod
    @override
    def load(cls, parameters: LoadParameters, report: LoadProgressCallback | None = None) -> RemotePipeline:
        """Start the process and load the pipeline in it. An exception from `report` ends both."""
        remote, launch = cls(), cls._launch
        where = f"{launch.pipeline.__module__}:{launch.pipeline.__qualname__}"
        request = messages.LoadPipeline(where, parameters, launch.log_format, launch.log_level)
        try:
            remote._loaded = remote.connection.load(request, report or (lambda stage, share: None))
        except BaseException:
            remote.connection.kill()
            remote.connection.close()
            raise
        remote.info = remote._loaded.info
        return remote

    @property
    @override
    def parameters(self) -> Any:
        return self._require_loaded().parameters

    @property
    @override
    def warnings(self) -> tuple[str, ...]:
        return self._require_loaded().warnings

    @property
    @override
    def notes(self) -> tuple[str, ...]:
        return self._require_loaded().notes

    @property
    @override
    def session_batch_size(self) -> int:
        return self._require_loaded().sessions_together

    @override
    def seconds_per_frame(self) -> float | None:
        return self._require_loaded().seconds_per_frame

    @override
    def fuse(
        self, image: Image, *, allow_no_face: bool = False, face_box: Box | None = None
    ) -> RemoteReference:
        number = next(self._numbers)
        fused = self.call(messages.FuseReference(number, image, allow_no_face, face_box))
        return RemoteReference(self, number, fused)

    @override
    def open_session(
        self, reference: Reference, parameters: RunParameters | None = None, *, seed: int | None = None
    ) -> RemoteSession:
        number = next(self._numbers)
        own = self.require_reference(reference)
        opened = self.call(messages.OpenSession(number, own.number, parameters, seed))
        session = self._sessions[number] = RemoteSession(self, number, opened)
        return session

    @property
    @override
    def queues_steps(self) -> bool:
        return True

    @override
    def step_many(
        self, sessions: Sequence[Session[Any]], chunks: Sequence[FrameChunk]
    ) -> list[AnimatedChunk]:
        return self.submit_steps(sessions, chunks).result()

    @override
    def submit_steps(
        self, sessions: Sequence[Session[Any]], chunks: Sequence[FrameChunk]
    ) -> Future[list[AnimatedChunk]]:
        made: Future[list[AnimatedChunk]] = Future()
        own = [session for session in sessions if isinstance(session, RemoteSession)]
        if len(own) < len(sessions):
            made.set_exception(InputError("Only sessions of this pipeline can be stepped together."))
            return made
        items = tuple(
            messages.SessionChunk(session.number, session.send_chunk(chunk), next(self._numbers))
            for session, chunk in zip(own, chunks, strict=True)
        )
        arriving = [self.connection.expect_frames(each.frames_number) for each in items]

        def finish(answer: Future[list[messages.StepResult]]) -> None:
            try:
                stepped = answer.result()
            except Exception as error:
                for each in items:
                    self.connection.cancel_frames(each.frames_number)
                made.set_exception(error)
                return
            for session, done in zip(own, stepped, strict=True):
                session.last_figures = done.figures
            made.set_result(
                [PendingChunk(frames, done) for frames, done in zip(arriving, stepped, strict=True)]
            )

        self.connection.submit(messages.StepSessions(items), self._timeout()).add_done_callback(finish)
        return made

    @override
    def close(self) -> None:
        """Close the pipeline and end the process, by force if it does not end in time."""
        self.connection.close()

    def call(self, request: messages.Request[T]) -> T:
        """Send a request and wait for the answer. A process that takes too long counts as hung and is killed.

        Raises what the request raised, or `PipelineLostError`.
        """
        return self.connection.submit(request, self._timeout()).result()

    def require_reference(self, reference: Reference) -> RemoteReference:
        """Return the reference if this pipeline fused it. Raises `InputError` for one of another pipeline."""
        if not isinstance(reference, RemoteReference) or reference.owner is not self:
            raise InputError("This reference was fused by another pipeline. Fuse the image with this one.")
        return reference

    def _timeout(self) -> float:
        """Return the seconds that a request may take."""
        slow = (self.seconds_per_frame() or 0.0) * self.info.chunk_frames
        return CALL_TIMEOUT_S + _STEP_TIMEOUT_FACTOR * slow

    def _on_notification(self, notice: messages.Notification) -> None:
        if isinstance(notice, messages.FramePrepared) and (session := self._sessions.get(notice.session)):
            session.last_prepared_time = notice.time

    def _require_loaded(self) -> messages.LoadedPipeline:
        assert self._loaded is not None
        return self._loaded

    def _on_process_exit(self, reason: str) -> None:
        if self._loaded is not None:
            self._launch.exit_callback(self, reason)
