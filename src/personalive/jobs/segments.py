"""Runs a job in segments, each kept when it is complete: an interrupted run can be continued to the same result.

The picture is divided into segments of a constant number of frames, and the session's state is kept after each.
Taking a snapshot may affect a session, so it is taken at the same steps whether or not a run is interrupted. When
the last segment is finished, they are joined without encoding again, with the sound. Memory is as without segments.
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
from personalive.jobs.animate_job import ProgressCallback
from personalive.jobs.background_io import BackgroundReader, BackgroundWriter
from personalive.jobs.checkpoint_dir import CheckpointDir, CheckpointState
from personalive.jobs.fingerprint import compute_fingerprint
from personalive.jobs.job_context import WRITER_QUEUE_FRAMES, JobContext, RenderResult
from personalive.jobs.output import build_provenance, is_single_image
from personalive.jobs.phases import Phase, Phases
from personalive.jobs.plan import read_driving_frames
from personalive.jobs.session_runner import AnimatedFrame, SessionRunner, prefetch_frames
from personalive.media import AudioTrack, Provenance, VideoFrame, concat_videos, open_writer, output_kind
from personalive.pipelines.base import FrameState, Session

DEFAULT_SEGMENT_FRAMES = 128
"""By default a segment ends with the step that completes this many frames."""

SegmentCallback = Callable[[CheckpointDir], None]
"""Called in the caller's thread when a job in segments has opened its work folder, and after every segment."""


def check_resumable(output: Path) -> None:
    """Raise `InputError` unless `output` is of a type that can be made in segments."""
    if is_single_image(output) or output_kind(output) not in {"mp4", "mov", "webm"}:
        raise InputError(
            f"{output} cannot be made in segments: resuming needs a video, .mp4, .m4v, .mov or .webm."
        )


def animate_in_segments(
    context: JobContext,
    progress: ProgressCallback,
    on_segment: SegmentCallback | None = None,
    *,
    keep_checkpoint: bool = False,
) -> Phases[RenderResult]:
    """Make the segments that are missing, join them all and remove the work folder, unless `keep_checkpoint`.

    Raises `CannotResumeError` where the pipeline cannot continue a session, `InputError` where the work folder
    belongs to another job, and `MediaError` where something cannot be read or written. Finished segments stay for
    the next run.
    """
    job, info = context.plan.job, context.pipeline.info
    mark = build_provenance(job, info)
    with ExitStack() as stack:
        session = stack.enter_context(context.open_session())
        _take_snapshot(context, session)  # raises before any work where the pipeline has no snapshots
        progress("checking the files", 0, None)
        length = job.segment_frames or DEFAULT_SEGMENT_FRAMES
        facts = compute_fingerprint(context, mark, length)
        folder = stack.enter_context(CheckpointDir(job.output, facts, overwrite=job.overwrite))
        say = on_segment or (lambda folder: None)
        say(folder)
        lost = []
        if folder.discarded_frames:
            progress(f"discarding {folder.discarded_frames} finished frames", 0, None)
            lost.append(
                f"{folder.discarded_frames} finished frames of a run with other options were discarded."
            )
        earlier = folder.state.frames
        if earlier:
            progress(f"continuing after {earlier} frames", 0, None)
        if not folder.state.finished:
            yield from _SegmentWriter(context, session, folder, mark, progress).write_all(length, say)
        state = folder.state
        progress("finishing", state.frames, state.frames)
        warnings = _join_segments(context, folder, mark)
        if not keep_checkpoint:
            folder.remove()
    return RenderResult(Counter(state.states), state.seconds, (*lost, *state.warnings, *warnings), earlier)


def _take_snapshot(loaded: JobContext, session: Session[Any]) -> bytes:
    with loaded.call_lock:
        snapshot = session.snapshot()
    if snapshot is None:
        raise CannotResumeError(
            f"The {loaded.pipeline.info.id} pipeline cannot resume a run: leave that out (--resume, resume=True)."
        )
    return snapshot


def _join_segments(loaded: JobContext, folder: CheckpointDir, mark: Provenance) -> list[str]:
    plan, job = loaded.plan, loaded.plan.job
    return concat_videos(
        job.output,
        folder.segments,
        fps=plan.fps,
        provenance=mark,
        audio=AudioTrack(job.driving, job.start) if plan.with_audio else None,
        overwrite=job.overwrite,
        staging=folder.path,
    )


class _SegmentWriter:
    """Makes the segments that are missing in a work folder."""

    def __init__(
        self,
        loaded: JobContext,
        session: Session[Any],
        folder: CheckpointDir,
        mark: Provenance,
        tell: ProgressCallback,
    ) -> None:
        self._context = loaded
        self._session = session
        self._checkpoint = folder
        self._provenance = mark
        self._progress = tell

    def write_all(self, length: int, say: SegmentCallback) -> Phases[None]:
        """Make all missing segments of `length` frames, and call `say` after each. Sets `folder.state` finished."""
        loaded, folder = self._context, self._checkpoint
        with ExitStack() as stack:
            source = read_driving_frames(loaded.plan, loaded.source)
            reader = stack.enter_context(BackgroundReader(source, ahead=loaded.frames_ahead))
            reader.start()
            waiting = self._seek_to_checkpoint(reader) if folder.state.taken else []
            frames = stack.enter_context(prefetch_frames(self._session, reader, ahead=loaded.frames_ahead))
            drive = SessionRunner(self._session, loaded.pipeline.info, frames, loaded.call_lock)
            drive.resume_at(folder.state.frames, waiting, folder.state.padding)
            yield Phase.ANIMATING
            while not folder.state.finished:
                begun = time.perf_counter()
                states = yield from self._write_segment(drive, length)
                self._save_checkpoint(drive, states, time.perf_counter() - begun)
                say(folder)

    def _seek_to_checkpoint(self, reader: Iterator[VideoFrame]) -> list[VideoFrame]:
        """Restore session and source to where the earlier run was; return the frames that waited for their result.

        The source is read again from its start, which gives the same frames; seeking may not.
        """
        state = self._checkpoint.state
        with self._context.call_lock:
            self._session.restore(self._checkpoint.snapshot)
        passed = 0
        for passed, _ in enumerate(itertools.islice(reader, state.frames), 1):
            self._progress("finding the place", passed, state.frames)
        waiting = list(itertools.islice(reader, state.taken - state.frames))
        if passed + len(waiting) < state.taken:
            raise MediaError(
                f"{self._context.plan.job.driving} has fewer readable frames than in the earlier run."
            )
        return waiting

    def _write_segment(self, drive: SessionRunner, length: int) -> Phases[Counter[FrameState]]:
        """Write the next segment, if there is another frame, and return its frames' states.

        The last segment is finished in the completing phase, when the pipeline is not used any more.
        """
        states: Counter[FrameState] = Counter()
        results = drive.iter_results(at_least=length)
        first = next(results, None)
        if first is None:
            yield Phase.FINISHING
            return states
        plan, layout, done = self._context.plan, self._context.layout, self._checkpoint.state.frames
        path = self._checkpoint.next_segment
        width, height = layout.size
        with ExitStack() as stack:
            target = stack.enter_context(
                open_writer(
                    path,
                    width=width,
                    height=height,
                    fps=plan.fps,
                    provenance=self._provenance,
                    overwrite=True,
                )
            )

            def finish(driven: AnimatedFrame) -> None:
                target.write(layout.compose(driven.driving, driven.animated))

            writer = stack.enter_context(BackgroundWriter(finish, behind=WRITER_QUEUE_FRAMES))
            for driven in itertools.chain([first], results):
                states[driven.state] += 1
                writer.put(driven)
                self._progress("animating", done + states.total(), plan.frames)
            if drive.finished:
                yield Phase.FINISHING
            writer.finish()
        return states

    def _save_checkpoint(self, drive: SessionRunner, states: Counter[FrameState], seconds: float) -> None:
        """Record the segment just written, with all that a later run needs to continue after it."""
        before = self._checkpoint.state
        snapshot = b"" if drive.finished else _take_snapshot(self._context, self._session)
        state = CheckpointState(
            segments=self._checkpoint.add_segment(states.total()) if states else before.segments,
            states=Counter(before.states) + states,
            taken=drive.consumed,
            padding=drive.padding,
            seconds=before.seconds + seconds,
            warnings=tuple(self._context.source.warnings),
            finished=drive.finished,
        )
        self._checkpoint.save(state, snapshot)
