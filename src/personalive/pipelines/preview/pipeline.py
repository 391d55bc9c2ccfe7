"""The preview pipeline, a landmark-driven warp: it runs on every machine and needs no download."""

from __future__ import annotations

import hashlib
import json
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from typing_extensions import override

from personalive.errors import InputError, NoFaceError, SessionClosedError
from personalive.face.choice import FaceChoice, parse_face_choice
from personalive.face.face import Box, Face, is_same_face, select_dominant_face
from personalive.face.tracker import FaceDetector, FaceTracker
from personalive.media.types import Image
from personalive.pipelines.base import (
    AnimatedChunk,
    Availability,
    DetectedFace,
    FrameChunk,
    FrameState,
    LoadProgressCallback,
    Pipeline,
    PipelineInfo,
    Reference,
    Session,
)
from personalive.pipelines.prefetch import Prefetcher
from personalive.pipelines.preview.motion import PortraitMotion
from personalive.pipelines.preview.parameters import PreviewLoadParameters, PreviewRunParameters
from personalive.pipelines.preview.retarget import Retargeter
from personalive.pipelines.preview.warp import LayeredPortrait

_SNAPSHOT_FORMAT = 1
"""Version of the format of a session's snapshot."""


@dataclass(frozen=True, eq=False)
class PreviewReference(Reference):
    """A portrait separated into its moving layers.

    `portrait` is None where a picture without a face was allowed: it stays still.
    """

    id: str
    image: Image
    face: DetectedFace | None
    portrait: LayeredPortrait | None
    detected_face: Face | None

    def draw(self, motion: PortraitMotion | None) -> Image:
        """Draw the portrait in motion, uint8 RGB (H, W, 3); without a motion, return the picture."""
        return self.image if self.portrait is None or motion is None else self.portrait.draw(motion)


class PreviewPipeline(Pipeline[PreviewLoadParameters, PreviewRunParameters]):
    """A landmark-driven warp of the portrait. It is not the diffusion model: fast, simple, and for any CPU."""

    info: PipelineInfo = PipelineInfo(
        id="preview",
        name="preview (landmark warp), not the diffusion model",
        description=(
            "Moves the portrait's own pixels after the driver's landmarks. Needs no download and no GPU. "
            "Best for modest head turns; it cannot show what the portrait does not hold."
        ),
        chunk_frames=4,
    )
    load_parameters = PreviewLoadParameters
    run_parameters = PreviewRunParameters

    def __init__(self, parameters: PreviewLoadParameters) -> None:
        self._parameters = parameters
        self._detector = FaceDetector()

    @classmethod
    @override
    def availability(cls) -> Availability:
        return Availability(True, "it runs on any CPU and needs no weights")

    @classmethod
    @override
    def load(
        cls, parameters: PreviewLoadParameters, report: LoadProgressCallback | None = None
    ) -> PreviewPipeline:
        if report:
            report("loading the face landmark model", 0.0)
        pipeline = cls(parameters)
        if report:
            report("ready", 1.0)
        return pipeline

    @property
    @override
    def parameters(self) -> PreviewLoadParameters:
        return self._parameters

    @override
    def fuse(
        self, image: Image, *, allow_no_face: bool = False, face_box: Box | None = None
    ) -> PreviewReference:
        width, height = self._parameters.width, self._parameters.height
        shrinking = image.shape[1] > width or image.shape[0] > height
        method = cv2.INTER_AREA if shrinking else cv2.INTER_CUBIC
        picture = np.ascontiguousarray(cv2.resize(image, (width, height), interpolation=method), np.uint8)
        picture.setflags(write=False)
        placed = (
            None
            if face_box is None
            else _scale_box(face_box, width / image.shape[1], height / image.shape[0])
        )
        facts = f"preview {width}x{height}" + (f" {placed}" if placed else "")
        identity = hashlib.sha256(picture.tobytes() + facts.encode()).hexdigest()[:16]
        faces = self._detector.detect(picture)
        if placed is None:
            face = select_dominant_face(faces, (width, height))
        else:
            face, _ = self._detector.find_in_box(picture, placed)
            faces = [face, *(other for other in faces if not is_same_face(other, face))]
        if face is None:
            if not allow_no_face:
                raise NoFaceError(
                    "No face was found in the reference. Use a picture in which one face is clearly visible."
                )
            return PreviewReference(identity, picture, None, None, None)
        others = [other.landmarks for other in faces if other is not face]
        portrait = LayeredPortrait.build(picture, face.landmarks, others)
        box = _scale_box(face.box, image.shape[1] / width, image.shape[0] / height)
        found = DetectedFace(box, self._detector.confidence(picture, face))
        return PreviewReference(identity, picture, found, portrait, face)

    @override
    def open_session(
        self,
        reference: Reference,
        parameters: PreviewRunParameters | None = None,
        *,
        seed: int | None = None,
    ) -> PreviewSession:
        return PreviewSession(_require_preview_reference(reference), parameters or PreviewRunParameters())

    @override
    def close(self) -> None:
        self._detector.close()


class PreviewSession(Session[PreviewRunParameters]):
    """One driver moving one portrait."""

    def __init__(self, reference: PreviewReference, parameters: PreviewRunParameters) -> None:
        self._parameters = parameters
        self._analyzer = _FaceAnalyzer(parse_face_choice(parameters.driver_face))
        self._prefetch = Prefetcher(self._analyzer)
        self._closed = False
        self._draw_executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="preview-draw")
        self._reference = reference
        self._last: PortraitMotion | None = None
        self._retargeter = _build_retargeter(reference)

    @property
    @override
    def parameters(self) -> PreviewRunParameters:
        return self._parameters

    @override
    def step(self, chunk: FrameChunk) -> AnimatedChunk:
        self._require_open()
        states: list[FrameState] = []
        drawings: list[Future[Image]] = []
        for driving, time in zip(chunk.images, chunk.times, strict=True):
            state, motion = self._track(driving, float(time))
            states.append(state)
            # One frame is drawn while the next is tracked; drawing depends only on the motion.
            drawings.append(self._draw_executor.submit(self._reference.draw, motion))
        height, width = self._reference.image.shape[:2]
        images = np.empty((len(chunk), height, width, 3), np.uint8)
        for index, drawing in enumerate(drawings):
            images[index] = drawing.result()
        return AnimatedChunk(images, chunk.times, tuple(states))

    @override
    def prepare(self, image: Image, time: float) -> None:
        self._require_open()
        self._prefetch.prepare(image, time)

    @override
    def discard(self, time: float) -> None:
        self._prefetch.discard(time)

    def _track(self, driving: Image, time: float) -> tuple[FrameState, PortraitMotion | None]:
        face = self._prefetch.get(driving, time)
        if face is not None and self._retargeter is not None:
            self._last = self._retargeter.retarget(face, time, self._parameters)
        if self._last is None:
            return FrameState.WAITING, None
        return FrameState.HELD if face is None else FrameState.ANIMATED, self._last

    @override
    def update(self, parameters: PreviewRunParameters) -> None:
        self._analyzer.tracker.choice = parse_face_choice(parameters.driver_face)
        self._parameters = parameters

    @override
    def switch_reference(self, reference: Reference) -> None:
        own = _require_preview_reference(reference)
        if own.image.shape != self._reference.image.shape:
            raise InputError("The new reference was fused for another size than this session's.")
        self._reference = own
        self._retargeter = _build_retargeter(own)
        self._last = None

    @override
    def reset(self) -> None:
        self._last = None
        if self._retargeter is not None:
            self._retargeter.reset()
        self._prefetch.reset()

    @override
    def snapshot(self) -> bytes:
        """Return the state as JSON.

        Afterwards the face is detected again, in this session and in the restored one alike.
        """
        self._require_open()
        driver = self._prefetch.save_state()
        state = {
            "format": _SNAPSHOT_FORMAT,
            "reference": self._reference.id,
            "parameters": self._parameters.model_dump(mode="json"),
            "last": None if self._last is None else self._last.to_dict(),
            "retargeter": None if self._retargeter is None else self._retargeter.state(),
            "driver": driver,
        }
        return json.dumps(state).encode()

    @override
    def restore(self, snapshot: bytes) -> None:
        self._require_open()
        try:
            state = json.loads(snapshot)
            if (state["format"], state["reference"]) != (_SNAPSHOT_FORMAT, self._reference.id):
                raise InputError("This snapshot is of a session with another reference, size or version.")
            parameters = type(self._parameters).model_validate(state["parameters"])
            last = None if state["last"] is None else PortraitMotion.from_dict(state["last"])
            retargeter = _build_retargeter(self._reference)
            if retargeter is not None:
                retargeter.restore(state["retargeter"])
            self._analyzer.tracker.choice = parse_face_choice(parameters.driver_face)
            self._prefetch.restore_state(state.get("driver", {}))
        except (ValueError, KeyError, TypeError, AttributeError) as error:  # any bytes may be given
            raise InputError("These bytes are no snapshot of a session.") from error
        self._parameters, self._last, self._retargeter = parameters, last, retargeter

    @override
    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._prefetch.close()
            self._draw_executor.shutdown()

    def _require_open(self) -> None:
        if self._closed:
            raise SessionClosedError("This session is closed.")


class _FaceAnalyzer:
    """A tracker of the driver's face; the face is detected again where a session is continued."""

    def __init__(self, choice: FaceChoice) -> None:
        self.tracker = FaceTracker(choice)

    def analyze(self, image: Image, time: float) -> Face | None:
        """Return the driver's face in the next frame."""
        del time
        return self.tracker.track(image)

    def state(self) -> dict[str, Any]:
        """Return where a chosen face was."""
        return self.tracker.state()

    def restore(self, state: dict[str, Any]) -> None:
        """Detect the face again."""
        self.tracker.restore(state)

    def reset(self) -> None:
        """Forget the driver."""
        self.tracker.reset()

    def close(self) -> None:
        """Release the networks."""
        self.tracker.close()


def _scale_box(box: Box, across: float, down: float) -> Box:
    left, top, right, bottom = box
    return float(left * across), float(top * down), float(right * across), float(bottom * down)


def _require_preview_reference(reference: Reference) -> PreviewReference:
    if not isinstance(reference, PreviewReference):
        raise InputError("This reference was fused by another pipeline. Fuse the image with this one.")
    return reference


def _build_retargeter(reference: PreviewReference) -> Retargeter | None:
    if reference.portrait is None:
        return None
    return Retargeter(reference.detected_face, reference.portrait.shape, reference.portrait.pose.rotation)
