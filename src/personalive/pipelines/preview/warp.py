"""The layers of a portrait, and their warp by a motion."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np
from numpy.typing import NDArray

from personalive.face.canonical import load_canonical_face
from personalive.face.face import Float
from personalive.face.pose import Double, HeadPose, fit_head_pose, rotation_matrix, rotation_vector
from personalive.media.types import Image
from personalive.pipelines.preview import topology as mesh
from personalive.pipelines.preview.eyes import EyeLayers, build_eye, close_lid_margins
from personalive.pipelines.preview.head_layout import HeadLayout
from personalive.pipelines.preview.head_warp import HeadWarp, SamplingMap, build_head_warp
from personalive.pipelines.preview.matte import MattedPortrait, separate_head, to_layer_coords
from personalive.pipelines.preview.mesh import PixelRect, interpolate_mesh
from personalive.pipelines.preview.motion import PortraitMotion
from personalive.pipelines.preview.mouth import MouthLayers, build_mouth

MAX_TURN = np.radians(24.0)
"""Turning and nodding further would show what the portrait does not hold; the limit is approached, never passed."""
MAX_TILT = np.radians(22.0)
"""The same limit for tilting to a shoulder, which bends the neck."""
_NECK_PIVOT = np.array([0.0, -5.0, 0.0])
"""cm from the middle of the head to its pivot: a compromise between a real neck and the little room that a still
background leaves."""
MAX_SHIFT = 1.6
"""cm that the head may shift before the neck looks stretched; approached, never passed."""
_LID_DROP = 0.2
"""cm by which the skin around an eye sinks when it shuts."""


@dataclass(frozen=True, slots=True, eq=False)
class WarpTarget:
    """The landmarks' positions after a motion: `points` float32 (478, 3) pixels, `pose` the head's."""

    points: Float
    pose: HeadPose
    open_lid_points: Float
    """float32 (478, 2): the same positions with the portrait's lids."""


@dataclass(frozen=True, slots=True, eq=False)
class LayeredPortrait:
    """A portrait with its precomputed layers and constants. Immutable: any number of sessions may draw from it.

    `image` uint8 RGB (H, W, 3); `landmarks` float32 (478, 3) pixels; `shape` float64 (478, 3) head cm.
    """

    image: Image
    landmarks: Float
    pose: HeadPose
    shape: Double
    layers: MattedPortrait
    head_warp: HeadWarp
    eyes: tuple[EyeLayers, EyeLayers]
    mouth: MouthLayers

    @classmethod
    def build(cls, image: Image, landmarks: Float, others: Sequence[Float] = ()) -> LayeredPortrait:
        """Build it from a picture and its face's landmarks (478, 3); `others` are those of faces that stay."""
        pose = fit_head_pose(landmarks)
        landmarks = _flatten_relief(landmarks, pose)
        shape = pose.to_head(landmarks)
        size = (image.shape[1], image.shape[0])
        flat = np.ascontiguousarray(landmarks[:, :2])
        layout = HeadLayout.from_landmarks(landmarks)
        layers = separate_head(image, layout, [HeadLayout.from_landmarks(other) for other in others])
        right, left = (build_eye(image, flat, eye) for eye in mesh.EYES)
        return cls(
            image=image,
            landmarks=landmarks,
            pose=pose,
            shape=shape,
            layers=layers,
            head_warp=build_head_warp(landmarks, pose, layout, size, cut_out=not layers.is_single_layer),
            eyes=(right, left),
            mouth=build_mouth(image, flat, pose, shape),
        )

    def compute_target(self, motion: PortraitMotion) -> WarpTarget:
        """Compute where a motion puts every landmark."""
        pose = self._apply_pose(motion)
        moved = self.shape + motion.shape
        unlidded = pose.to_frame(moved)[:, :2].astype(np.float32)
        for eye, closure in zip(mesh.EYES, motion.closure, strict=True):
            _close_lids(moved, eye, float(closure))
        return WarpTarget(pose.to_frame(moved).astype(np.float32), pose, unlidded)

    def _apply_pose(self, motion: PortraitMotion) -> HeadPose:
        turn = rotation_vector(motion.rotation)
        turn[:2] = _soft_limit(turn[:2], MAX_TURN)
        turn[2:] = _soft_limit(turn[2:], MAX_TILT)
        rotation = rotation_matrix(turn)
        shift = motion.translation + _NECK_PIVOT - rotation @ _NECK_PIVOT
        shift[:2] = _soft_limit(shift[:2], MAX_SHIFT)
        scale = float(np.clip(motion.scale, 0.88, 1.14))
        return HeadPose(
            rotation @ self.pose.rotation,
            self.pose.scale * scale,
            self.pose.translation + self.pose.scale * shift * [1.0, 1.0, 0.0],
        )

    def draw(self, motion: PortraitMotion) -> Image:
        """Draw the portrait with a motion, uint8 RGB (H, W, 3)."""
        target = self.compute_target(motion)
        frame = self._warp_layers(target)
        flat = np.ascontiguousarray(target.points[:, :2])
        for layers, closure, gaze in zip(self.eyes, motion.closure, motion.gaze, strict=True):
            shift = np.array([gaze[0], -gaze[1]], np.float32) * np.float32(layers.width)
            layers.draw(frame, flat, target.open_lid_points, float(closure), shift)
        self.mouth.draw(frame, flat, target.pose, motion.shape)
        return frame

    def _warp_layers(self, target: WarpTarget) -> Image:
        """Warp skin, hair and background; the eyes and the mouth are drawn over the result."""
        rigid = target.pose.to_frame(self.shape[:468])[:, :2]
        expression = (target.open_lid_points[:468] - rigid).astype(np.float32)
        sampling = self.head_warp.compute_sampling(target.pose, expression)
        frame = self.image.copy()
        if sampling.region.is_empty:
            return frame
        self._apply_face_mesh(sampling, target)
        drawn = self.layers.compose(sampling.source, sampling.region)
        moving = sampling.region.crop(frame)
        cv2.copyTo(moving, sampling.static_mask, drawn)
        moving[...] = drawn
        return frame

    def _apply_face_mesh(self, sampling: SamplingMap, target: WarpTarget) -> None:
        """Replace the sampling positions of the face by the face mesh's, in place, fading out on its outline."""
        points = np.ascontiguousarray(target.points[:468, :2])
        region = PixelRect.bounding(points, self.head_warp.size, 1).intersection(sampling.region)
        if region.is_empty:
            return
        values = np.column_stack([to_layer_coords(self.landmarks[:468, :2]), _oval_weights()]).astype(
            np.float32
        )
        spread, covered = interpolate_mesh(points, values, _sort_triangles_by_depth(target.points), region)
        view = region.shift(-sampling.region.left, -sampling.region.top).crop(sampling.source)
        share = spread[2] * covered
        for axis in (0, 1):
            view[..., axis] += (spread[axis] - view[..., axis]) * share


def _flatten_relief(landmarks: Float, pose: HeadPose) -> Float:
    """Return landmarks with the depth behind the cheeks halved.

    One picture does not show the sides of a head. With the true depth a turn would squeeze one cheek to nothing and
    stretch the other; with the flattened relief both stay intact at the allowed angles.
    """
    towards = (-landmarks[:, 2] - pose.translation[2]) / pose.scale
    front = 2.0
    relief = np.where(towards < front, front + 0.45 * (towards - front), towards)
    flattened = landmarks.copy()
    flattened[:, 2] = -(relief * pose.scale + pose.translation[2])
    return flattened


def _soft_limit(vector: Double, limit: float) -> Double:
    """Shorten a vector smoothly so that its length approaches `limit`; short ones stay unchanged."""
    length = float(np.linalg.norm(vector))
    knee = 0.6 * limit
    if length <= knee:
        return vector
    room = limit - knee
    return np.asarray(vector * ((knee + room * np.tanh((length - knee) / room)) / length))


def _close_lids(shape: Double, eye: mesh.Eye, closure: float) -> None:
    """Move one eye's lid margins, and a little of the skin around them, in place."""
    upper, lower = shape[eye.upper].copy(), shape[eye.lower].copy()
    shape[eye.upper], shape[eye.lower] = close_lid_margins(upper, lower, closure)
    shape[eye.crease] += 0.12 * (shape[eye.upper] - upper)
    shape[eye.under] += 0.5 * (shape[eye.lower] - lower)
    if closure > 0:
        shape[:468, 1] -= _LID_DROP * closure * _lid_weights(eye)


@cache
def _lid_weights(eye: mesh.Eye) -> Double:
    """Return weights (468,) of skin that sinks when an eye shuts: most on its outer half, fading over 1.5 cm."""
    vertices = load_canonical_face().vertices
    middle = (vertices[eye.outer] + vertices[eye.upper[3]]) / 2
    return np.asarray(np.exp(-(((vertices - middle) / [1.5, 1.3, 2.5]) ** 2).sum(1)))


def _sort_triangles_by_depth(points: Float) -> NDArray[np.int32]:
    triangles = load_canonical_face().triangles[:, ::-1]  # oriented for y up; pixels count down
    order = np.argsort(-points[:, 2].take(triangles).sum(1))
    return triangles[order]


@cache
def _oval_weights() -> Float:
    """Return vertex weights: 0 on the face's outline, where the head warp takes over, 1 inside it."""
    fade = np.ones(468, np.float32)
    fade[mesh.OVAL] = 0.0
    return fade
