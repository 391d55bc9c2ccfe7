"""A pipeline class whose loaded pipelines each live in a separate process.

Requests are done in their order. All but `submit_steps` wait for their answer. Driving frames are sent ahead with
`prepare` from any thread.
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
from personalive.media.types import Image
from personalive.pipelines.base import (
    AnimatedChunk,
    Availability,
    FaceFound,
    FrameChunk,
    LoadParameters,
    Pipeline,
    ProgressReport,
    Reference,
    RunParameters,
    Session,
)
from personalive.pipelines.registry import AnyPipeline
from personalive.server.process import messages
from personalive.server.process.connection import ProcessConnection
from personalive.server.process.pending_chunk import ArrivingChunk
from personalive.server.process.remote_session import RemoteSession
from personalive.server.telemetry.logs import LogFormat

T = TypeVar("T")

CALL_LIMIT_S = 60.0
_SLOWER = 10.0
"""How many times as long as a step is estimated to take any request may take, where there is an estimate."""


OnExit = Callable[["RemotePipeline", str], None]
"""Called with the pipeline and a sentence once its process has ended without being closed, on a thread."""


def isolated(
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
            "_launch": _Launch(pipeline, dict(environment or {}), on_exit or _ignore, log_format, log_level),
        },
    )


@dataclass(frozen=True, slots=True)
class _Launch:
    """What `isolated` was given."""

    pipeline: AnyPipeline
    environment: dict[str, str]
    on_exit: OnExit
    log_format: LogFormat
    log_level: str


def _ignore(pipeline: RemotePipeline, reason: str) -> None:
    del pipeline, reason


class RemoteReference(Reference):
    """A reference that was fused in the pipeline's process, which forgets it when this object is gone."""

    def __init__(self, owner: RemotePipeline, number: int, fused: messages.Fused) -> None:
        self.id = fused.id
        self.image: Image = fused.image
        self.face: FaceFound | None = fused.face
        self.owner = owner
        self.number = number
        weakref.finalize(self, owner.connection.forget_later, number).atexit = False


class RemotePipeline(Pipeline[Any, Any]):
    """A pipeline in a process. Made by the classes that `isolated` returns."""

    _launch: ClassVar[_Launch]

    def __init__(self) -> None:
        self._sessions: weakref.WeakValueDictionary[int, RemoteSession] = weakref.WeakValueDictionary()
        self._numbers = itertools.count(1)
        self._loaded: messages.Loaded | None = None
        self.connection = ProcessConnection(self._launch.environment, self._exited, self._noticed)

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
    def load(cls, parameters: LoadParameters, report: ProgressReport | None = None) -> RemotePipeline:
        """Start the process and load the pipeline in it. An exception from `report` ends both."""
        remote, launch = cls(), cls._launch
        where = f"{launch.pipeline.__module__}:{launch.pipeline.__qualname__}"
        request = messages.Load(where, parameters, launch.log_format, launch.log_level)
        try:
            remote._loaded = remote.connection.load(request, report or (lambda stage, share: None))
        except BaseException:
            remote.connection.kill()
            remote.connection.close()
            raise
        remote.info = remote._loaded.info
        return remote

    @property
    def pid(self) -> int:
        """The process's id."""
        return self.connection.pid

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self.connection.alive

    def kill(self) -> None:
        """End the process at once; who waits for it gets a `PipelineLostError`. May be called twice."""
        self.connection.kill()

    @property
    def gpu_memory(self) -> int:
        """Bytes that its tensors held of the device at the last answer."""
        return self.connection.gpu_memory

    @property
    @override
    def parameters(self) -> Any:
        return self._told().parameters

    @property
    @override
    def warnings(self) -> tuple[str, ...]:
        return self._told().warnings

    @property
    @override
    def notes(self) -> tuple[str, ...]:
        return self._told().notes

    @property
    @override
    def sessions_together(self) -> int:
        return self._told().sessions_together

    @override
    def seconds_per_frame(self) -> float | None:
        return self._told().seconds_per_frame

    @override
    def fuse(self, image: Image, *, allow_no_face: bool = False) -> RemoteReference:
        number = next(self._numbers)
        fused = self.call(messages.Fuse(number, image, allow_no_face))
        return RemoteReference(self, number, fused)

    @override
    def open_session(
        self, reference: Reference, parameters: RunParameters | None = None, *, seed: int | None = None
    ) -> RemoteSession:
        number = next(self._numbers)
        own = self.own_reference(reference)
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
        asked = tuple(
            messages.StepChunk(session.number, session.send(chunk), next(self._numbers))
            for session, chunk in zip(own, chunks, strict=True)
        )
        arriving = [self.connection.expect(each.number) for each in asked]

        def finish(answer: Future[list[messages.Stepped]]) -> None:
            try:
                stepped = answer.result()
            except Exception as error:
                for each in asked:
                    self.connection.expect_no_more(each.number)
                made.set_exception(error)
                return
            for session, done in zip(own, stepped, strict=True):
                session.counted = done.figures
            made.set_result(
                [ArrivingChunk(frames, done) for frames, done in zip(arriving, stepped, strict=True)]
            )

        self.connection.submit(messages.Step(asked), self._limit()).add_done_callback(finish)
        return made

    @override
    def close(self) -> None:
        """Close the pipeline and end the process, by force where it does not leave."""
        self.connection.close()

    def call(self, request: messages.Request[T]) -> T:
        """Ask and wait for the answer; a process that takes too long for it counts as hung and is killed.

        Raises what the request raised, or `PipelineLostError`.
        """
        return self.connection.submit(request, self._limit()).result()

    def own_reference(self, reference: Reference) -> RemoteReference:
        """Return a reference of this pipeline as such. Raises `InputError` for another's."""
        if not isinstance(reference, RemoteReference) or reference.owner is not self:
            raise InputError("This reference was fused by another pipeline. Fuse the image with this one.")
        return reference

    def _limit(self) -> float:
        """Seconds that a request may take."""
        slow = (self.seconds_per_frame() or 0.0) * self.info.chunk_frames
        return CALL_LIMIT_S + _SLOWER * slow

    def _noticed(self, notice: messages.Notice) -> None:
        if isinstance(notice, messages.Looked) and (session := self._sessions.get(notice.session)):
            session.looked_until = notice.time

    def _told(self) -> messages.Loaded:
        assert self._loaded is not None
        return self._loaded

    def _exited(self, reason: str) -> None:
        if self._loaded is not None:
            self._launch.on_exit(self, reason)
