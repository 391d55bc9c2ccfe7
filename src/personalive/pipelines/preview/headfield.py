"""How everything that is no face mesh follows it: hair, ears, neck, down to a background that stays.

A smooth displacement field on a coarse grid over the whole picture. Near the face it moves as the mesh does, so
the two meet without a seam; over hair and ears it is the head's rigid motion at an estimated depth; it fades to
nothing over a margin, and beyond that the picture is left exactly as it is.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from personalive.face.face import Float
from personalive.face.pose import Double, HeadPose
from personalive.pipelines.preview.layout import HeadLayout, fade
from personalive.pipelines.preview.matte import SHEET, on_sheet
from personalive.pipelines.preview.mesh import Region, sample

GRID = 8
"""Pixels between two nodes of the field; each stands in the middle of a square of so many pixels."""
_FIRST = (GRID - 1) / 2
_LEADERS = 8
_INVERSION_STEPS = 18
_INVERSION_PACE = 0.6
"""How far each step goes: less than all the way, so that a tilted head's swirl is inverted as well."""


@dataclass(frozen=True, slots=True, eq=False)
class Sampling:
    """The `region` that moves at all; `where` float32 (h, w, 2) its pixels come from, in pixels of the head's
    sheet; `still` uint8 (h, w), 1 where nothing moves after all.
    """

    region: Region
    where: Float
    still: NDArray[np.uint8]


@dataclass(frozen=True, slots=True, eq=False)
class HeadField:
    """What is fixed for one portrait. Node arrays are (rows · columns, …), row by row.

    `nodes` float64 (n, 3): head coordinates of what each node shows, cm; `head` float32 (n,): how much it
    belongs to the head, 0…1. The nodes `following` (m,) take on the mesh's expression: each that of its nearest
    vertices `leaders` (m, k), weighted by `spread` float32 (m, k).
    """

    size: tuple[int, int]
    columns: int
    rows: int
    pixels: Float
    nodes: Double
    head: Float
    following: NDArray[np.intp]
    leaders: NDArray[np.intp]
    spread: Float

    def backward(self, pose: HeadPose, expression: Float) -> Sampling:
        """Where a new pose and a mesh displacement (468, 2) in pixels take each pixel from."""
        rigid = pose.to_frame(self.nodes)[:, :2].astype(np.float32) - self.pixels
        moved = self.head[:, None] * rigid
        moved[self.following] += (self.spread[..., None] * expression[self.leaders]).sum(1)
        forward = moved.reshape(self.rows, self.columns, 2)
        own = (self.pixels.reshape(self.rows, self.columns, 2) - np.float32(_FIRST)) / np.float32(GRID)
        back = np.zeros_like(forward)
        for _ in range(_INVERSION_STEPS):  # towards u(y) = -F(y + u(y))
            there = sample(forward, np.asarray(own + back / np.float32(GRID), np.float32))
            back -= np.float32(_INVERSION_PACE) * (back + there)
        return self._upsampled(back)

    def _upsampled(self, coarse: Float) -> Sampling:
        """A node field at every pixel of the region around the nodes that move by a visible amount."""
        moves = np.abs(coarse).max(2) > 0.02
        rows, columns = np.nonzero(moves)
        if len(rows) == 0:
            return Sampling(Region(0, 0, 0, 0), np.zeros((0, 0, 2), np.float32), np.zeros((0, 0), np.uint8))
        # A node more on every side: between a node that moves and one that does not, pixels move.
        moves = cv2.dilate(moves.astype(np.uint8), np.ones((3, 3), np.uint8))
        top, bottom = max(int(rows.min()) - 1, 0), min(int(rows.max()) + 2, self.rows)
        left, right = max(int(columns.min()) - 1, 0), min(int(columns.max()) + 2, self.columns)
        size = ((right - left) * GRID, (bottom - top) * GRID)
        width, height = self.size
        region = Region(left * GRID, top * GRID, min(right * GRID, width), min(bottom * GRID, height))
        inside = Region(0, 0, region.width, region.height)
        part = coarse[top:bottom, left:right] * np.float32(SHEET)
        full = np.asarray(cv2.resize(part, size, interpolation=cv2.INTER_LINEAR), np.float32)
        where = np.ascontiguousarray(inside.of(full))
        where[..., 0] += on_sheet(np.arange(region.left, region.right, dtype=np.float32))
        where[..., 1] += on_sheet(np.arange(region.top, region.bottom, dtype=np.float32))[:, None]
        still = cv2.resize(1 - moves[top:bottom, left:right], size, interpolation=cv2.INTER_NEAREST)
        return Sampling(region, where, np.ascontiguousarray(inside.of(np.asarray(still, np.uint8))))


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
    strength = follow * np.minimum(head * 1.5, 1.0)
    following = np.flatnonzero(strength > 1e-5)
    near = weights[following]
    leaders = np.argpartition(-near, _LEADERS, axis=1)[:, :_LEADERS]
    share = np.take_along_axis(near, leaders, axis=1)
    spread = share / share.sum(1, keepdims=True) * strength[following, None]
    return HeadField(
        size=size,
        columns=columns,
        rows=rows,
        pixels=pixels,
        nodes=nodes,
        head=head.astype(np.float32),
        following=following,
        leaders=leaders,
        spread=spread.astype(np.float32),
    )
