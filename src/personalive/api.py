"""The diffusion pipeline from Python: takes frames as they arrive, returns animated frames.

    with personalive.PersonaLive.from_pretrained() as live:
        with live.session(live.fuse("portrait.jpg")) as session:
            for picture in camera:
                show(session.step(picture).images)

A `PersonaLive` holds the networks and may have many sessions; each session animates one reference by one driver.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from personalive.closing import Closing
from personalive.errors import InputError, SessionClosedError
from personalive.face.choice import parse_face_choice, parse_reference_face
from personalive.image_inputs import FilePath, ImageInput, to_frames, to_reference, to_rgb
from personalive.jobs import AnimateJob, ProgressCallback, Report, run
from personalive.jobs.driving_clip import open_driving_clip
from personalive.jobs.motion import extract_from_source, iter_motion_frames
from personalive.jobs.reference_image import crop_to_face
from personalive.media import Image, Rotation
from personalive.media.rotation import check_rotation, rotate_image
from personalive.media.types import Frames
from personalive.pipelines.base import AnimatedChunk, FrameChunk, FrameState
from personalive.pipelines.diffusion.parameters import PersonaLiveLoadParameters, PersonaLiveRunParameters
from personalive.pipelines.diffusion.pipeline import PersonaLivePipeline
from personalive.pipelines.parameters import build_parameters, build_run_parameters, split_parameters

if TYPE_CHECKING:
    from personalive.pipelines.diffusion.motion.driving_motion import DrivingMotion
    from personalive.pipelines.diffusion.sampling.reference import FusedReference
    from personalive.pipelines.diffusion.session import PersonaLiveSession

Dtype = Literal["auto", "float32", "float16", "bfloat16", "float8"]

_DEFAULT_FRAME_SECONDS = 1 / 25
"""Time between frames whose times are not given, in seconds."""


class PersonaLive(Closing):
    """The loaded diffusion pipeline. Close it when done, or use it in a `with` block."""

    def __init__(self, pipeline: PersonaLivePipeline) -> None:
        """Use a pipeline that is loaded already, and close it in `close`; `from_pretrained` loads one."""
        self._pipeline = pipeline

    @classmethod
    def from_pretrained(
        cls,
        directory: FilePath | None = None,
        *,
        device: str = "auto",
        dtype: Dtype = "auto",
        **parameters: Any,
    ) -> Self:
        """Load the weights in `directory`, by default those that `personalive download` downloaded.

        `device`: auto, cpu, cuda, cuda:1 or mps. `dtype`: the networks' floating type; auto is float16 on a GPU
        and float32 elsewhere. `parameters`: any other of `PersonaLiveLoadParameters`, such as `width` and
        `height` of the animated frames, `seed` and `latency`.

        Raises `PipelineUnavailableError` where a library or the weights are missing, `WeightsError` for weights
        that cannot be loaded, `InputError` for a parameter that is unknown or out of bounds.
        """
        given = {**parameters, "device": device, "dtype": dtype}
        if directory is not None:
            given["weights"] = Path(directory)
        return cls(PersonaLivePipeline.load(build_parameters(PersonaLiveLoadParameters, given)))

    @property
    def parameters(self) -> PersonaLiveLoadParameters:
        """The load parameters."""
        return self._pipeline.parameters

    @property
    def warnings(self) -> tuple[str, ...]:
        """What may be wrong with the results as the pipeline was loaded, one sentence each."""
        return self._pipeline.warnings

    def fuse(
        self,
        image: ImageInput,
        *,
        crop: bool = True,
        rotate: Rotation = "auto",
        face: str | int = "auto",
        face_box: str | Sequence[float] | None = None,
    ) -> FusedReference:
        """Prepare a portrait. The result is immutable, for any number of sessions.

        `image`: the path of a picture, or with `crop` of a video whose first frame with a face is taken; a Pillow
        image; or uint8 RGB (height, width, 3), any size. `crop`: cut it to head and shoulders; otherwise the whole
        picture is resized to the loaded size, without keeping its aspect. `rotate`: how far it is turned clockwise,
        0, 90, 180 or 270 degrees; "auto" turns the face upright, but only with `crop`, `face` or `face_box`.
        `face`: which one of several, "left", "right", "largest", its number from the left, or "x,y" in pixels.
        `face_box`: where the face is, x, y, width and height in pixels, for one that is not found: a painting, a
        cartoon, an animal.

        Raises `NoFaceError` where no face is found, `FaceChoiceError` where one of several must be chosen,
        `MediaError` for a file that cannot be read, `InputError` for an array of another shape or dtype.
        """
        check_rotation(rotate)
        choice, box = parse_reference_face(face, face_box)
        if not crop and box is None and choice.is_auto:
            return self._pipeline.fuse(rotate_image(to_rgb(image), 0 if rotate == "auto" else rotate))
        size = (self.parameters.width, self.parameters.height)
        portrait = to_reference(image, rotate, choice=choice, face_box=box)
        if not crop:
            return self._pipeline.fuse(portrait.image, face_box=portrait.face.box)
        framing = crop_to_face(portrait, size)
        return self._pipeline.fuse(framing.image, face_box=framing.face_box)

    def session(
        self, reference: FusedReference, *, seed: int | None = None, **run_parameters: Any
    ) -> LiveSession:
        """Open a session that animates `reference`.

        `seed` defaults to the loaded one: the same seed and frames give the same result. `run_parameters` are
        fields of `PersonaLiveRunParameters`, such as `expression` and `pose`.

        Raises `InputError` for a parameter that is unknown or out of bounds, and for a reference that another
        pipeline fused.
        """
        checked = build_run_parameters(PersonaLiveRunParameters, run_parameters)
        return LiveSession(self._pipeline.open_session(reference, checked, seed=seed), self.parameters)

    def animate(
        self,
        reference: FilePath,
        driving: FilePath,
        out: FilePath,
        *,
        progress: ProgressCallback | None = None,
        **options: Any,
    ) -> Report:
        """Animate the portrait in the file `reference` with the clip `driving` and write `out`.

        The size and all other load parameters are those of this pipeline. `options` and `progress` are those of
        `personalive.animate`, except `pipeline` and `size`; its `parameters` may be run parameters only.

        Raises a `PersonaLiveError`: its message says what cannot be used and what to do; `TypeError` for an
        unknown option.
        """
        loaded = self.parameters.model_dump()
        seed = options.pop("seed", loaded.pop("seed"))
        run_parameters, fixed = split_parameters(type(self._pipeline), options.pop("parameters", {}))
        if fixed:
            raise InputError(
                f"{next(iter(fixed))} is chosen when the pipeline is loaded: see from_pretrained."
            )
        job = AnimateJob(
            reference=Path(reference),
            driving=Path(driving),
            output=Path(out),
            pipeline=self._pipeline.info.id,
            seed=seed,
            parameters=loaded | run_parameters,
            **options,
        )
        return run(job, progress, pipeline=self._pipeline)

    def extract_motion(
        self,
        driving: FilePath,
        *,
        start: float = 0.0,
        end: float | None = None,
        rotate: Rotation = "auto",
        driver_face: str | int = "auto",
    ) -> DrivingMotion:
        """Extract the motion of the clip `driving` from `start` to `end`, in seconds, for any reference.

        `rotate`: how far the clip is turned clockwise, 0, 90, 180 or 270 degrees; "auto" turns its face upright.
        `driver_face`: which of its faces is followed, as the run parameter of that name.

        Save the motion with its `save(path)` and read it with `DrivingMotion.load(path)`.

        Raises `MediaError` for a file that cannot be read, `InputError` for a clip without a frame or a face.
        """
        check_rotation(rotate)
        choice = parse_face_choice(driver_face)
        clip = open_driving_clip(Path(driving), start=start, end=end, rotation=rotate, choice=choice)
        with clip.source as source:
            return extract_from_source(self._pipeline, source, choice=choice)

    def close(self) -> None:
        """Release the networks. Close the sessions first. May be called twice."""
        self._pipeline.close()


class LiveSession(Closing):
    """One driver animating one reference, a few frames at a time. Not thread-safe.

    The output trails the input by `delay_frames`, and frames wait until there is a whole chunk of them. The first
    `delay_frames` output frames are a transition from the reference's own pose to the driver's; they show no
    driving frame, and their state is `FrameState.TRANSITION`. After them comes one frame for each driving frame.
    """

    def __init__(self, session: PersonaLiveSession, loaded: PersonaLiveLoadParameters) -> None:
        """Use an open session; `PersonaLive.session` opens one."""
        self._session: PersonaLiveSession | None = session
        self._load_parameters = loaded
        self._images: list[Image] = []
        self._times: list[float] = []
        self._last_time: float | None = None

    @property
    def parameters(self) -> PersonaLiveRunParameters:
        """The current run parameters."""
        return self._require_open().parameters

    @property
    def chunk_frames(self) -> int:
        """How many frames are animated together."""
        return self._load_parameters.temporal_window_size

    @property
    def delay_frames(self) -> int:
        """By how many frames the output trails the input, not counting frames that wait for their chunk."""
        return self._load_parameters.delay_frames

    def step(self, frames: Frames | Image, times: ArrayLike | None = None) -> AnimatedChunk:
        """Animate driving frames and return the frames that are ready: any number, also none.

        `frames`: uint8 RGB (frames, height, width, 3), or one (height, width, 3), of any size from 16 pixels on
        that is the same for all frames of a chunk. `times`: their timestamps in seconds, which never decrease;
        by default each comes 1/25 s after the one before.

        Raises `InputError` for frames or times of another shape or dtype, `SessionClosedError` after `close`.
        """
        session = self._require_open()
        images = to_frames(frames)
        stamps = self._resolve_times(len(images), times)
        if len({image.shape for image in (*self._images, *images)}) > 1:
            raise InputError(
                "Driving frames of one chunk must have the same size: flush or reset before another size."
            )
        self._images += images
        self._times += stamps
        self._last_time = stamps[-1] if stamps else self._last_time
        chunks = []
        while len(self._images) >= self.chunk_frames:
            chunks.append(session.step(self._pop_chunk()))
        return self._concatenate(chunks)

    def step_motion(self, motion: DrivingMotion) -> AnimatedChunk:
        """Animate `chunk_frames` frames of a motion from `PersonaLive.extract_motion`, as `step` does frames.

        Raises `InputError` for another number of frames, for a motion that other weights extracted, and while
        frames given to `step` wait for their chunk; `SessionClosedError` after `close`.
        """
        session = self._require_open()
        if self._images:
            raise InputError(f"{len(self._images)} driving frames wait for their chunk: flush them first.")
        return session.step_motion(motion)

    def drive(self, motion: DrivingMotion) -> Iterator[AnimatedChunk]:
        """Animate a whole motion from its start, as a new session would; yield one frame for each of its frames.

        The transition is left out. Raises the errors of `step_motion`.
        """
        self.reset()
        return iter_motion_frames(self._require_open(), motion, self.chunk_frames)

    def flush(self) -> AnimatedChunk:
        """End the driver and return the frames that are still held back. The session is as new afterwards.

        Raises `SessionClosedError` after `close`.
        """
        session, waiting = self._require_open(), len(self._images)
        chunks, padding = [], -waiting % self.chunk_frames
        if waiting:
            # Chunks must be whole: the last frame is repeated, and the results of the repeats are dropped.
            self._images += [self._images[-1]] * padding
            later = range(1, padding + 1)
            self._times += [self._times[-1] + k * _DEFAULT_FRAME_SECONDS for k in later]
            chunks.append(session.step(self._pop_chunk()))
        rest = session.flush()
        whole = self._concatenate(chunks if rest is None else [*chunks, rest])
        self.reset()
        count = len(whole) - padding
        return AnimatedChunk(whole.images[:count], whole.times[:count], whole.states[:count])

    def update(self, **run_parameters: Any) -> None:
        """Change run parameters from the next chunk on; those not named stay.

        Raises `InputError` for one that is unknown or out of bounds, and then changes none.
        """
        session = self._require_open()
        session.update(build_run_parameters(PersonaLiveRunParameters, run_parameters, session.parameters))

    def switch_reference(self, reference: FusedReference) -> None:
        """Animate another reference from the next chunk on; frames of the old one that are held back are dropped.

        Raises `InputError` for a reference of another size or pipeline.
        """
        self._require_open().switch_reference(reference)

    def reset(self) -> None:
        """Forget the driver and waiting frames: the next step is like the first of a new session."""
        self._require_open().reset()
        self._images, self._times, self._last_time = [], [], None

    def close(self) -> None:
        """Release what the session holds. May be called twice."""
        if self._session is not None:
            self._session.close()
            self._session = None
        self._images = []

    def _require_open(self) -> PersonaLiveSession:
        if self._session is None:
            raise SessionClosedError("This session is closed.")
        return self._session

    def _resolve_times(self, count: int, times: ArrayLike | None) -> list[float]:
        last = self._last_time
        if times is None:
            begin = 0.0 if last is None else last + _DEFAULT_FRAME_SECONDS
            return [begin + k * _DEFAULT_FRAME_SECONDS for k in range(count)]
        stamps: NDArray[np.float64] = np.atleast_1d(np.asarray(times, np.float64))
        if stamps.shape != (count,):
            raise InputError(f"{count} frames need as many times, not an array of shape {stamps.shape}.")
        line = stamps if last is None else np.array([last, *stamps])
        if not np.isfinite(line).all() or (np.diff(line) < 0).any():
            raise InputError("Times must be finite numbers of seconds that never decrease.")
        return [float(stamp) for stamp in stamps]

    def _pop_chunk(self) -> FrameChunk:
        """Remove and return the next chunk of the waiting frames."""
        size = self.chunk_frames
        chunk = FrameChunk(np.stack(self._images[:size]), np.array(self._times[:size], np.float64))
        del self._images[:size], self._times[:size]
        return chunk

    def _concatenate(self, chunks: list[AnimatedChunk]) -> AnimatedChunk:
        nothing = np.empty((0, self._load_parameters.height, self._load_parameters.width, 3), np.uint8)
        states: tuple[FrameState, ...] = sum((chunk.states for chunk in chunks), ())
        times = np.concatenate([np.empty(0), *(chunk.times for chunk in chunks)])
        return AnimatedChunk(np.concatenate([nothing, *(chunk.images for chunk in chunks)]), times, states)
