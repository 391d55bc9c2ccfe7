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

GRID = 8
"""Pixels between two nodes of the field."""
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

    def backward(self, pose: HeadPose, expression: Float) -> Float:
        """The sampling map float32 (H, W, 2) of a new pose and mesh displacement (468, 2) in pixels."""
        rigid = pose.to_frame(self.nodes)[:, :2].astype(np.float32) - self.pixels
        moved = self.head[:, None] * rigid + self.spread @ expression
        forward = moved.reshape(self.rows, self.columns, 2)
        own = self.pixels.reshape(self.rows, self.columns, 2) / GRID
        back = np.zeros_like(forward)
        for _ in range(_INVERSION_STEPS):  # towards u(y) = -F(y + u(y))
            where = own + back / GRID
            there = cv2.remap(forward, where, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
            back -= np.float32(_INVERSION_PACE) * (back + there)
        return self._upsampled(back)

    def _upsampled(self, coarse: Float) -> Float:
        """A node field at every pixel: node (r, c) lies at pixel (c·GRID, r·GRID)."""
        width, height = self.size
        x = np.arange(width, dtype=np.float32)
        y = np.arange(height, dtype=np.float32)
        scale = np.array([[GRID, 0, 0], [0, GRID, 0]], np.float32)
        full = cv2.warpAffine(coarse, scale, (width, height), flags=cv2.INTER_LINEAR)
        full[..., 0] += x
        full[..., 1] += y[:, None]
        return np.asarray(full, np.float32)


def build_head_field(
    landmarks: Float, pose: HeadPose, layout: HeadLayout, size: tuple[int, int], *, cut_out: bool
) -> HeadField:
    """The field of a portrait of `size` (width, height) with landmarks (478, 3) and their pose.

    `cut_out`: the head is a layer of its own before a background that stays.
    """
    width, height = size
    columns, rows = -(-width // GRID) + 1, -(-height // GRID) + 1
    grid_y, grid_x = np.mgrid[0:rows, 0:columns].astype(np.float32) * GRID
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
