"""Keypoints from head motion (rotated, scaled and shifted), and the transfer of a driver's motion to a reference.

Everything is float32, for N frames at once, on the device of the inputs. Keypoints are (N, K, 3), x to the
right and y down, in units of half the frame's side: -1 and 1 are its edges. The formulas are LivePortrait's (Guo et
al., 2024, https://arxiv.org/abs/2407.03168), with which the released networks were trained.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from personalive.pipelines.diffusion.networks.motion_extractor import HeadMotion

DRAWN_KEYPOINTS = (1, 2, 3, 4, 12, 15, 20)
"""The keypoints that are drawn, and from which the face box is computed."""


def rotation_matrix(pitch: Tensor, yaw: Tensor, roll: Tensor) -> Tensor:
    """Return (N, 3, 3) (Rz(roll)·Ry(yaw)·Rx(pitch))ᵀ, for row vectors, of angles (N,) in degrees."""
    radians = [torch.deg2rad(angle.float()) for angle in (pitch, yaw, roll)]
    (sx, sy, sz), (cx, cy, cz) = [angle.sin() for angle in radians], [angle.cos() for angle in radians]
    rows = [
        torch.stack([cz * cy, sz * cy, -sy], dim=-1),
        torch.stack([cz * sy * sx - sz * cx, sz * sy * sx + cz * cx, cy * sx], dim=-1),
        torch.stack([cz * sy * cx + sz * sx, sz * sy * cx - cz * sx, cy * cx], dim=-1),
    ]
    return torch.stack(rows, dim=-2)


def transform_keypoints(motion: HeadMotion) -> Tensor:
    """Return the keypoints (N, K, 3) of heads in motion: scale · (kp · R), then shifted in x and y."""
    turn = rotation_matrix(motion.pitch, motion.yaw, motion.roll)
    # A matrix product would lose bits where the process allows TF32, and could move a point to another pixel.
    turned = (motion.keypoints[..., None] * turn[:, None]).sum(dim=-2)
    placed = motion.scale[..., None] * turned
    shifted = placed[..., :2] + motion.translation[:, None, :2]
    return torch.cat([shifted, placed[..., 2:]], dim=-1)


class MotionTransfer(NamedTuple):
    """The shares of a driver's motion that are transferred; the defaults are the method's.

    `pose`: the share of the way from the reference's angles to the driver's. `translation`: the share of the
    driver's shift since its first frame. `scale`: the share of its change of size since then.
    """

    pose: float = 1.0
    translation: float = 0.5
    scale: float = 0.0


TRAINED_TRANSFER = MotionTransfer()


def retarget(
    reference: HeadMotion, driving: HeadMotion, first: HeadMotion, transfer: MotionTransfer = TRAINED_TRANSFER
) -> HeadMotion:
    """Return the reference's head moved like the driver's, which is drawn for N driving frames.

    The keypoints are the reference's. Angles, shift and scale follow the driver by the shares in `transfer`, shift
    and scale relative to the `first` frame of the session. `reference` and `first` are of one frame.
    """
    count = len(driving.pitch)
    # `lerp` gives exactly the driver's angle for a share of 1.
    pitch, yaw, roll = (
        torch.lerp(start.expand(count), end, transfer.pose)
        for start, end in zip(reference[2:5], driving[2:5], strict=True)
    )
    nearer = 1 + transfer.scale * (driving.scale / first.scale - 1) if transfer.scale else 1.0
    return HeadMotion(
        keypoints=reference.keypoints.expand(count, -1, -1),
        scale=reference.scale.expand(count, -1) * nearer,
        pitch=pitch,
        yaw=yaw,
        roll=roll,
        translation=reference.translation + transfer.translation * (driving.translation - first.translation),
    )


def make_transition(reference: HeadMotion, target: HeadMotion, steps: int) -> HeadMotion:
    """Return `steps` frames from the reference towards the target, both of one frame; see `interpolate`.

    The target is the head that is drawn for a session's first driving frame (`retarget`).
    """
    return HeadMotion(*(interpolate(start, end, steps) for start, end in zip(reference, target, strict=True)))


def interpolate(start: Tensor, end: Tensor, steps: int) -> Tensor:
    """Interpolate linearly from start (1, …) towards end (1, …), which is not included: (steps, …).

    Weights are k/steps for k = 0 … steps - 1, so that `end` may follow as the next frame.
    """
    share = torch.arange(steps, dtype=start.dtype, device=start.device) / steps
    return start + (end - start) * share.view(-1, *(1,) * (start.ndim - 1))


def project_to_pixels(points: Tensor, height: int, width: int) -> Tensor:
    """Return the pixels (x, y) of the drawn ones of keypoints (N, K, 3), truncated towards zero: float32 (N, 7, 2).

    They are whole numbers, on or off a frame of height × width; NaN and infinities remain.
    """
    # One by one, since an index list would be copied to the device, and the host would wait for that.
    places = torch.stack([points[:, index, :2] for index in DRAWN_KEYPOINTS], dim=1).float() * 0.5 + 0.5
    return torch.stack([places[..., 0] * width, places[..., 1] * height], dim=-1).trunc()
