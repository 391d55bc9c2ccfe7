"""From head motion to keypoints: turned, scaled and shifted; a driver's motion carried over to a reference.

Everything is float32, for N frames at once, on the device of what comes in. Keypoints are (N, K, 3), x to the
right and y down, in units of half the frame's side: -1 and 1 are its edges. Formulas: LivePortrait's (Guo et
al., 2024, https://arxiv.org/abs/2407.03168), as the released networks were trained with them.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from personalive.pipelines.diffusion.networks.motion_extractor import HeadMotion

DRAWN_KEYPOINTS = (1, 2, 3, 4, 12, 15, 20)
"""The keypoints that are drawn and that tell where the face is."""


def rotation_matrix(pitch: Tensor, yaw: Tensor, roll: Tensor) -> Tensor:
    """Angles (N,) in degrees → (N, 3, 3) (Rz(roll)·Ry(yaw)·Rx(pitch))ᵀ, for keypoints that are row vectors."""
    radians = [torch.deg2rad(angle.float()) for angle in (pitch, yaw, roll)]
    (sx, sy, sz), (cx, cy, cz) = [angle.sin() for angle in radians], [angle.cos() for angle in radians]
    rows = [
        torch.stack([cz * cy, sz * cy, -sy], dim=-1),
        torch.stack([cz * sy * sx - sz * cx, sz * sy * sx + cz * cx, cy * sx], dim=-1),
        torch.stack([cz * sy * cx + sz * sx, sz * sy * cx - cz * sx, cy * cx], dim=-1),
    ]
    return torch.stack(rows, dim=-2)


def transform_keypoints(motion: HeadMotion) -> Tensor:
    """Keypoints (N, K, 3) of heads in motion: scale · (kp · R), then shifted in x and y."""
    turn = rotation_matrix(motion.pitch, motion.yaw, motion.roll)
    # A matrix product would lose bits where the process allows TF32, and with them the pixel a point is in.
    turned = (motion.keypoints[..., None] * turn[:, None]).sum(dim=-2)
    placed = motion.scale[..., None] * turned
    shifted = placed[..., :2] + motion.translation[:, None, :2]
    return torch.cat([shifted, placed[..., 2:]], dim=-1)


class MotionTransfer(NamedTuple):
    """How much of a driver's motion is carried over; the defaults are the method's own.

    `pose`: of the way from the reference's angles to the driver's. `translation`: of the driver's shift since
    its first frame. `scale`: of its nearing since then.
    """

    pose: float = 1.0
    translation: float = 0.5
    scale: float = 0.0


TRAINED_TRANSFER = MotionTransfer()


def retarget(
    reference: HeadMotion, driving: HeadMotion, first: HeadMotion, transfer: MotionTransfer = TRAINED_TRANSFER
) -> HeadMotion:
    """The reference's head moved as the driver's: what is drawn for N driving frames.

    Keypoints are the reference's; angles, shift and scale follow the driver as `transfer` says, shift and scale
    relative to the `first` frame of the session. `reference` and `first` are of one frame.
    """
    count = len(driving.pitch)
    # `lerp` gives the driver's angle to the last bit where all of it is carried over.
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
    """`steps` frames from the reference towards the target, both of one frame; see `interpolate`.

    The target is what is drawn for a session's first driving frame (`retarget`).
    """
    return HeadMotion(*(interpolate(start, end, steps) for start, end in zip(reference, target, strict=True)))


def interpolate(start: Tensor, end: Tensor, steps: int) -> Tensor:
    """From start (1, …) linearly towards end (1, …), which itself is not reached: (steps, …).

    Weights are k/steps for k = 0 … steps - 1, so that `end` may follow as the next frame.
    """
    share = torch.arange(steps, dtype=start.dtype, device=start.device) / steps
    return start + (end - start) * share.view(-1, *(1,) * (start.ndim - 1))


def project_to_pixels(points: Tensor, height: int, width: int) -> Tensor:
    """Pixels (x, y) of the drawn ones among keypoints (N, K, 3), truncated towards zero: float32 (N, 7, 2).

    Whole numbers, on or off a frame of height × width; NaN and infinities stay what they are.
    """
    # One by one: an index list would be copied to the device, and the host wait for that.
    places = torch.stack([points[:, index, :2] for index in DRAWN_KEYPOINTS], dim=1).float() * 0.5 + 0.5
    return torch.stack([places[..., 0] * width, places[..., 1] * height], dim=-1).trunc()
