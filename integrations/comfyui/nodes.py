"""The nodes. Two are generated for every registered pipeline: its loader and its run parameters.

Inputs that have defaults are optional, so that saved prompts run after more are added.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from personalive.errors import InputError
from personalive.face.choice import parse_face_choice
from personalive.face.face import Box
from personalive.jobs.motion import iter_motion_frames
from personalive.jobs.reference_image import crop_to_face, detect_reference, fit_whole_image
from personalive.jobs.session_runner import prefetch_frames, run_session
from personalive.media import Image, VideoFrame
from personalive.pipelines import registry
from personalive.pipelines.base import Pipeline, RunParameters, Session
from personalive.pipelines.diffusion.pipeline import PersonaLivePipeline
from personalive.pipelines.fusing import fuse_reference
from personalive.pipelines.parameters import build_parameters
from personalive.pipelines.registry import AnyPipeline

from .managed_pipeline import ManagedPipeline, plain_tensors
from .progress import FrameProgress
from .schema_inputs import InputSpec, build_inputs, read_inputs
from .tensors import FrameCollector, check_images, iter_video_frames, to_portrait

if TYPE_CHECKING:
    from personalive.pipelines.diffusion.motion.driving_motion import DrivingMotion

CATEGORY = "PersonaLive"
PIPELINE, REFERENCE, MOTION, PARAMETERS = (
    "PERSONALIVE_PIPELINE",
    "PERSONALIVE_REFERENCE",
    "PERSONALIVE_MOTION",
    "PERSONALIVE_PARAMETERS",
)
_PREFETCHED_FRAMES = 8
_SEED = "seed"
_NOT_LOADED_WITH = frozenset({_SEED, "batch_sessions"})
"""Load parameters that a loader has no input for: animating nodes have the seed, and one session runs at a time."""

Inputs = dict[str, dict[str, InputSpec | tuple[str]]]
_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class PortraitReference:
    """A portrait as a pipeline of that size takes it, uint8 RGB (height, width, 3).

    `face_box` is where its face is, in pixels, where somebody has chosen it.
    It holds no tensor of the pipeline, which ComfyUI may unload: a loaded pipeline remembers what it has fused.
    """

    image: Image
    face_box: Box | None = None

    def fuse(self, managed: ManagedPipeline, pipeline: Pipeline[Any, Any]) -> Any:
        """Return the fused reference. Raises `InputError` for a pipeline of another size."""
        height, width = self.image.shape[:2]
        size = managed.parameters
        if (width, height) != (size.width, size.height):
            raise InputError(
                f"The reference was made for frames of {width}×{height} and this pipeline makes {size.width}×"
                f"{size.height}: connect the same pipeline to Fuse Reference."
            )
        return fuse_reference(pipeline, self.image, self.face_box)


def make_loader(pipeline: AnyPipeline) -> type:
    """Return the node class that loads a pipeline; its inputs are the pipeline's load parameters."""

    class PipelineLoader:
        CATEGORY: ClassVar[str] = CATEGORY
        DESCRIPTION: ClassVar[str] = pipeline.info.description
        RETURN_TYPES: ClassVar[tuple[str, ...]] = (PIPELINE,)
        RETURN_NAMES: ClassVar[tuple[str, ...]] = ("pipeline",)
        FUNCTION: ClassVar[str] = "load"

        @classmethod
        def INPUT_TYPES(cls) -> Inputs:
            return {"optional": {**build_inputs(pipeline.load_parameters, _NOT_LOADED_WITH)}}

        def load(self, **values: object) -> tuple[ManagedPipeline]:
            given = read_inputs(pipeline.load_parameters, values)
            registry.choose_pipeline(pipeline.info.id, given)
            managed = ManagedPipeline(pipeline, build_parameters(pipeline.load_parameters, given))
            managed.load()
            return (managed,)

    return PipelineLoader


def make_parameters(pipeline: AnyPipeline) -> type:
    """Return the node class that makes a pipeline's run parameters."""

    class PipelineParameters:
        CATEGORY: ClassVar[str] = CATEGORY
        DESCRIPTION: ClassVar[str] = f"How motion is transferred by the pipeline: {pipeline.info.name}."
        RETURN_TYPES: ClassVar[tuple[str, ...]] = (PARAMETERS,)
        RETURN_NAMES: ClassVar[tuple[str, ...]] = ("parameters",)
        FUNCTION: ClassVar[str] = "build"

        @classmethod
        def INPUT_TYPES(cls) -> Inputs:
            return {"optional": {**build_inputs(pipeline.run_parameters)}}

        def build(self, **values: object) -> tuple[RunParameters]:
            given = read_inputs(pipeline.run_parameters, values)
            return (build_parameters(pipeline.run_parameters, given),)

    return PipelineParameters


class FuseReference:
    """Finds the face in a picture, cuts the picture as the pipeline needs it, and fuses it."""

    CATEGORY = CATEGORY
    DESCRIPTION = "Prepare the portrait that is animated. `image` is what the pipeline sees of it."
    RETURN_TYPES = (REFERENCE, "IMAGE")
    RETURN_NAMES = ("reference", "image")
    FUNCTION = "fuse"

    @classmethod
    def INPUT_TYPES(cls) -> Inputs:
        crop = (
            "Cut the picture to head and shoulders; otherwise take as much of it as the frames' shape allows."
        )
        face = "Which of several faces: left, right, largest, its number from the left, or x,y in pixels."
        return {
            "required": {
                "pipeline": (PIPELINE,),
                "image": ("IMAGE", {"tooltip": "The portrait; of several pictures the first is taken."}),
                "crop": ("BOOLEAN", {"default": True, "tooltip": crop}),
            },
            "optional": {
                "face": ("STRING", {"default": "auto", "tooltip": face}),
                "mask": (
                    "MASK",
                    {"tooltip": "What it covers becomes white, such as a transparent background."},
                ),
            },
        }

    def fuse(
        self,
        pipeline: ManagedPipeline,
        image: torch.Tensor,
        crop: bool,
        face: str = "auto",
        mask: torch.Tensor | None = None,
    ) -> tuple[PortraitReference, torch.Tensor]:
        """Run the node.

        Raises `NoFaceError` for a picture without a face, `FaceChoiceError` where one of several must be chosen.
        """
        portrait = detect_reference(to_portrait(image, mask), choice=parse_face_choice(face))
        size = (pipeline.parameters.width, pipeline.parameters.height)
        cut = crop_to_face(portrait, size) if crop else fit_whole_image(portrait, size)
        for sentence in (*portrait.notes, *cut.warnings):
            _logger.warning("%s", sentence)
        reference = PortraitReference(cut.image, cut.face_box)
        with plain_tensors():
            fused = reference.fuse(pipeline, pipeline.load())
        shown = FrameCollector(1, *fused.image.shape[:2])
        shown.add(fused.image.copy())
        return reference, shown.images


class ExtractMotion:
    """Extracts a driver's motion once, for any number of portraits."""

    CATEGORY = CATEGORY
    DESCRIPTION = "Look at a driver once; the motion drives any portrait. Of the diffusion pipeline only."
    RETURN_TYPES = (MOTION,)
    RETURN_NAMES = ("motion",)
    FUNCTION = "extract"

    @classmethod
    def INPUT_TYPES(cls) -> Inputs:
        return {"required": {"pipeline": (PIPELINE,), **_clip_inputs()}}

    def extract(self, pipeline: ManagedPipeline, images: torch.Tensor, fps: float) -> tuple[DrivingMotion]:
        """Run the node. Raises `InputError` for a clip without a face and for a pipeline without motion."""
        check_images(images, "The driving clip")
        with plain_tensors():
            loaded = _require_diffusion(pipeline.load())
            progress = FrameProgress(len(images))
            return (loaded.extract_motion(_counted(iter_video_frames(images, fps), progress), fps),)


class Animate:
    """Animates the reference with the frames of a clip."""

    CATEGORY = CATEGORY
    DESCRIPTION = "Animate the portrait with a driving clip: one frame for each of the clip's."
    RETURN_TYPES = ("IMAGE", "STRING")
    RETURN_NAMES = ("images", "report")
    FUNCTION = "animate"

    @classmethod
    def INPUT_TYPES(cls) -> Inputs:
        return _animate_inputs(_clip_inputs())

    def animate(
        self,
        pipeline: ManagedPipeline,
        reference: PortraitReference,
        images: torch.Tensor,
        fps: float,
        seed: int,
        parameters: RunParameters | None = None,
    ) -> tuple[torch.Tensor, str]:
        """Run the node; frames are converted, animated and returned chunk by chunk."""
        check_images(images, "The driving clip")
        with plain_tensors():
            loaded = pipeline.load()
            with _open_session(pipeline, loaded, reference, seed, parameters) as session:
                found, states = FrameCollector(len(images), *reference.image.shape[:2]), Counter[str]()
                progress = FrameProgress(len(images))
                source = iter_video_frames(images, fps)
                with prefetch_frames(session, source, ahead=_PREFETCHED_FRAMES) as frames:
                    # What is held during a step checks before it whether the user has interrupted the run.
                    for result in run_session(session, loaded.info, frames, progress):
                        found.add(result.animated)
                        states[result.state] += 1
                        progress.advance()
        return found.images, _describe(loaded, states)


class AnimateMotion:
    """Animates the reference with an extracted motion."""

    CATEGORY = CATEGORY
    DESCRIPTION = "Animate the portrait with a motion from Extract Motion, by the diffusion pipeline."
    RETURN_TYPES = ("IMAGE", "STRING")
    RETURN_NAMES = ("images", "report")
    FUNCTION = "animate"

    @classmethod
    def INPUT_TYPES(cls) -> Inputs:
        return _animate_inputs({"motion": (MOTION,)})

    def animate(
        self,
        pipeline: ManagedPipeline,
        reference: PortraitReference,
        motion: DrivingMotion,
        seed: int,
        parameters: RunParameters | None = None,
    ) -> tuple[torch.Tensor, str]:
        """Run the node. Raises `InputError` for a motion that other weights extracted."""
        with plain_tensors():
            loaded = _require_diffusion(pipeline.load())
            with _open_session(pipeline, loaded, reference, seed, parameters) as session:
                found, states = FrameCollector(len(motion), *reference.image.shape[:2]), Counter[str]()
                progress = FrameProgress(len(motion))
                for chunk in iter_motion_frames(session, motion, loaded.info.chunk_frames):
                    for frame, state in zip(chunk.images, chunk.states, strict=True):
                        found.add(frame)
                        states[state] += 1
                    progress.advance(len(chunk))
        return found.images, _describe(loaded, states)


def _clip_inputs() -> dict[str, InputSpec | tuple[str]]:
    fps = "The clip's frames per second: connect the fps of Get Video Components."
    return {
        "images": ("IMAGE", {"tooltip": "The driving frames, of any size."}),
        "fps": ("FLOAT", {"default": 25.0, "min": 1.0, "max": 240.0, "step": 0.01, "tooltip": fps}),
    }


def _animate_inputs(driver: dict[str, InputSpec | tuple[str]]) -> Inputs:
    seed = build_inputs(registry.get_pipeline(registry.FALLBACK).load_parameters)[_SEED]
    parameters = "From the Parameters node of the same pipeline; without it, the defaults."
    return {
        "required": {
            "pipeline": (PIPELINE,),
            "reference": (REFERENCE,),
            **driver,
            "seed": seed,
        },
        "optional": {"parameters": (PARAMETERS, {"tooltip": parameters})},
    }


def _open_session(
    managed: ManagedPipeline,
    loaded: Pipeline[Any, Any],
    reference: PortraitReference,
    seed: int,
    parameters: RunParameters | None,
) -> Any:
    expected = loaded.run_parameters
    if parameters is not None and not isinstance(parameters, expected):
        raise InputError(
            f"These parameters belong to another pipeline: connect the node Parameters: {loaded.info.id}."
        )
    session: Session[Any] = loaded.open_session(reference.fuse(managed, loaded), parameters, seed=seed)
    return session


def _require_diffusion(pipeline: Pipeline[Any, Any]) -> PersonaLivePipeline:
    if not isinstance(pipeline, PersonaLivePipeline):
        raise InputError(
            f"The {pipeline.info.id} pipeline has no motion: load personalive, or connect the clip to Animate."
        )
    return pipeline


def _counted(frames: Iterable[VideoFrame], progress: FrameProgress) -> Iterator[VideoFrame]:
    for frame in frames:
        yield frame
        progress.advance()


def _describe(pipeline: Pipeline[Any, Any], states: Counter[str]) -> str:
    counts = ", ".join(f"{count} {state}" for state, count in states.items())
    return f"{states.total()} frames by {pipeline.info.name}: {counts}."


def _make_mappings() -> tuple[dict[str, type], dict[str, str]]:
    classes: dict[str, type] = {
        "PersonaLiveFuseReference": FuseReference,
        "PersonaLiveExtractMotion": ExtractMotion,
        "PersonaLiveAnimate": Animate,
        "PersonaLiveAnimateMotion": AnimateMotion,
    }
    names = {
        "PersonaLiveFuseReference": "Fuse Reference",
        "PersonaLiveExtractMotion": "Extract Motion",
        "PersonaLiveAnimate": "Animate",
        "PersonaLiveAnimateMotion": "Animate with Motion",
    }
    for name, pipeline in registry.all_pipelines().items():
        classes[f"PersonaLiveLoad_{name}"] = make_loader(pipeline)
        names[f"PersonaLiveLoad_{name}"] = f"Load Pipeline: {name}"
        classes[f"PersonaLiveParameters_{name}"] = make_parameters(pipeline)
        names[f"PersonaLiveParameters_{name}"] = f"Parameters: {name}"
    return classes, {key: f"PersonaLive {name}" for key, name in names.items()}


NODE_CLASS_MAPPINGS, NODE_DISPLAY_NAME_MAPPINGS = _make_mappings()
