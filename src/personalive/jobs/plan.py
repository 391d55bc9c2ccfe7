"""The plan of a job: every choice made and every parameter checked before expensive work begins."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

from personalive.face.choice import parse_reference_face
from personalive.face.crop import ImageSize
from personalive.jobs.animate_job import AnimateJob
from personalive.jobs.driving_clip import DrivingClip
from personalive.jobs.layouts import Layout, PasteBackLayout, ResultLayout, SideBySideLayout
from personalive.jobs.output import is_single_image
from personalive.jobs.reference_image import (
    ReferenceCrop,
    ReferenceImage,
    crop_to_face,
    fit_whole_image,
    read_reference,
    size_for_aspect,
)
from personalive.media import VideoFrame, VideoReader, exact_rate, resample
from personalive.pipelines import registry
from personalive.pipelines.base import LoadParameters, Reference, RunParameters
from personalive.pipelines.parameters import build_parameters, split_parameters


@dataclass(frozen=True, slots=True, eq=False)
class AnimatePlan:
    """A job with every choice made and every parameter checked.

    `fps` is the output's rate, `frames` its number of frames, if known; `with_audio`: whether it gets the driving
    clip's sound; `rotation_degrees`: by how many degrees clockwise the clip's frames are turned.
    """

    job: AnimateJob
    pipeline_choice: registry.PipelineChoice
    reference: ReferenceImage
    crop: ReferenceCrop
    load_parameters: LoadParameters
    run_parameters: RunParameters
    fps: float
    frames: int | None
    with_audio: bool
    rotation_degrees: int
    notes: tuple[str, ...]
    warnings: tuple[str, ...]


def is_still(source: VideoReader) -> bool:
    """Return whether the driving clip is a single picture."""
    return source.info.frames == 1


def check_start(source: VideoReader, start: float) -> None:
    """Raise `MediaError`, with the clip's length, where nothing can be read from `start` (seconds) on."""
    if start > 0:
        next(iter(source))


def make_plan(job: AnimateJob, choice: registry.PipelineChoice, driver: DrivingClip) -> AnimatePlan:
    """Choose and check everything for a job. Raises `InputError` or a subclass for what cannot be used."""
    run, load = split_parameters(choice.pipeline, job.parameters)
    source = driver.source
    notes = list(driver.notes)
    if is_still(source) and "motion" in choice.pipeline.run_parameters.model_fields and "motion" not in run:
        # Relative to itself, a single frame does not move.
        run["motion"] = "absolute"
        notes.append(f"{job.driving.name} is a still: its pose and expression are taken as they are.")
    checked = build_parameters(choice.pipeline.run_parameters, run)
    base = build_parameters(choice.pipeline.load_parameters, {"seed": job.seed, **load})
    face, face_box = parse_reference_face(job.face, job.face_box)
    portrait = read_reference(job.reference, job.rotate_reference, choice=face, face_box=face_box)
    size = resolve_frame_size(job, load, base, portrait.size)
    framing = crop_reference(job, portrait, size)
    carried = job.audio and not is_single_image(job.output)
    if carried:
        notes.extend(source.info.sound_notes)
    fps = float(exact_rate(job.fps if job.fps is not None else source.info.fps))
    return AnimatePlan(
        job=job,
        pipeline_choice=choice,
        reference=portrait,
        crop=framing,
        load_parameters=base.model_copy(update={"width": size[0], "height": size[1]}),
        run_parameters=checked,
        fps=fps,
        frames=_count_frames(job, source, fps),
        with_audio=carried and source.info.has_audio,
        rotation_degrees=driver.rotation_degrees,
        notes=(*notes, *portrait.notes),
        warnings=(*driver.warnings, *framing.warnings),
    )


class FramingOptions(Protocol):
    """The part of a job that decides which part of the portrait is animated, and at which size."""

    @property
    def size(self) -> int:
        """Side of the animated square in pixels; without `crop`, the shorter side."""

    @property
    def crop(self) -> bool:
        """Whether the portrait is cut to head and shoulders."""


def resolve_frame_size(
    job: FramingOptions, given: Mapping[str, object], checked: LoadParameters, image_size: ImageSize
) -> ImageSize:
    """Return the size to animate at: `given` as parameters, else the job's square, else the picture's aspect."""
    width, height = (job.size, job.size) if job.crop else size_for_aspect(image_size, job.size)
    return (checked.width if "width" in given else width, checked.height if "height" in given else height)


def crop_reference(job: FramingOptions, portrait: ReferenceImage, size: ImageSize) -> ReferenceCrop:
    """Return the part of the portrait that the job animates, at that size."""
    return crop_to_face(portrait, size) if job.crop else fit_whole_image(portrait, size)


def _count_frames(job: AnimateJob, source: VideoReader, fps: float) -> int | None:
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


def read_driving_frames(plan: AnimatePlan, source: VideoReader) -> Iterator[VideoFrame]:
    """Yield the driving frames at the output's rate: frame i drives output frame i."""
    # A still lasts one frame at the rate of stills, which would be several frames at a higher rate.
    limit = 1 if is_still(source) else plan.job.max_frames
    return itertools.islice(resample(source, plan.fps), limit)


def make_layout(plan: AnimatePlan, source: VideoReader, reference: Reference) -> Layout:
    """Return the layout of the job's frames."""
    still, framing = plan.reference.image, plan.crop
    height, width = framing.image.shape[:2]
    layout: Layout = (
        PasteBackLayout(still, framing.box) if plan.job.paste_back else ResultLayout((width, height))
    )
    if plan.job.side_by_side:
        beside = still if plan.job.paste_back else reference.image
        layout = SideBySideLayout(beside, (source.info.width, source.info.height), layout)
    return layout
