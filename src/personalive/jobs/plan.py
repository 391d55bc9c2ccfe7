"""A job thought through: every choice made, every parameter checked, before anything heavy begins."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from personalive.face.crop import Size
from personalive.jobs.animate_job import AnimateJob
from personalive.jobs.driving_clip import Driver
from personalive.jobs.layouts import InStill, Layout, ResultOnly, SideBySide
from personalive.jobs.output import is_picture
from personalive.jobs.reference_image import (
    Framing,
    Portrait,
    crop_to_face,
    read_portrait,
    whole_picture,
    whole_size,
)
from personalive.media import DrivingSource, VideoFrame, exact_rate, resample
from personalive.pipelines import registry
from personalive.pipelines.base import LoadParameters, Reference, RunParameters
from personalive.pipelines.parameters import build, split


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """A job with every choice made and every parameter checked.

    `fps` is the output's rate, `frames` how many there will be, if that is known; `sound` whether the driving
    clip's comes along; `turn` by how many degrees clockwise the clip's frames are turned.
    """

    job: AnimateJob
    choice: registry.Choice
    portrait: Portrait
    framing: Framing
    load: LoadParameters
    run: RunParameters
    fps: float
    frames: int | None
    sound: bool
    turn: int
    notes: tuple[str, ...]
    warnings: tuple[str, ...]


def is_still(source: DrivingSource) -> bool:
    """Whether the driving clip is one picture."""
    return source.info.frames == 1


def check_start(source: DrivingSource, start: float) -> None:
    """Raise `MediaError`, with the clip's length, where there is nothing from `start` (seconds) on to be read."""
    if start > 0:
        next(iter(source))


def make_plan(job: AnimateJob, choice: registry.Choice, driver: Driver) -> Plan:
    """Choose and check everything for a job. Raises `InputError` and its kin for what cannot be used."""
    run, load = split(choice.pipeline, job.parameters)
    source = driver.source
    notes = list(driver.notes)
    if is_still(source) and "motion" in choice.pipeline.run_parameters.model_fields and "motion" not in run:
        # Relative to itself, a single frame does not move.
        run["motion"] = "absolute"
        notes.append(f"{job.driving.name} is a still: its pose and expression are taken as they are.")
    checked = build(choice.pipeline.run_parameters, run)
    base = build(choice.pipeline.load_parameters, {"seed": job.seed, **load})
    portrait = read_portrait(job.reference, job.rotate_reference)
    size = frame_size(job, load, base, portrait.size)
    framing = frame_portrait(job, portrait, size)
    carried = job.audio and not is_picture(job.output)
    if carried:
        notes.extend(source.info.sound_notes)
    fps = float(exact_rate(job.fps if job.fps is not None else source.info.fps))
    return Plan(
        job=job,
        choice=choice,
        portrait=portrait,
        framing=framing,
        load=base.model_copy(update={"width": size[0], "height": size[1]}),
        run=checked,
        fps=fps,
        frames=_expected(job, source, fps),
        sound=carried and source.info.has_audio,
        turn=driver.turn,
        notes=(*notes, *portrait.notes),
        warnings=(*driver.warnings, *framing.warnings),
    )


def frame_size(
    job: AnimateJob, given: Mapping[str, object], checked: LoadParameters, image_size: Size
) -> Size:
    """The size to animate at: `given` as parameters, else the job's square, else the picture's shape."""
    width, height = (job.size, job.size) if job.crop else whole_size(image_size, job.size)
    return (checked.width if "width" in given else width, checked.height if "height" in given else height)


def frame_portrait(job: AnimateJob, portrait: Portrait, size: Size) -> Framing:
    """The part of the portrait that the job animates, at that size."""
    return crop_to_face(portrait, size) if job.crop else whole_picture(portrait, size)


def _expected(job: AnimateJob, source: DrivingSource, fps: float) -> int | None:
    info = source.info
    length = info.duration if info.duration is not None else (info.frames / info.fps if info.frames else None)
    if is_still(source):
        return 1
    if job.end is not None:
        length = job.end if length is None else min(length, job.end)
    if length is None:
        return job.max_frames
    frames = max(round((length - job.start) * fps), 1)
    return frames if job.max_frames is None else min(frames, job.max_frames)


def driving_frames(plan: Plan, source: DrivingSource) -> Iterator[VideoFrame]:
    """The driving frames at the output's rate: frame i is the one shown by output frame i."""
    # A still lasts one frame of the rate that stills have, which at a higher rate would be several.
    limit = 1 if is_still(source) else plan.job.max_frames
    return itertools.islice(resample(source, plan.fps), limit)


def make_layout(plan: Plan, source: DrivingSource, reference: Reference) -> Layout:
    """What the job's frames show."""
    still, framing = plan.portrait.image, plan.framing
    height, width = framing.image.shape[:2]
    layout: Layout = InStill(still, framing.box) if plan.job.paste_back else ResultOnly((width, height))
    if plan.job.side_by_side:
        beside = still if plan.job.paste_back else reference.image
        layout = SideBySide(beside, (source.info.width, source.info.height), layout)
    return layout
