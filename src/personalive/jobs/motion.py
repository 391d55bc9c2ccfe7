"""Jobs on motion files: they extract a clip's motion to a file, and animate a portrait with it."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from personalive.errors import InputError
from personalive.face.choice import FaceChoice, parse_face_choice, parse_reference_face
from personalive.face.crop import ImageSize
from personalive.jobs.animate_job import AnimateJob, ProgressCallback, Report, ignore_progress
from personalive.jobs.background_io import BackgroundWriter
from personalive.jobs.driving_clip import open_driving_clip
from personalive.jobs.output import OutputWriter, check_output_path, is_single_image
from personalive.jobs.plan import check_start, crop_reference, resolve_frame_size
from personalive.jobs.reference_image import read_reference
from personalive.media import Rotation, VideoFrame, VideoReader, exact_rate, resample
from personalive.media.output import check_new_output, check_parent
from personalive.pipelines import registry
from personalive.pipelines.base import AnimatedChunk, FrameState
from personalive.pipelines.diffusion.parameters import PersonaLiveLoadParameters, PersonaLiveRunParameters
from personalive.pipelines.diffusion.pipeline import PersonaLivePipeline
from personalive.pipelines.parameters import build_parameters, split_parameters

if TYPE_CHECKING:
    from personalive.pipelines.diffusion.motion.driving_motion import DrivingMotion
    from personalive.pipelines.diffusion.session import PersonaLiveSession

MOTION_SUFFIX = ".safetensors"
_WRITER_QUEUE_FRAMES = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class ExtractMotionJob:
    """Extracts the motion of the clip `driving`, from `start` to `end` in seconds, to the file `output`.

    `size` is the side of the square, a multiple of 64, at which frames are analyzed: best the size that the motion
    will be animated at. `rotate` is as in `AnimateJob`. `parameters` are load parameters by name.
    """

    driving: Path
    output: Path
    size: int = 512
    start: float = 0.0
    end: float | None = None
    rotate: Rotation = "auto"
    driver_face: str | int = "auto"
    """Which of the clip's faces is followed, as the run parameter of that name."""
    overwrite: bool = False
    parameters: Mapping[str, object] = field(default_factory=dict)

    def check(self) -> None:
        """Raise `InputError` for invalid values, before any file is touched."""
        parse_face_choice(self.driver_face)
        # The checks of an animation apply here too.
        AnimateJob(
            reference=self.driving,
            driving=self.driving,
            output=self.output,
            size=self.size,
            start=self.start,
            end=self.end,
            rotate=self.rotate,
        ).check()
        if self.output.suffix.lower() != MOTION_SUFFIX:
            raise InputError(
                f"{self.output} cannot hold a motion: give it a name that ends in {MOTION_SUFFIX}."
            )
        check_parent(self.output)
        check_new_output(self.output, self.overwrite)


@dataclass(frozen=True, slots=True, kw_only=True)
class AnimateMotionJob:
    """Animates the portrait in the file `reference` with the file `motion`; `output` is as in `AnimateJob`.

    `size`, `crop`, `rotate_reference`, `face`, `face_box`, `seed` and `parameters` have the same meaning as there.
    """

    reference: Path
    motion: Path
    output: Path
    size: int = 512
    crop: bool = True
    rotate_reference: Rotation = "auto"
    face: str | int = "auto"
    face_box: str | None = None
    seed: int = 42
    overwrite: bool = False
    parameters: Mapping[str, object] = field(default_factory=dict)

    @property
    def animate_job(self) -> AnimateJob:
        """The same job with a clip in place of the motion."""
        return AnimateJob(
            reference=self.reference,
            driving=self.motion,
            output=self.output,
            pipeline=registry.DIFFUSION,
            size=self.size,
            crop=self.crop,
            rotate_reference=self.rotate_reference,
            face=self.face,
            face_box=self.face_box,
            audio=False,
            seed=self.seed,
            overwrite=self.overwrite,
            parameters=self.parameters,
        )


def extract_motion(job: ExtractMotionJob, progress: ProgressCallback | None = None) -> DrivingMotion:
    """Extract the motion of the clip, write it, and return it. `progress` is called in this thread.

    Raises `InputError` or a subclass for what cannot be used, `PipelineUnavailableError` where the pipeline cannot
    run here. After an exception, nothing is written.
    """
    tell = progress or ignore_progress
    job.check()
    registry.choose_pipeline(registry.DIFFUSION, job.parameters)
    load = build_parameters(
        PersonaLiveLoadParameters,
        {"width": job.size, "height": job.size, **_require_load_parameters(job.parameters)},
    )
    choice = parse_face_choice(job.driver_face)
    driver = open_driving_clip(job.driving, start=job.start, end=job.end, rotation=job.rotate, choice=choice)
    with driver.source as source:
        check_start(source, job.start)
        for word in (*driver.notes, *driver.warnings):
            tell(word, 0, None)
        tell("loading", 0, None)
        with PersonaLivePipeline.load(load, lambda stage, share: tell(stage, 0, None)) as pipeline:
            motion = extract_from_source(pipeline, source, tell, choice=choice)
    check_new_output(job.output, job.overwrite)  # another process may have made it meanwhile
    motion.save(job.output)
    return motion


def extract_from_source(
    pipeline: PersonaLivePipeline,
    source: VideoReader,
    progress: ProgressCallback | None = None,
    *,
    choice: FaceChoice | None = None,
) -> DrivingMotion:
    """Extract the motion of an open clip, at the clip's average rate, as an animation with it would.

    `choice`: which of its faces is followed.

    Raises `InputError` for a clip without a frame or without a face.
    """
    fps = float(exact_rate(source.info.fps))
    frames = _with_progress(resample(source, fps), progress or ignore_progress)
    return pipeline.extract_motion(frames, fps, choice)


def animate_motion(job: AnimateMotionJob, progress: ProgressCallback | None = None) -> Report:
    """Run the job and return its report. `progress` is called in this thread.

    Raises `InputError` or a subclass for what cannot be used, `PipelineUnavailableError` where the pipeline cannot
    run here. After an exception the output is as it was before.
    """
    tell, animation = progress or ignore_progress, job.animate_job
    animation.check()
    check_output_path(job.output, job.overwrite)
    pipeline_class = registry.choose_pipeline(registry.DIFFUSION, job.parameters).pipeline
    run, load = split_parameters(pipeline_class, job.parameters)
    checked = build_parameters(PersonaLiveRunParameters, run)
    base = build_parameters(PersonaLiveLoadParameters, {"seed": job.seed, **load})
    motion = _read_motion(job)
    tell("looking for the face", 0, None)
    face, face_box = parse_reference_face(job.face, job.face_box)
    portrait = read_reference(job.reference, job.rotate_reference, choice=face, face_box=face_box)
    width, height = size = resolve_frame_size(animation, load, base, portrait.size)
    framing = crop_reference(animation, portrait, size)
    tell("loading", 0, None)
    sized = base.model_copy(update={"width": width, "height": height})
    with PersonaLivePipeline.load(sized, lambda stage, share: tell(stage, 0, None)) as pipeline:
        reference = pipeline.fuse(framing.image, face_box=framing.face_box)
        with pipeline.open_session(reference, checked, seed=job.seed) as session:
            states, seconds, warnings = _write_frames(
                animation, motion, session, (width, height), sized.temporal_window_size, tell
            )
        return Report(
            output=job.output,
            pipeline=pipeline.info.id,
            pipeline_name=pipeline.info.name,
            why="no other can use motion files",
            width=width,
            height=height,
            fps=float(exact_rate(motion.fps)),
            frames=states.total(),
            seconds=seconds,
            states=dict(states),
            notes=portrait.notes,
            warnings=(*pipeline.warnings, *framing.warnings, *warnings, *_quality_warnings(states)),
        )


def iter_motion_frames(
    session: PersonaLiveSession, motion: DrivingMotion, chunk_frames: int
) -> Iterator[AnimatedChunk]:
    """Step a new session through a motion and flush it; yield one frame for each of the motion's, in order.

    The last chunk is filled up by repeating its last frame; the results of the repeats and the transition at the
    beginning are left out. Raises `InputError` for a motion that other weights extracted.
    """
    left = len(motion)
    for chunk in _step_motion(session, motion, chunk_frames):
        kept = [k for k, state in enumerate(chunk.states) if state is not FrameState.TRANSITION][:left]
        left -= len(kept)
        if kept:
            states = tuple(chunk.states[k] for k in kept)
            yield AnimatedChunk(chunk.images[kept], chunk.times[kept], states)


def _step_motion(
    session: PersonaLiveSession, motion: DrivingMotion, chunk_frames: int
) -> Iterator[AnimatedChunk]:
    for begin in range(0, len(motion), chunk_frames):
        part = motion.select(slice(begin, begin + chunk_frames))
        yield session.step_motion(part.pad(chunk_frames))
    if (rest := session.flush()) is not None:
        yield rest


def _write_frames(
    job: AnimateJob,
    motion: DrivingMotion,
    session: PersonaLiveSession,
    size: ImageSize,
    chunk_frames: int,
    tell: ProgressCallback,
) -> tuple[Counter[FrameState], float, list[str]]:
    """Return the states of the written frames, the seconds that they took, and the writer's warnings."""
    states: Counter[FrameState] = Counter()
    begun = time.perf_counter()
    fps = float(exact_rate(motion.fps))
    with ExitStack() as stack:
        target = stack.enter_context(OutputWriter(job, size, fps, False, PersonaLivePipeline.info))
        writer = stack.enter_context(BackgroundWriter(target.write, behind=_WRITER_QUEUE_FRAMES))
        tell("animating", 0, len(motion))
        for chunk in iter_motion_frames(session, motion, chunk_frames):
            for image, state in zip(chunk.images, chunk.states, strict=True):
                states[state] += 1
                writer.put(image)
                tell("animating", states.total(), len(motion))
        tell("finishing", states.total(), states.total())
        writer.finish()
    return states, time.perf_counter() - begun, target.warnings


def _read_motion(job: AnimateMotionJob) -> DrivingMotion:
    from personalive.pipelines.diffusion.motion.driving_motion import DrivingMotion

    motion = DrivingMotion.load(job.motion)
    if is_single_image(job.output) and len(motion) > 1:
        raise InputError(
            f"{job.output.name} is one picture, but {job.motion.name} has {len(motion)} frames: name the output "
            ".mp4, .mov, .webm or .gif."
        )
    return motion


def _require_load_parameters(given: Mapping[str, object]) -> dict[str, object]:
    """Return the parameters. Raises `InputError` for run parameters, on which a motion does not depend."""
    run, load = split_parameters(PersonaLivePipeline, given)
    if run:
        raise InputError(
            f"{next(iter(run))} is a parameter for animating with a motion, not for extracting it."
        )
    return load


def _with_progress(frames: Iterable[VideoFrame], tell: ProgressCallback) -> Iterator[VideoFrame]:
    for done, frame in enumerate(frames):
        yield frame
        tell("looking at the driver", done + 1, None)


def _quality_warnings(states: Counter[FrameState]) -> list[str]:
    """Return warnings about the result that follow from the frames' states."""
    without = states[FrameState.WAITING] + states[FrameState.HELD]
    if not without:
        return []
    return [
        f"No face was found in {without} of {states.total()} frames of the clip: the still portrait or the last "
        "motion is shown there."
    ]
