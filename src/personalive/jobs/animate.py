"""Runs a job: checks everything first, then reads, animates and writes concurrently.

Memory does not grow with the length of the clip: only a few frames wait between the three. An error or Ctrl-C at
any moment stops the threads and leaves no file behind, except for the finished segments of a job with `resume`.
"""

from __future__ import annotations

import time
from collections import Counter
from contextlib import ExitStack
from typing import Any

from personalive.errors import InputError
from personalive.jobs.animate_job import AnimateJob, ProgressCallback, Report, ignore_progress
from personalive.jobs.background_io import BackgroundReader, BackgroundWriter
from personalive.jobs.driving_clip import open_driving_clip, parse_driver_face
from personalive.jobs.job_context import WRITER_QUEUE_FRAMES, JobContext, RenderResult
from personalive.jobs.layouts import Layout
from personalive.jobs.output import OutputWriter, check_output_path, is_single_image
from personalive.jobs.phases import Phase, Phases, run_all_phases
from personalive.jobs.pipeline_cache import PipelineCache
from personalive.jobs.plan import check_start, is_still, make_layout, make_plan, read_driving_frames
from personalive.jobs.segments import SegmentCallback, animate_in_segments, check_resumable
from personalive.jobs.session_runner import AnimatedFrame, prefetch_frames, run_session
from personalive.media import VideoReader
from personalive.pipelines import registry
from personalive.pipelines.base import FrameState, Pipeline
from personalive.pipelines.parameters import split_parameters

_MAX_PLAYABLE_SIDE = 4096


def run(
    job: AnimateJob,
    progress: ProgressCallback | None = None,
    *,
    pipeline: Pipeline[Any, Any] | None = None,
    pipeline_cache: PipelineCache | None = None,
    on_segment: SegmentCallback | None = None,
    keep_checkpoint: bool = False,
) -> Report:
    """Run the job and return its report.

    Args:
        job: What to animate, and how.
        progress: Called in this thread with the stage and the frames done.
        pipeline: A loaded pipeline to use; it is left open. The job's size and load parameters must be those it was
            loaded with. Without one, the job's own pipeline is loaded, and closed at the end.
        pipeline_cache: Reuses the pipeline and the reference of an earlier job if they are the same, and keeps
        those
            of this job.
        on_segment: Called in this thread for a job with `resume`: see `SegmentCallback`.
        keep_checkpoint: Keep the finished segments, so that the same job is done at once if it is run again. The
            caller must remove them (`checkpoint_dir.remove_checkpoint_dir`).

    Raises `InputError` or a subclass for what cannot be used, `PipelineUnavailableError` where the pipeline cannot
    run here. After an exception the output is as it was before; a job with `resume` leaves its finished segments in
    a hidden folder beside it.
    """
    return run_all_phases(
        run_in_phases(
            job,
            progress,
            pipeline=pipeline,
            pipeline_cache=pipeline_cache,
            on_segment=on_segment,
            keep_checkpoint=keep_checkpoint,
        )
    )


def run_in_phases(
    job: AnimateJob,
    progress: ProgressCallback | None = None,
    *,
    pipeline: Pipeline[Any, Any] | None = None,
    pipeline_cache: PipelineCache | None = None,
    on_segment: SegmentCallback | None = None,
    keep_checkpoint: bool = False,
) -> Phases[Report]:
    """Do what `run` does, in phases. Jobs with the same `pipeline_cache` may be in different phases.

    `progress` and `on_segment` are called in the thread of the phase, and an exception that they raise ends the
    job.
    """
    tell = progress or ignore_progress
    job.check()
    check_output_path(job.output, job.overwrite)
    if job.resume:
        check_resumable(job.output)
    if pipeline is None:
        choice = registry.choose_pipeline(job.pipeline, job.parameters)
    else:
        choice = registry.PipelineChoice(type(pipeline), "it was loaded already")
    run, _ = split_parameters(choice.pipeline, job.parameters)
    followed = parse_driver_face(run)
    tell("looking for the face", 0, None)
    driver = open_driving_clip(
        job.driving, start=job.start, end=job.end, rotation=job.rotate, choice=followed
    )
    with driver.source as source:
        _check_single_image(job, source)
        check_start(source, job.start)
        plan = make_plan(job, choice, driver)
        tell("loading", 0, None)
        with ExitStack() as stack:
            ours = pipeline_cache or stack.enter_context(PipelineCache())
            if pipeline is None and not ours.is_loaded(choice.pipeline, plan.load_parameters):
                yield Phase.LOADING
            used = pipeline or ours.load(
                choice.pipeline, plan.load_parameters, lambda stage, share: tell(stage, 0, None)
            )
            reference = ours.fuse(used, plan.crop.image, plan.crop.face_box)
            loaded = JobContext(
                plan, source, used, reference, make_layout(plan, source, reference), ours.call_lock
            )
            _report_estimate(loaded, tell)
            if job.resume:
                made = yield from animate_in_segments(
                    loaded, tell, on_segment, keep_checkpoint=keep_checkpoint
                )
            else:
                made = yield from _animate(loaded, tell)
            return _build_report(loaded, made)


def _report_estimate(loaded: JobContext, tell: ProgressCallback) -> None:
    """Report how long the job will take before its first frame, where frames take long."""
    per_frame = loaded.pipeline.seconds_per_frame()
    if per_frame is None:
        return
    took = f"{per_frame:.1g} s a frame"
    if loaded.plan.frames is not None:
        minutes = per_frame * (loaded.plan.frames + loaded.pipeline.info.delay_frames) / 60
        whole = f"{minutes / 60:.1f} hours" if minutes > 90 else f"{max(minutes, 1):.0f} min"
        took = f"{whole} for {loaded.plan.frames} frames"
    tell(f"animating without a GPU, roughly {took}", 0, None)


def _check_single_image(job: AnimateJob, source: VideoReader) -> None:
    if is_single_image(job.output) and not is_still(source) and job.max_frames != 1:
        raise InputError(
            f"{job.output.name} is one picture, but {job.driving.name} has many frames: name the output "
            ".mp4, .mov, .webm or .gif, or take one frame only (--max-frames 1)."
        )


def _animate(loaded: JobContext, tell: ProgressCallback) -> Phases[RenderResult]:
    plan, source, layout, info = loaded.plan, loaded.source, loaded.layout, loaded.pipeline.info
    states: Counter[FrameState] = Counter()
    begun = time.perf_counter()
    with ExitStack() as stack:
        session = stack.enter_context(loaded.open_session())
        target = stack.enter_context(OutputWriter(plan.job, layout.size, plan.fps, plan.with_audio, info))

        def finish(driven: AnimatedFrame) -> None:
            target.write(layout.compose(driven.driving, driven.animated))

        writer = stack.enter_context(BackgroundWriter(finish, behind=WRITER_QUEUE_FRAMES))
        reader = stack.enter_context(
            BackgroundReader(read_driving_frames(plan, source), ahead=loaded.frames_ahead)
        )
        reader.start()
        frames = stack.enter_context(prefetch_frames(session, reader, ahead=loaded.frames_ahead))
        ready = time.perf_counter()
        yield Phase.ANIMATING
        begun += time.perf_counter() - ready
        for done, driven in enumerate(run_session(session, info, frames, loaded.call_lock)):
            states[driven.state] += 1
            writer.put(driven)
            tell("animating", done + 1, plan.frames)
        yield Phase.FINISHING
        tell("finishing", states.total(), states.total())
        writer.finish()
    return RenderResult(states, time.perf_counter() - begun, (*source.warnings, *target.warnings))


def _build_report(loaded: JobContext, made: RenderResult) -> Report:
    plan, layout, info = loaded.plan, loaded.layout, loaded.pipeline.info
    notes = (*plan.notes, *loaded.pipeline.notes)
    if made.resumed_frames:
        notes = (*notes, f"{made.resumed_frames} of the frames were made by an earlier run.")
    return Report(
        output=plan.job.output,
        pipeline=info.id,
        pipeline_name=info.name,
        why=plan.pipeline_choice.reason,
        width=layout.size[0],
        height=layout.size[1],
        fps=plan.fps,
        frames=made.states.total(),
        seconds=made.seconds,
        states=dict(made.states),
        notes=notes,
        warnings=(
            *loaded.pipeline.warnings,
            *plan.warnings,
            *made.warnings,
            *_quality_warnings(made.states, layout),
        ),
    )


def _quality_warnings(states: Counter[FrameState], layout: Layout) -> list[str]:
    """Return warnings about the result that follow from the frames' states and size."""
    total = states.total()
    found = []
    if states[FrameState.WAITING] == total:
        found.append("No face was found in the driving clip: the result is the still portrait.")
    elif waiting := states[FrameState.WAITING]:
        found.append(
            f"No face was found in the first {waiting} of {total} frames: they show the still portrait."
        )
    if held := states[FrameState.HELD]:
        found.append(f"No face was found in {held} of {total} frames: the last motion was held there.")
    if max(layout.size) > _MAX_PLAYABLE_SIDE:
        found.append(f"The result is {layout.size[0]}×{layout.size[1]}: many players show no more than 4096.")
    return found
