"""The PersonaLive pipeline behind the common interface. PyTorch is imported only when the pipeline is loaded."""

from __future__ import annotations

import importlib.util
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from PIL import Image as Pillow
from typing_extensions import override

from personalive.errors import DeviceOutOfMemoryError, InputError, NoFaceError, PipelineUnavailableError
from personalive.face.choice import FaceChoice
from personalive.face.face import Box, select_dominant_face
from personalive.face.tracker import FaceDetector
from personalive.installation import install_command
from personalive.media.types import Image
from personalive.pipelines.base import (
    AnimatedChunk,
    Availability,
    DetectedFace,
    FrameChunk,
    LoadProgressCallback,
    Pipeline,
    PipelineInfo,
    Reference,
    Session,
)
from personalive.pipelines.diffusion.checkpoints import layout
from personalive.pipelines.diffusion.parameters import (
    TRAINED_SIDE,
    PersonaLiveLoadParameters,
    PersonaLiveRunParameters,
)

if TYPE_CHECKING:
    import torch

    from personalive.media import VideoFrame
    from personalive.pipelines.diffusion.components import Components
    from personalive.pipelines.diffusion.memory.plan import MemoryPlan
    from personalive.pipelines.diffusion.motion.driving_motion import DrivingMotion
    from personalive.pipelines.diffusion.sampling.engine import DiffusionEngine, Trace
    from personalive.pipelines.diffusion.sampling.noise import NoiseSource
    from personalive.pipelines.diffusion.sampling.reference import FusedReference
    from personalive.pipelines.diffusion.session import PersonaLiveSession

T = TypeVar("T")

_REQUIRED_LIBRARIES = ("torch", "safetensors")
_LOADING_SHARE = 0.5
"""The share of the reported progress that reading the weights takes."""


class PersonaLivePipeline(Pipeline[PersonaLiveLoadParameters, PersonaLiveRunParameters]):
    """The diffusion pipeline: a window of frames at four noise levels, of which each step finishes one chunk."""

    info: PipelineInfo = PipelineInfo(
        id="personalive",
        name="PersonaLive (diffusion)",
        description=(
            "Generates the portrait in motion with the PersonaLive diffusion model. Needs its weights; made for a "
            "GPU, slow on a CPU."
        ),
        chunk_frames=4,
        exact_chunks=True,
        delay_frames=12,
        generative=True,
    )
    load_parameters = PersonaLiveLoadParameters
    run_parameters = PersonaLiveRunParameters

    def __init__(
        self, components: Components, parameters: PersonaLiveLoadParameters, plan: MemoryPlan | None = None
    ) -> None:
        """Make a pipeline of loaded networks; `load` reads them from files. For `plan` see `DiffusionEngine`."""
        from personalive.pipelines.diffusion.sampling.engine import DiffusionEngine

        self._parameters = parameters
        self.info = replace(
            type(self).info,
            chunk_frames=parameters.temporal_window_size,
            delay_frames=parameters.delay_frames,
        )
        self._engine: DiffusionEngine | None = DiffusionEngine(components, parameters, plan)
        self._weights_hash = components.fingerprint()
        self._load_warnings = (
            *components.warnings,
            *((self._engine.warning,) if self._engine.warning else ()),
        )
        self._references: OrderedDict[tuple[str, bool], FusedReference] = OrderedDict()
        self._detector: FaceDetector | None = None
        self._sessions: weakref.WeakSet[PersonaLiveSession] = weakref.WeakSet()

    @classmethod
    @override
    def availability(cls) -> Availability:
        return cls.availability_with({})

    @classmethod
    @override
    def availability_with(cls, given: Mapping[str, object]) -> Availability:
        missing = [name for name in _REQUIRED_LIBRARIES if importlib.util.find_spec(name) is None]
        if missing:
            return Availability(
                False, f"{missing[0]} is not installed", f"Run: {install_command('diffusion')}"
            )
        root = layout.find_weights_dir(Path(str(given["weights"])) if given.get("weights") else None)
        required = (file for file in layout.FILES if not file.optional and file.folder.name == "personalive")
        if not root.is_dir() or all(file.find_in(root) is None for file in required):
            return Availability(False, f"there are no weights in {root}", "Run: personalive download")
        return Availability(True, f"its weights are in {root}")

    @classmethod
    @override
    def load(
        cls, parameters: PersonaLiveLoadParameters, report: LoadProgressCallback | None = None
    ) -> PersonaLivePipeline:
        device = cls._resolve_device(parameters)
        from personalive.pipelines.diffusion.stages.acceleration import resolve_mode

        share = 1.0 if resolve_mode(parameters.compile, device) == "off" else _LOADING_SHARE
        tell = report or (lambda stage, done: None)

        def prepared(loaded: PersonaLivePipeline) -> PersonaLivePipeline:
            loaded.warm_up(lambda stage, done: tell(stage, share + (1 - share) * done))
            return loaded

        return cls.load_and_build(parameters, lambda stage, done: tell(stage, share * done), build=prepared)

    @classmethod
    def load_and_build(
        cls,
        parameters: PersonaLiveLoadParameters,
        report: LoadProgressCallback | None = None,
        *,
        build: Callable[[PersonaLivePipeline], T],
    ) -> T:
        """Load the pipeline without warming it up, and return what `build` makes of it; see `load`.

        When memory runs out, in `build` too, everything is repeated with a leaner plan.
        """
        device = cls._resolve_device(parameters)
        from personalive.pipelines.diffusion.loading import load_with_plan

        return load_with_plan(
            parameters, device, lambda models, plan: build(cls(models, parameters, plan)), report
        )

    @classmethod
    def _resolve_device(cls, parameters: PersonaLiveLoadParameters) -> torch.device:
        """Return the device to run on. Raises `PipelineUnavailableError` where the pipeline cannot run at all."""
        state = cls.availability_with({"weights": parameters.weights})
        if not state.ready:
            raise PipelineUnavailableError(f"The PersonaLive pipeline cannot be loaded: {state.message}")
        from personalive.pipelines.diffusion.device.devices import resolve_device

        return resolve_device(parameters.device)

    def warm_up(self, report: LoadProgressCallback | None = None) -> None:
        """Compile, tune and record what the first frames would otherwise wait for; `load` calls this.

        Does nothing in mode "off", unless memory is so short that nothing is recorded: then steps are tried too.
        """
        from personalive.pipelines.diffusion.warmup import warm_up

        engine = self._require_engine()
        if engine.mode != "off" or not engine.plan.recorded:
            warm_up(engine, report)

    @property
    @override
    def parameters(self) -> PersonaLiveLoadParameters:
        return self._parameters

    @property
    @override
    def warnings(self) -> tuple[str, ...]:
        parameters, found = self._parameters, []
        if (parameters.width, parameters.height) != (TRAINED_SIDE, TRAINED_SIDE):
            found.append(
                f"The released weights were trained at {TRAINED_SIDE}×{TRAINED_SIDE}; {parameters.width}×"
                f"{parameters.height} is experimental."
            )
        if parameters.experimental:
            found.append("Window settings may differ from those that the weights were trained for.")
        return (*found, *self._load_warnings)

    @property
    @override
    def notes(self) -> tuple[str, ...]:
        from personalive.pipelines.diffusion.memory.allocator import total_bytes

        engine = self._require_engine()
        total = total_bytes(engine.components.device)
        if self._parameters.low_vram != "auto" or total is None:
            return ()
        return (f"{engine.plan.describe_for_card(total)} (low_vram={engine.plan.name}).",)

    @override
    def seconds_per_frame(self) -> float | None:
        from personalive.pipelines.diffusion.estimate import estimate_seconds_per_frame

        return estimate_seconds_per_frame(self._require_engine())

    @override
    def fuse(
        self, image: Image, *, allow_no_face: bool = False, face_box: Box | None = None
    ) -> FusedReference:
        from personalive.pipelines.diffusion.sampling.reference import compute_reference_id, fuse_reference

        engine = self._require_engine()
        width, height = self._parameters.width, self._parameters.height
        name = compute_reference_id(image, height, width, self._weights_hash, face_box)
        lenient = allow_no_face or not self._parameters.face_detection
        if (name, lenient) in self._references:
            self._references.move_to_end((name, lenient))
            return self._references[name, lenient]
        looks = self._parameters.face_detection or face_box is not None
        face = self._find_face(image, face_box) if looks else None
        if face is None and looks and not allow_no_face:
            raise NoFaceError(
                "No face was found in the reference. Use a picture in which one face is clearly visible."
            )
        shown = np.array(Pillow.fromarray(image).resize((width, height), Pillow.Resampling.LANCZOS))
        shown.setflags(write=False)
        reference = fuse_reference(
            engine.components,
            image,
            height=height,
            width=width,
            reference_id=name,
            display_image=shown,
            face=face,
            face_box=None if face_box is None or face is None else face.box,
            allow_no_face=lenient,
        )
        self._references[name, lenient] = reference
        while len(self._references) > engine.plan.references:
            self._references.popitem(last=False)
        return reference

    def _find_face(self, image: Image, face_box: Box | None) -> DetectedFace | None:
        """Return the dominant face, or the one in `face_box`, which is a face itself where none is found."""
        self._detector = self._detector or FaceDetector()
        if face_box is None:
            face = select_dominant_face(self._detector.detect(image), (image.shape[1], image.shape[0]))
        else:
            face, _ = self._detector.find_in_box(image, face_box)
        if face is None:
            return None
        left, top, right, bottom = (float(value) for value in face.box)
        return DetectedFace((left, top, right, bottom), self._detector.confidence(image, face))

    @override
    def open_session(
        self,
        reference: Reference,
        parameters: PersonaLiveRunParameters | None = None,
        *,
        seed: int | None = None,
        noise: Callable[[], NoiseSource] | None = None,
        trace: Trace | None = None,
    ) -> PersonaLiveSession:
        """Open a session. `noise` replaces the seeded source of noise; `trace` is called with every stage's result.

        Raises `DeviceOutOfMemoryError` where the GPU has no memory for another session.
        """
        from personalive.pipelines.diffusion.session import (
            PersonaLiveSession,
            make_noise_factory,
            require_reference,
        )

        engine = self._require_engine()
        self._require_memory(engine)
        session = PersonaLiveSession(
            engine,
            require_reference(reference),
            parameters or PersonaLiveRunParameters(),
            noise or make_noise_factory(self._parameters.seed if seed is None else seed),
            self._weights_hash,
            trace,
        )
        self._sessions.add(session)
        return session

    def _require_memory(self, engine: DiffusionEngine) -> None:
        """Raise `DeviceOutOfMemoryError` where memory is too short for a session beyond the planned number."""
        there = sum(not session.closed for session in self._sessions)
        if there < engine.plan.batch_sessions:
            return
        from personalive.pipelines.diffusion.memory.allocator import unused_bytes

        free = unused_bytes(engine.components.device)
        if free < engine.plan.session:
            raise DeviceOutOfMemoryError(
                f"There is too little GPU memory for another session: {engine.plan.session / 1e9:.2f} GB are "
                f"needed and {free / 1e9:.2f} GB are free."
            )

    def extract_motion(
        self, frames: Iterable[VideoFrame], fps: float, choice: FaceChoice | None = None
    ) -> DrivingMotion:
        """Extract the motion of a driving clip, which can be saved and applied to any reference.

        `choice`: which face of the clip is followed; the dominant one by default.

        Raises `InputError` for a clip without a frame.
        """
        from personalive.pipelines.diffusion.motion.extraction import extract_motion

        return extract_motion(self._require_engine(), frames, fps, self._weights_hash, choice)

    @property
    @override
    def session_batch_size(self) -> int:
        return self._require_engine().plan.batch_sessions

    @override
    def step_many(
        self, sessions: Sequence[Session[PersonaLiveRunParameters]], chunks: Sequence[FrameChunk]
    ) -> list[AnimatedChunk]:
        from personalive.pipelines.diffusion.session import PersonaLiveSession, step_sessions

        own = [session for session in sessions if isinstance(session, PersonaLiveSession)]
        if len(own) < len(sessions):
            raise InputError("Only sessions of this pipeline can be stepped together.")
        return step_sessions(own, chunks)

    @override
    def close(self) -> None:
        if self._detector is not None:
            self._detector.close()
            self._detector = None
        self._references.clear()
        self._engine = None

    @property
    def engine(self) -> DiffusionEngine:
        """The engine that steps the sessions; for tools that look inside."""
        return self._require_engine()

    def _require_engine(self) -> DiffusionEngine:
        if self._engine is None:
            raise InputError("This pipeline is closed.")
        return self._engine
