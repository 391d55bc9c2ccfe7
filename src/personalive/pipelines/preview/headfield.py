"""How everything that is no face mesh follows it: hair, ears, neck, down to a background that stays.

A smooth displacement field on a coarse grid over the whole picture. Near the face it moves as the mesh does, so
the two meet without a seam; over hair and ears it is the head's rigid motion at an estimated depth; it fades to
nothing over a margin, and beyond that the picture is left exactly as it is.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from personalive.face.face import Float
from personalive.face.pose import Double, HeadPose
from personalive.pipelines.preview.layout import HeadLayout, fade
from personalive.pipelines.preview.mesh import Region

GRID = 8
"""Pixels between two nodes of the field; each stands in the middle of a square of so many pixels."""
_ALL_IN_ONE = np.empty(0, np.float32)
"""The second map of a sampling whose first holds both coordinates."""
_FIRST = (GRID - 1) / 2
_INVERSION_STEPS = 18
_INVERSION_PACE = 0.6
"""How far each step goes: less than all the way, so that a tilted head's swirl is inverted as well."""


@dataclass(frozen=True, slots=True, eq=False)
class HeadField:
    """What is fixed for one portrait. Node arrays are (rows · columns, …), row by row.

    `nodes` float64 (n, 3): head coordinates of what each node shows, cm; `head` float32 (n,): how much it
    belongs to the head, 0…1; `spread` float32 (n, 468): weights that carry the mesh's expression to the nodes.
    """

    size: tuple[int, int]
    columns: int
    rows: int
    pixels: Float
    nodes: Double
    head: Float
    spread: Float

    def backward(self, pose: HeadPose, expression: Float) -> tuple[Float, Region]:
        """The sampling map float32 (h, w, 2) of a new pose and mesh displacement (468, 2) in pixels, for the
        region that moves at all.
        """
        rigid = pose.to_frame(self.nodes)[:, :2].astype(np.float32) - self.pixels
        moved = self.head[:, None] * rigid + self.spread @ expression
        forward = moved.reshape(self.rows, self.columns, 2)
        own = (self.pixels.reshape(self.rows, self.columns, 2) - _FIRST) / GRID
        back = np.zeros_like(forward)
        for _ in range(_INVERSION_STEPS):  # towards u(y) = -F(y + u(y))
            where = own + back / GRID
            there = cv2.remap(forward, where, _ALL_IN_ONE, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
            back -= np.float32(_INVERSION_PACE) * (back + there)
        return self._upsampled(back)

    def _upsampled(self, coarse: Float) -> tuple[Float, Region]:
        """A node field at every pixel of the region around the nodes that move by a visible amount."""
        rows, columns = np.nonzero(np.abs(coarse).max(2) > 0.02)
        if len(rows) == 0:
            return np.zeros((0, 0, 2), np.float32), Region(0, 0, 0, 0)
        top, bottom = max(int(rows.min()) - 1, 0), min(int(rows.max()) + 2, self.rows)
        left, right = max(int(columns.min()) - 1, 0), min(int(columns.max()) + 2, self.columns)
        part = np.ascontiguousarray(coarse[top:bottom, left:right])
        full = cv2.resize(
            part, ((right - left) * GRID, (bottom - top) * GRID), interpolation=cv2.INTER_LINEAR
        )
        width, height = self.size
        region = Region(left * GRID, top * GRID, min(right * GRID, width), min(bottom * GRID, height))
        sampling = np.asarray(full, np.float32)[: region.height, : region.width]
        sampling[..., 0] += np.arange(region.left, region.right, dtype=np.float32)
        sampling[..., 1] += np.arange(region.top, region.bottom, dtype=np.float32)[:, None]
        return np.ascontiguousarray(sampling), region


def build_head_field(
    landmarks: Float, pose: HeadPose, layout: HeadLayout, size: tuple[int, int], *, cut_out: bool
) -> HeadField:
    """The field of a portrait of `size` (width, height) with landmarks (478, 3) and their pose.

    `cut_out`: the head is a layer of its own before a background that stays.
    """
    width, height = size
    columns, rows = -(-width // GRID), -(-height // GRID)
    grid_y, grid_x = np.mgrid[0:rows, 0:columns].astype(np.float32) * GRID + np.float32(_FIRST)
    pixels = np.stack([grid_x.ravel(), grid_y.ravel()], axis=1)
    mesh_points = landmarks[:468, :2]
    distance2 = ((pixels[:, None] - mesh_points[None]) ** 2).sum(2)
    weights = 1.0 / (distance2 + 4.0) ** 2
    weights /= weights.sum(1, keepdims=True)
    outside = layout.beyond_oval(pixels)
    depth = weights @ landmarks[:468, 2]
    nodes = pose.to_head(np.column_stack([pixels, depth]))
    follow = fade(outside / (0.45 * layout.width))
    head = layout.head_share(pixels, cut_out=cut_out)
    spread = (weights * (follow * np.minimum(head * 1.5, 1.0))[:, None]).astype(np.float32)
    return HeadField(size, columns, rows, pixels, nodes, head.astype(np.float32), spread)
