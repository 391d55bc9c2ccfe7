"""A job in segments, each kept when it is complete: a run that is stopped can be continued to the same result.

The picture is cut into segments of a constant number of frames, and the session's state kept after each. Taking
it may leave a trace in a session, so it is taken at the same steps whether or not a run is ever stopped. When
the last segment is there, they are joined as they are, with the sound. Memory is as without segments.
"""

from __future__ import annotations

import itertools
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from personalive.errors import CannotResumeError, InputError, MediaError
from personalive.jobs.animate_job import Progress
from personalive.jobs.background_io import Reader, Writer
from personalive.jobs.checkpoint_dir import State, WorkFolder
from personalive.jobs.fingerprint import fingerprint
from personalive.jobs.job_context import WAITING_FRAMES, Loaded, Made
from personalive.jobs.output import is_picture, provenance_of
from personalive.jobs.phases import Phase, Phases
from personalive.jobs.plan import driving_frames
from personalive.jobs.session_runner import Drive, Driven, prepared_ahead
from personalive.media import AudioTrack, Provenance, VideoFrame, join_videos, open_writer, output_kind
from personalive.pipelines.base import FrameState, Session

SEGMENT_FRAMES = 128
"""A segment of a job that does not say otherwise ends with the step that completes so many frames."""

OnSegment = Callable[[WorkFolder], None]
"""Called in the caller's thread when a job in segments has its work folder, and after every segment kept there."""


def check_resumable(output: Path) -> None:
    """Raise `InputError` unless `output` is of a kind that can be made in segments."""
    if is_picture(output) or output_kind(output) not in {"mp4", "mov", "webm"}:
        raise InputError(
            f"{output} cannot be made in segments: resuming needs a video, .mp4, .m4v, .mov or .webm."
        )


def animate_in_segments(
    loaded: Loaded, tell: Progress, on_segment: OnSegment | None = None, *, keep_work: bool = False
) -> Phases[Made]:
    """Make what an earlier run has not, join it all and remove the work folder, unless `keep_work`.

    Raises `CannotResumeError` where the pipeline cannot continue a session, `InputError` where the work folder is
    not of this job, and `MediaError` where something cannot be read or written. Finished segments stay for the
    next run.
    """
    job, info = loaded.plan.job, loaded.pipeline.info
    mark = provenance_of(job, info)
    with ExitStack() as stack:
        session = stack.enter_context(loaded.open_session())
        _snapshot(loaded, session)  # first of all: in vain if there is none to be had
        tell("checking the files", 0, None)
        length = job.segment_frames or SEGMENT_FRAMES
        facts = fingerprint(loaded, mark, length)
        folder = stack.enter_context(WorkFolder(job.output, facts, overwrite=job.overwrite))
        say = on_segment or _nobody
        say(folder)
        lost = []
        if folder.discarded:
            tell(f"discarding {folder.discarded} finished frames", 0, None)
            lost.append(f"{folder.discarded} finished frames of a run with other options were discarded.")
        earlier = folder.state.frames
        if earlier:
            tell(f"going on after {earlier} frames", 0, None)
        if not folder.state.finished:
            yield from _Work(loaded, session, folder, mark, tell).finish(length, say)
        state = folder.state
        tell("finishing", state.frames, state.frames)
        warnings = _join(loaded, folder, mark)
        if not keep_work:
            folder.remove()
    return Made(Counter(state.states), state.seconds, (*lost, *state.warnings, *warnings), earlier)


def _snapshot(loaded: Loaded, session: Session[Any]) -> bytes:
    with loaded.calls:
        snapshot = session.snapshot()
    if snapshot is None:
        raise CannotResumeError(
            f"The {loaded.pipeline.info.id} pipeline cannot resume a run: leave that out (--resume, resume=True)."
        )
    return snapshot


def _nobody(folder: WorkFolder) -> None:
    del folder


def _join(loaded: Loaded, folder: WorkFolder, mark: Provenance) -> list[str]:
    plan, job = loaded.plan, loaded.plan.job
    return join_videos(
        job.output,
        folder.segments,
        fps=plan.fps,
        provenance=mark,
        audio=AudioTrack(job.driving, job.start) if plan.sound else None,
        overwrite=job.overwrite,
        staging=folder.path,
    )


class _Work:
    """Makes the segments that a work folder lacks."""

    def __init__(
        self, loaded: Loaded, session: Session[Any], folder: WorkFolder, mark: Provenance, tell: Progress
    ) -> None:
        self._loaded = loaded
        self._session = session
        self._folder = folder
        self._mark = mark
        self._tell = tell

    def finish(self, length: int, say: OnSegment) -> Phases[None]:
        """Make them all, of `length` frames, and `say` so after each. `folder.state` is finished then."""
        loaded, folder = self._loaded, self._folder
        with ExitStack() as stack:
            source = driving_frames(loaded.plan, loaded.source)
            reader = stack.enter_context(Reader(source, ahead=loaded.frames_ahead))
            reader.start()
            waiting = self._find_place(reader) if folder.state.taken else []
            frames = stack.enter_context(prepared_ahead(self._session, reader, ahead=loaded.frames_ahead))
            drive = Drive(self._session, loaded.pipeline.info, frames, loaded.calls)
            drive.go_on(folder.state.frames, waiting, folder.state.padding)
            yield Phase.ANIMATING
            while not folder.state.finished:
                begun = time.perf_counter()
                states = yield from self._make(drive, length)
                self._keep(drive, states, time.perf_counter() - begun)
                say(folder)

    def _find_place(self, reader: Iterator[VideoFrame]) -> list[VideoFrame]:
        """Bring session and source to where the earlier run was; return the frames that waited for their result.

        The source is read again from its start, which gives the same frames; seeking need not.
        """
        state = self._folder.state
        with self._loaded.calls:
            self._session.restore(self._folder.snapshot)
        passed = 0
        for passed, _ in enumerate(itertools.islice(reader, state.frames), 1):
            self._tell("finding the place", passed, state.frames)
        waiting = list(itertools.islice(reader, state.taken - state.frames))
        if passed + len(waiting) < state.taken:
            raise MediaError(f"{self._loaded.plan.job.driving} gave fewer frames than in the earlier run.")
        return waiting

    def _make(self, drive: Drive, length: int) -> Phases[Counter[FrameState]]:
        """Write the next segment, if there is another frame, and say what its frames are.

        The last one is only finished once the pipeline has nothing to do any more.
        """
        states: Counter[FrameState] = Counter()
        results = drive.results(at_least=length)
        first = next(results, None)
        if first is None:
            yield Phase.FINISHING
            return states
        plan, layout, done = self._loaded.plan, self._loaded.layout, self._folder.state.frames
        path = self._folder.next_segment
        width, height = layout.size
        with ExitStack() as stack:
            target = stack.enter_context(
                open_writer(
                    path, width=width, height=height, fps=plan.fps, provenance=self._mark, overwrite=True
                )
            )

            def finish(driven: Driven) -> None:
                target.write(layout.compose(driven.driving, driven.animated))

            writer = stack.enter_context(Writer(finish, behind=WAITING_FRAMES))
            for driven in itertools.chain([first], results):
                states[driven.state] += 1
                writer.put(driven)
                self._tell("animating", done + states.total(), plan.frames)
            if drive.ended:
                yield Phase.FINISHING
            writer.finish()
        return states

    def _keep(self, drive: Drive, states: Counter[FrameState], seconds: float) -> None:
        """Record the segment just written, with all that a later run needs to go on after it."""
        before = self._folder.state
        snapshot = b"" if drive.ended else _snapshot(self._loaded, self._session)
        state = State(
            segments=self._folder.add_segment(states.total()) if states else before.segments,
            states=Counter(before.states) + states,
            taken=drive.taken,
            padding=drive.padding,
            seconds=before.seconds + seconds,
            warnings=tuple(self._loaded.source.warnings),
            finished=drive.ended,
        )
        self._folder.save(state, snapshot)
