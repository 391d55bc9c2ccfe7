"""Running a job: everything checked first, then reader, animation and writer side by side.

Memory is bounded whatever the length of the clip: a few frames wait between the three. Leaving at any moment,
by an error or by Ctrl-C, stops the threads and leaves no file behind.
"""

from __future__ import annotations

import itertools
import time
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from personalive.errors import InputError
from personalive.face.crop import Size
from personalive.media import DrivingSource, exact_rate, open_driving, resample
from personalive.offline.compose import InStill, Layout, ResultOnly, SideBySide
from personalive.offline.drive import Driven, drive
from personalive.offline.framing import (
    Framing,
    Portrait,
    crop_to_face,
    read_portrait,
    whole_picture,
    whole_size,
)
from personalive.offline.job import AnimateJob, Progress, Report
from personalive.offline.output import FrameWriter, check_target, is_picture
from personalive.offline.threads import Reader, Writer
from personalive.pipelines import registry
from personalive.pipelines.interface import FrameState, LoadParameters, Pipeline, Reference, RunParameters
from personalive.pipelines.parameters import build, split

_WAITING_FRAMES = 4
_WIDEST_PLAYED = 4096


@dataclass(frozen=True, slots=True, eq=False)
class _Plan:
    """A job with every choice made and every parameter checked."""

    job: AnimateJob
    choice: registry.Choice
    portrait: Portrait
    framing: Framing
    load: LoadParameters
    run: RunParameters
    fps: float
    frames: int | None
    notes: tuple[str, ...]


def run(job: AnimateJob, progress: Progress | None = None) -> Report:
    """Do the job. `progress` hears of it in this thread.

    Raises `InputError` and its kin for what cannot be used, `PipelineUnavailableError` where the pipeline
    cannot run here. Whatever is raised, nothing is left at the output's place that was not there before.
    """
    tell = progress or _silent
    job.check()
    check_target(job.output, job.overwrite)
    choice = registry.choose(job.pipeline, job.parameters)
    split(choice.pipeline, job.parameters)
    with open_driving(job.driving, start=job.start, end=job.end) as source:
        _check_one_picture(job, source)
        tell("looking for the face", 0, None)
        plan = _plan(job, choice, source)
        tell("loading", 0, None)
        with choice.pipeline.load(plan.load, lambda stage, share: tell(stage, 0, None)) as pipeline:
            reference = pipeline.fuse(plan.framing.image)
            return _animate(plan, source, pipeline, reference, tell)


def _silent(stage: str, done: int, total: int | None) -> None:
    del stage, done, total


def _is_still(source: DrivingSource) -> bool:
    return source.info.frames == 1


def _check_one_picture(job: AnimateJob, source: DrivingSource) -> None:
    if is_picture(job.output) and not _is_still(source) and job.max_frames != 1:
        raise InputError(
            f"{job.output.name} is one picture, but {job.driving.name} has many frames: name the output "
            ".mp4, .mov, .webm or .gif, or take one frame only (--max-frames 1)."
        )


def _plan(job: AnimateJob, choice: registry.Choice, source: DrivingSource) -> _Plan:
    run, load = split(choice.pipeline, job.parameters)
    notes: list[str] = []
    if _is_still(source) and "motion" in choice.pipeline.run_parameters.model_fields and "motion" not in run:
        # Relative to itself, a single frame does not move.
        run["motion"] = "absolute"
        notes.append(f"{job.driving.name} is a still: its pose and expression are taken as they are.")
    checked = build(choice.pipeline.run_parameters, run)
    base = build(choice.pipeline.load_parameters, {"seed": job.seed, **load})
    portrait = read_portrait(job.reference)
    size = _size(job, load, base, portrait.size)
    framing = crop_to_face(portrait, size) if job.crop else whole_picture(portrait, size)
    fps = float(exact_rate(job.fps if job.fps is not None else source.info.fps))
    return _Plan(
        job=job,
        choice=choice,
        portrait=portrait,
        framing=framing,
        load=base.model_copy(update={"width": size[0], "height": size[1]}),
        run=checked,
        fps=fps,
        frames=_expected(job, source, fps),
        notes=(*notes, *portrait.notes),
    )


def _size(job: AnimateJob, load: dict[str, object], checked: LoadParameters, image_size: Size) -> Size:
    """The size to animate at: given as parameters, else the job's square, else the picture's shape."""
    width, height = (job.size, job.size) if job.crop else whole_size(image_size, job.size)
    return (checked.width if "width" in load else width, checked.height if "height" in load else height)


def _expected(job: AnimateJob, source: DrivingSource, fps: float) -> int | None:
    info = source.info
    length = info.duration if info.duration is not None else (info.frames / info.fps if info.frames else None)
    if _is_still(source):
        return 1
    if job.end is not None:
        length = job.end if length is None else min(length, job.end)
    if length is None:
        return job.max_frames
    frames = max(round((length - job.start) * fps), 1)
    return frames if job.max_frames is None else min(frames, job.max_frames)


def _layout(plan: _Plan, source: DrivingSource, reference: Reference) -> Layout:
    still, framing = plan.portrait.image, plan.framing
    height, width = framing.image.shape[:2]
    layout: Layout = InStill(still, framing.box) if plan.job.paste_back else ResultOnly((width, height))
    if plan.job.side_by_side:
        beside = still if plan.job.paste_back else reference.image
        layout = SideBySide(beside, (source.info.width, source.info.height), layout)
    return layout


def _animate(
    plan: _Plan, source: DrivingSource, pipeline: Pipeline[Any, Any], reference: Reference, tell: Progress
) -> Report:
    job, info = plan.job, pipeline.info
    layout = _layout(plan, source, reference)
    sound = job.audio and source.info.has_audio and not is_picture(job.output)
    # A still lasts one frame of the rate that stills have, which at a higher rate would be several.
    limit = 1 if _is_still(source) else job.max_frames
    frames = itertools.islice(resample(source, plan.fps), limit)
    states: Counter[FrameState] = Counter()
    begun = time.perf_counter()
    with ExitStack() as stack:
        session = stack.enter_context(pipeline.open_session(reference, plan.run, seed=job.seed))
        target = stack.enter_context(FrameWriter(job, layout.size, plan.fps, sound, info))

        def finish(driven: Driven) -> None:
            target.write(layout.compose(driven.driving, driven.animated))

        reader = stack.enter_context(Reader(frames, ahead=max(_WAITING_FRAMES, 2 * info.chunk_frames)))
        writer = stack.enter_context(Writer(finish, behind=_WAITING_FRAMES))
        for done, driven in enumerate(drive(session, info, reader)):
            states[driven.state] += 1
            writer.put(driven)
            tell("animating", done + 1, plan.frames)
        tell("finishing", states.total(), states.total())
        writer.finish()
    return Report(
        output=job.output,
        pipeline=info.id,
        pipeline_name=info.name,
        why=plan.choice.why,
        width=layout.size[0],
        height=layout.size[1],
        fps=plan.fps,
        frames=states.total(),
        seconds=time.perf_counter() - begun,
        states=dict(states),
        notes=plan.notes,
        warnings=(
            *pipeline.warnings,
            *plan.framing.warnings,
            *source.warnings,
            *target.warnings,
            *_doubts(states, layout),
        ),
    )


def _doubts(states: Counter[FrameState], layout: Layout) -> list[str]:
    """What the frames' states and size mean for the result, in words."""
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
    if max(layout.size) > _WIDEST_PLAYED:
        found.append(f"The result is {layout.size[0]}×{layout.size[1]}: many players show no more than 4096.")
    return found
