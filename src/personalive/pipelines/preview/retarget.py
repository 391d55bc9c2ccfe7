"""Retargeting: a driver's face becomes a motion of the portrait: pose, expression, lids and gaze, each separately.

Relative (the default): the change since the driver's neutral face is applied, so that the portrait starts
unchanged. Absolute: the portrait takes the driver's pose and expression, with its own expression removed as far as
the rig can estimate it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar

import numpy as np

from personalive.face.canonical import load_canonical_face
from personalive.face.face import LANDMARK_COUNT, Face
from personalive.face.one_euro import OneEuroFilter
from personalive.face.pose import Double, HeadPose, fit_head_pose, rotation_matrix, rotation_vector
from personalive.pipelines.preview import topology as mesh
from personalive.pipelines.preview.motion import PortraitMotion
from personalive.pipelines.preview.parameters import PreviewRunParameters
from personalive.pipelines.preview.rig import estimate_expression, expressions

_RESTING_APERTURE = 0.34
"""Height of an open eye over its width, for drivers whose eyes are shut in the first frame."""
_CLOSED_APERTURE = 0.055
"""Height over width that the landmarks of a shut eye still have."""
_RECENTRE_SECONDS = 4.0
"""Seconds in which the portrait returns to its place after the driver has moved to another one for good."""
_SMILES = ("mouthSmileRight", "mouthSmileLeft")
_GAZE_LIMIT = np.array([0.22, 0.12])
_STATE_ARRAYS = ("resting", "gaze", "centre", "scale")


@dataclass(frozen=True, slots=True, eq=False)
class _FaceMeasurements:
    """The measurements of one frame of a driver. `aperture` and `gaze` are per eye, subject's right first."""

    pose: HeadPose
    shape: Double
    aperture: Double
    blink: Double
    gaze: Double

    @classmethod
    def measure(cls, face: Face) -> _FaceMeasurements:
        pose = fit_head_pose(face.landmarks)
        shape = pose.to_head(face.landmarks)
        aperture, gaze = zip(*(_measure_eye(shape, eye) for eye in mesh.EYES), strict=True)
        blink = [face.score(eye.blink) for eye in mesh.EYES]
        return cls(pose, shape, np.array(aperture), np.array(blink), np.array(gaze))

    def to_dict(self) -> dict[str, Any]:
        """Return all of it as JSON."""
        pose = {
            "rotation": self.pose.rotation.tolist(),
            "scale": float(self.pose.scale),
            "translation": self.pose.translation.tolist(),
        }
        arrays = {name: getattr(self, name).tolist() for name in ("shape", "aperture", "blink", "gaze")}
        return {"pose": pose, **arrays}

    @classmethod
    def from_dict(cls, state: Mapping[str, Any]) -> _FaceMeasurements:
        """Create the measurements whose `to_dict` this is."""
        rotation, translation = (np.array(state["pose"][name]) for name in ("rotation", "translation"))
        pose = HeadPose(rotation, float(state["pose"]["scale"]), translation)
        shape, aperture, blink, gaze = (
            np.array(state[name]) for name in ("shape", "aperture", "blink", "gaze")
        )
        return cls(pose, shape, aperture, blink, gaze)


def _measure_eye(shape: Double, eye: mesh.Eye) -> tuple[float, Double]:
    """Return the opening's height over the eye's width, and the iris' offset from the eye's middle in widths."""
    width = float(np.linalg.norm(shape[eye.inner, :2] - shape[eye.outer, :2]))
    middle = slice(2, 5)
    height = float(np.linalg.norm(shape[eye.upper[middle], :2] - shape[eye.lower[middle], :2], axis=1).mean())
    iris = shape[eye.iris[0], :2] - (shape[eye.inner, :2] + shape[eye.outer, :2]) / 2
    return height / max(width, 1e-6), iris / max(width, 1e-6)


class Retargeter:
    """A converter of one driver's frames to motions of one portrait. It remembers the driver's neutral face."""

    def __init__(self, reference: Face | None, reference_shape: Double, reference_rotation: Double) -> None:
        self._reference = reference
        self._own_shape = reference_shape
        self._own_rotation = reference_rotation
        own = np.zeros((LANDMARK_COUNT, 3)) if reference is None else estimate_expression(reference)
        self._own_expression = own * _expression_weights()
        self._neutral: _FaceMeasurements | None = None
        self._resting = np.full(2, _RESTING_APERTURE)
        self._gaze = np.zeros((2, 2))
        self._smile: dict[str, float] = {}
        self._centre = np.zeros(3)
        self._time = 0.0
        self._scale = np.ones((LANDMARK_COUNT, 1))
        self._filters: dict[str, OneEuroFilter] = {}
        self._filtered_with = -1.0

    def retarget(self, face: Face, time: float, parameters: PreviewRunParameters) -> PortraitMotion:
        """Return the motion for the driver's next frame; `time` in seconds."""
        sight = _FaceMeasurements.measure(face)
        if self._neutral is None:
            self._set_neutral(face, sight, time)
        neutral = self._neutral
        assert neutral is not None
        absolute = parameters.motion == "absolute"
        shape = (sight.shape - neutral.shape) * self._scale * _expression_weights()
        shape = shape - self._own_expression if absolute else self._reduce_smile(shape, face)
        turn = rotation_vector(
            sight.pose.rotation @ (self._own_rotation if absolute else neutral.pose.rotation).T
        )
        closure, gaze = self._lid_closures(sight), self._gaze_shift(sight, neutral)
        shift = self._head_shift(sight, neutral, time)
        smooth = self._smoothing(parameters.smoothing)
        turn = smooth("turn", turn, time) * parameters.pose
        shift = smooth("shift", shift, time) * parameters.pose * parameters.translation
        nearer = float(smooth("nearer", np.array(sight.pose.scale / neutral.pose.scale), time))
        shape = smooth("shape", shape, time) * parameters.expression
        closure = np.clip(smooth("closure", closure, time) * parameters.expression, -1.0, 1.0)
        gaze = smooth("gaze", gaze, time) * min(parameters.expression, 1.0)
        return PortraitMotion(
            rotation=rotation_matrix(turn),
            translation=shift,
            scale=1.0 + (nearer - 1.0) * parameters.pose * parameters.translation,
            shape=shape,
            closure=closure,
            gaze=gaze,
        )

    def reset(self) -> None:
        """Forget the driver: the next frame is the first."""
        self._neutral = None
        self._resting[:] = _RESTING_APERTURE
        self._gaze[:] = 0.0
        self._filters.clear()

    def state(self) -> dict[str, Any]:
        """Return all that `restore` needs, as JSON: the driver's state, nothing of the portrait."""
        return {
            "neutral": None if self._neutral is None else self._neutral.to_dict(),
            "smile": self._smile,
            "time": self._time,
            "filters": {name: one.state() for name, one in self._filters.items()},
            "filtered with": self._filtered_with,
            **{name: getattr(self, f"_{name}").tolist() for name in _STATE_ARRAYS},
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue as the retargeter of the same portrait whose `state` this is."""
        self._neutral = None if state["neutral"] is None else _FaceMeasurements.from_dict(state["neutral"])
        self._smile = {name: float(score) for name, score in state["smile"].items()}
        self._time = float(state["time"])
        self._filtered_with = float(state["filtered with"])
        self._filters.clear()
        smoother = _Smoother(self._filters, self._filtered_with)
        for name, kept in state["filters"].items():
            smoother.filter(name).restore(kept)
        for name in _STATE_ARRAYS:
            setattr(self, f"_{name}", np.array(state[name], np.float64))

    def _set_neutral(self, face: Face, measured: _FaceMeasurements, time: float) -> None:
        """Take the first frame, with its estimated expression removed, as the neutral face."""
        shape = measured.shape - estimate_expression(face, threshold=0.2)
        self._neutral = _FaceMeasurements(
            measured.pose, shape, measured.aperture, measured.blink, measured.gaze
        )
        self._scale = _feature_proportions(self._own_shape, shape)
        self._smile = {name: min(face.score(name), 0.3) for name in _SMILES}
        awake = measured.blink < 0.35
        self._resting = np.where(awake, measured.aperture, _RESTING_APERTURE)
        self._centre, self._time = measured.pose.translation.copy(), time

    def _lid_closures(self, measured: _FaceMeasurements) -> Double:
        """Return the closure of each lid from the opening's height and, near shut, from the blendshape scores."""
        span = np.maximum(self._resting - _CLOSED_APERTURE, 0.05)
        closure = np.clip((self._resting - measured.aperture) / span, -1.0, 1.0)
        blink = np.clip((measured.blink - 0.40) / 0.22, 0.0, 1.0)
        closure = np.where(blink > 0, np.maximum(closure, blink), closure)
        # Both lids mostly move together, and their measurement errors are independent.
        return np.asarray(0.75 * closure + 0.25 * closure.mean())

    def _gaze_shift(self, measured: _FaceMeasurements, neutral: _FaceMeasurements) -> Double:
        """Return the displacement of the irises; a lid that closes hides them, and hidden ones keep their place."""
        seen = np.clip((measured.aperture / self._resting - 0.45) / 0.25, 0.0, 1.0)[:, None]
        mean = (measured.gaze - neutral.gaze).mean(0)  # eyes look the same way
        target = np.clip(np.stack([mean, mean]), -_GAZE_LIMIT, _GAZE_LIMIT)
        self._gaze = self._gaze + seen * (target - self._gaze)
        return self._gaze

    def _head_shift(self, measured: _FaceMeasurements, neutral: _FaceMeasurements, time: float) -> Double:
        """Return how far the head is from its recent mean position, cm of the head."""
        elapsed = max(time - self._time, 0.0)
        self._time = time
        self._centre += (measured.pose.translation - self._centre) * (
            1 - np.exp(-elapsed / _RECENTRE_SECONDS)
        )
        shift = (measured.pose.translation - self._centre) / neutral.pose.scale
        shift[2] = 0.0
        return shift

    def _reduce_smile(self, shape: Double, face: Face) -> Double:
        """Reduce a displacement by what the portrait's own smile and parted lips already contribute.

        Smiles do not add up: a driver's smile on a smiling portrait must give one smile, not two. Each side's smile
        becomes own + change·(1 - own) instead of own + change; the gap between the lips is the wider of the two.
        """
        if self._reference is None:
            return shape
        tempered = shape.copy()
        together = 0.0
        for name in _SMILES:
            change = max(face.score(name) - self._smile[name], 0.0)
            own = self._reference.score(name)
            tempered -= own * change * expressions()[name]
            together += own * change / 2
        gap = float(self._own_shape[13, 1] - self._own_shape[14, 1])
        parted = float(np.clip(shape[13, 1] - shape[14, 1], 0.0, max(gap, 0.0))) * together
        for row in mesh.UPPER_LIP_ROWS:
            tempered[row, 1] -= 0.3 * parted
        for row in mesh.LOWER_LIP_ROWS:
            tempered[row, 1] += 0.7 * parted
        return tempered

    def _smoothing(self, amount: float) -> _Smoother:
        if amount != self._filtered_with:
            self._filters.clear()
            self._filtered_with = amount
        return _Smoother(self._filters, amount)


@dataclass(frozen=True, slots=True, eq=False)
class _Smoother:
    """One-Euro filters by name, with a strength: 0 is none, 0.5 as tuned, 1 twice that."""

    filters: dict[str, OneEuroFilter]
    amount: float

    # Cut-off at rest in Hz, and how it rises with speed in each signal's unit (radians, cm, ratios).
    _TUNED: ClassVar[Mapping[str, tuple[float, float]]] = {
        "turn": (2.5, 6.0),
        "shift": (1.5, 1.0),
        "nearer": (1.0, 4.0),
        "shape": (2.5, 1.2),
        "closure": (4.0, 2.0),
        "gaze": (2.0, 6.0),
    }

    def __call__(self, name: str, value: Double, time: float) -> Double:
        if self.amount <= 0:
            return value
        return self.filter(name).filter(value, time)

    def filter(self, name: str) -> OneEuroFilter:
        """Return the filter of that name, which is created at the first use."""
        if name not in self.filters:
            cutoff, beta = self._TUNED[name]
            strength = 2 * self.amount
            self.filters[name] = OneEuroFilter(min_cutoff=cutoff / strength, beta=beta / strength)
        return self.filters[name]


def _feature_proportions(own: Double, driver: Double) -> Double:
    """Return per landmark (478, 1) how much larger the portrait's features are than the driver's, 0.7…1.4.

    A wide mouth smiles further than a narrow one: the lower face scales with the width of the mouth and the height
    of the jaw, the rest with the size of the head, which head coordinates have removed already.
    """

    def lower_face(shape: Double) -> float:
        mouth = np.linalg.norm(shape[mesh.MOUTH_LEFT] - shape[mesh.MOUTH_RIGHT])
        jaw = np.linalg.norm(shape[mesh.CHIN] - shape[2])
        return float(np.sqrt(mouth * jaw))

    ratio = float(np.clip(lower_face(own) / max(lower_face(driver), 1e-6), 0.7, 1.4))
    scale = np.ones((LANDMARK_COUNT, 1))
    low = np.clip((-1.5 - load_canonical_face().vertices[:, 1]) / 2.0, 0.0, 1.0)[:, None]
    scale[:468] += (ratio - 1.0) * low
    return scale


@cache
def _expression_weights() -> Double:
    """Return per landmark (478, 1) the share of its displacement that is expression.

    Lids are driven separately, and the skull is rigid.
    """
    vertices = load_canonical_face().vertices
    share = np.zeros((LANDMARK_COUNT, 1))
    x, y = np.abs(vertices[:, 0]), vertices[:, 1]
    stiff = np.maximum(
        np.clip((y - 5.5) / 2.0, 0, 1), np.clip((x - 5.5) / 1.5, 0, 1) * np.clip((y + 4) / 3, 0, 1)
    )
    share[:468, 0] = 1.0 - 0.7 * stiff
    for eye in mesh.EYES:
        share[eye.ring] = 0.0
        share[eye.crease] *= 0.3
        share[eye.under] *= 0.5
    return share
