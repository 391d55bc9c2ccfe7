"""The motion of everything outside the face mesh: hair, ears and neck follow it, the background stays.

It is a smooth displacement field on a coarse grid over the whole picture. Near the face it equals the mesh's
motion, so the two meet without a seam; over hair and ears it is the head's rigid motion at an estimated depth; it
fades to zero over a margin, and beyond that the picture is unchanged.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from personalive.face.face import Float
from personalive.face.pose import Double, HeadPose
from personalive.pipelines.preview.head_layout import HeadLayout, smooth_falloff
from personalive.pipelines.preview.matte import to_layer_coords
from personalive.pipelines.preview.mesh import PixelRect, sample_image

GRID = 8
"""Pixels between two nodes of the field; each is at the centre of a square of that side."""
_FIRST_NODE = (GRID - 1) / 2
_CONTROL_VERTICES = 8
_INVERSION_STEPS = 18
_INVERSION_RATE = 0.6
"""Step size of the fixed-point inversion: below 1, so that it converges for a tilted head's rotation too."""
_VISIBLE_PIXELS = 0.02
"""Least motion of a node in pixels; below it the node counts as still."""


@dataclass(frozen=True, slots=True, eq=False)
class SamplingMap:
    """A map from pixels of the result to the head layer.

    `region` holds all that moves; `source` float32 (h, w, 2) says where its pixels come from, in pixels of the head
    layer; `static_mask` uint8 (h, w) is 1 where nothing moves.
    """

    region: PixelRect
    source: Float
    static_mask: NDArray[np.uint8]


@dataclass(frozen=True, slots=True, eq=False)
class HeadWarp:
    """The constants of one portrait. Node arrays are (rows · columns, …), row by row.

    `nodes` float64 (n, 3): head coordinates of each node's pixel, cm; `head` float32 (n,): how much it belongs to
    the head, 0…1. The nodes `expressive_nodes` (m,) follow the mesh's expression: each that of its nearest vertices
    `control_vertices` (m, k), weighted by `control_weights` float32 (m, k).
    """

    size: tuple[int, int]
    columns: int
    rows: int
    pixels: Float
    nodes: Double
    head: Float
    expressive_nodes: NDArray[np.intp]
    control_vertices: NDArray[np.intp]
    control_weights: Float

    def compute_sampling(self, pose: HeadPose, expression: Float) -> SamplingMap:
        """Return the map by which a new pose and a mesh displacement (468, 2) in pixels move the picture."""
        moved = self.head[:, None] * (pose.to_frame(self.nodes)[:, :2].astype(np.float32) - self.pixels)
        moved[self.expressive_nodes] += np.einsum(
            "mk,mkc->mc", self.control_weights, expression.take(self.control_vertices, axis=0)
        )
        shape = (self.rows, self.columns, 2)
        forward: Float = np.asarray(moved.reshape(shape) / np.float32(GRID), np.float32)
        own = (self.pixels.reshape(shape) - np.float32(_FIRST_NODE)) / np.float32(GRID)
        back = np.zeros(shape, np.float32)
        for _ in range(_INVERSION_STEPS):  # towards u(y) = -F(y + u(y))
            back -= np.float32(_INVERSION_RATE) * (
                back + sample_image(forward, np.asarray(own + back, np.float32))
            )
        return self._upsample(np.asarray(back * np.float32(GRID), np.float32))

    def _upsample(self, coarse: Float) -> SamplingMap:
        """Upsample a node field to the pixels of the region around the nodes that move by a visible amount."""
        moves = (np.abs(coarse[..., 0]) > _VISIBLE_PIXELS) | (np.abs(coarse[..., 1]) > _VISIBLE_PIXELS)
        rows, columns = np.nonzero(moves)
        if len(rows) == 0:
            return SamplingMap(
                PixelRect(0, 0, 0, 0), np.zeros((0, 0, 2), np.float32), np.zeros((0, 0), np.uint8)
            )
        # One more node on every side: pixels between a moving node and a still one move too.
        near = np.asarray(cv2.dilate(moves.astype(np.uint8), np.ones((3, 3), np.uint8)), np.uint8)
        top, bottom = max(int(rows.min()) - 1, 0), min(int(rows.max()) + 2, self.rows)
        left, right = max(int(columns.min()) - 1, 0), min(int(columns.max()) + 2, self.columns)
        size = ((right - left) * GRID, (bottom - top) * GRID)
        width, height = self.size
        region = PixelRect(left * GRID, top * GRID, min(right * GRID, width), min(bottom * GRID, height))
        still = cv2.resize(1 - near[top:bottom, left:right], size, interpolation=cv2.INTER_NEAREST)
        inside = PixelRect(0, 0, region.width, region.height)
        around = cv2.copyMakeBorder(coarse[top:bottom, left:right], 1, 1, 1, 1, cv2.BORDER_REPLICATE)
        part: Float = np.asarray(around, np.float32)
        part[..., 0] += np.arange(left - 1, right + 1, dtype=np.float32) * GRID + np.float32(_FIRST_NODE)
        part[..., 1] += np.arange(top - 1, bottom + 1, dtype=np.float32)[:, None] * GRID + np.float32(
            _FIRST_NODE
        )
        # Linear interpolation keeps linear fields exact, pixel positions too, except in half a cell at the edges.
        fine = cv2.resize(to_layer_coords(part), None, fx=GRID, fy=GRID, interpolation=cv2.INTER_LINEAR)
        where = inside.shift(GRID, GRID).crop(np.asarray(fine, np.float32))
        return SamplingMap(region, where, inside.crop(np.asarray(still, np.uint8)))


def build_head_warp(
    landmarks: Float, pose: HeadPose, layout: HeadLayout, size: tuple[int, int], *, cut_out: bool
) -> HeadWarp:
    """Build the field of a portrait of `size` (width, height) with landmarks (478, 3) and their pose.

    `cut_out`: the head is a separate layer before a background that stays.
    """
    width, height = size
    columns, rows = -(-width // GRID), -(-height // GRID)
    grid_y, grid_x = np.mgrid[0:rows, 0:columns].astype(np.float32) * GRID + np.float32(_FIRST_NODE)
    pixels = np.stack([grid_x.ravel(), grid_y.ravel()], axis=1)
    mesh_points = landmarks[:468, :2]
    distance2 = ((pixels[:, None] - mesh_points[None]) ** 2).sum(2)
    weights = 1.0 / (distance2 + 4.0) ** 2
    weights /= weights.sum(1, keepdims=True)
    outside = layout.distance_outside_oval(pixels)
    depth = weights @ landmarks[:468, 2]
    nodes = pose.to_head(np.column_stack([pixels, depth]))
    follow = smooth_falloff(outside / (0.45 * layout.width))
    head = layout.head_weights(pixels, cut_out=cut_out)
    strength = follow * np.minimum(head * 1.5, 1.0)
    following = np.flatnonzero(strength > 1e-5)
    near = weights[following]
    leaders = np.argpartition(-near, _CONTROL_VERTICES, axis=1)[:, :_CONTROL_VERTICES]
    share = np.take_along_axis(near, leaders, axis=1)
    spread = share / share.sum(1, keepdims=True) * strength[following, None]
    return HeadWarp(
        size=size,
        columns=columns,
        rows=rows,
        pixels=pixels,
        nodes=nodes,
        head=head.astype(np.float32),
        expressive_nodes=following,
        control_vertices=leaders,
        control_weights=spread.astype(np.float32),
    )
