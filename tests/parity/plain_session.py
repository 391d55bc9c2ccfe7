"""A session written down as plainly as can be: no state kept from call to call but what the method names."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from personalive.pipelines.personalive.canvas import draw_canvas
from personalive.pipelines.personalive.crops import crop_faces, face_boxes
from personalive.pipelines.personalive.keypoints import approach, carried_over, keypoints, transition
from personalive.pipelines.personalive.networks.motion_extractor import HeadMotion
from personalive.pipelines.personalive.pixels import (
    clip_pixels,
    driving_pixels,
    driving_thumbnails,
    reference_pixels,
    reference_thumbnail,
)
from tests.parity.networks import StreamNetworks
from tests.pipelines.personalive import recipe
from tests.pipelines.personalive.figures import Case

LEVELS, CHUNK, PAD = 4, 4, 12
STEP = 333
SCALE = 0.18215
FIRST_KEYFRAME_CHUNK, MOST_KEYFRAMES = 9, 3
TIMESTEPS = torch.tensor([0, 333, 666, 999]).repeat_interleave(CHUNK)


def alphas() -> Tensor:
    """Cumulative products of the schedule, with 1 in front for the step past the end."""
    betas = torch.linspace(0.00085**0.5, 0.02**0.5, 1000, dtype=torch.float64) ** 2
    return torch.cat([torch.ones(1, dtype=torch.float64), (1 - betas).cumprod(0)]).float()


ALPHAS = alphas()


def alpha(timesteps: Tensor) -> Tensor:
    """One per frame of latents (1, C, F, h, w); 1 for timesteps below zero."""
    return ALPHAS[(timesteps + 1).clamp(min=0)].view(1, 1, -1, 1, 1)


def noised(latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
    share = alpha(timesteps)
    return share.sqrt() * latents + (1 - share).sqrt() * noise


@dataclass
class PlainSession:
    """A case's session. Stages are recorded under the figures' names as they are computed."""

    case: Case
    networks: StreamNetworks
    recorded: dict[str, list[Tensor]] = field(default_factory=dict)

    def record(self, name: str, value: Tensor) -> Tensor:
        self.recorded.setdefault(name, []).append(value)
        return value

    def run(self) -> Iterator[int]:
        """Fuse the reference, then one chunk after the other; yields each chunk's number when it is done."""
        self.fuse()
        for chunk in range(int(self.case.facts["chunks"])):
            self.step(chunk)
            yield chunk

    def fuse(self) -> None:
        facts, nets = self.case.facts, self.networks
        height, width = self.case.height, self.case.width
        size = [int(facts.get(f"reference_{side}", facts[side])) for side in ("height", "width")]
        image = recipe.image(facts["reference"], *size)
        clip = nets.image_encoder(pixel_values=clip_pixels(image))
        self.image_embeds = self.record("image_embeds", clip.image_embeds[:, None])
        self.pixels = reference_pixels(image, height, width)
        latents: Tensor = nets.vae.encode(self.pixels).latent_dist.mean * SCALE
        self.latents = self.record("ref_latents", latents)
        self.cross = nets.reference_unet.cross_constants(self.image_embeds)
        self.banks = [nets.reference_unet(latents, self.cross)]
        self.head = nets.motion_extractor(reference_thumbnail(image))
        still = latents[:, :, None].expand(-1, -1, PAD, -1, -1)
        noise = torch.from_numpy(recipe.array("noise/0", still.shape))
        self.pile = noised(still, noise, TIMESTEPS[:PAD])
        self.motion_bank: list[Tensor] = []
        self.video = driving_pixels(
            recipe.video(facts["driving"], CHUNK * int(facts["chunks"]), height, width)
        )

    def step(self, chunk: int) -> None:
        frames = self.video[CHUNK * chunk : CHUNK * (chunk + 1)]
        points, motion = self.drive(frames, first=chunk == 0)
        pose = self.networks.pose_guider(self.canvas(points))
        self.record("pose", pose[..., ::8, ::8].transpose(0, 2))
        if chunk:
            motion = torch.cat([self.motion[CHUNK:], motion])
            pose = torch.cat([self.pose[:, :, CHUNK:], pose], dim=2)
        self.motion: Tensor = motion
        self.pose: Tensor = pose
        self.denoise(chunk)

    def drive(self, frames: Tensor, *, first: bool) -> tuple[Tensor, Tensor]:
        """Keypoints to draw and motion tokens of a chunk, the first one's transition in front."""
        height, width = self.case.height, self.case.width
        head = self.networks.motion_extractor(driving_thumbnails(frames))
        if first:
            self.first = HeadMotion(*(part[:1] for part in head))
        drawn = carried_over(self.head, head, self.first)
        points = keypoints(drawn)
        boxes = face_boxes(keypoints(head), height, width)
        if first:
            begin = transition(self.head, HeadMotion(*(part[:1] for part in drawn)), PAD)
            points = torch.cat([keypoints(begin), points])
            boxes = torch.cat([boxes, face_boxes(points[:1], height, width)])
            frames = torch.cat([frames, self.pixels])
        self.record("kps", points)
        self.record("boxes", boxes)
        motion = self.networks.motion_encoder(crop_faces(frames, boxes).crops)
        if first:
            motion, own = motion[:CHUNK], motion[CHUNK:]
            self.record("motion", own)
            self.motion_bank.append(own)
        self.record("motion", motion)
        if first:
            motion = torch.cat([approach(self.motion_bank[0], motion[:1], PAD), motion])
        return points, motion

    def canvas(self, points: Tensor) -> Tensor:
        canvas = draw_canvas(points, self.case.height, self.case.width)
        self.record("canvas", canvas.sum(dim=(2, 3)))
        return canvas.transpose(0, 1)[None]

    def denoise(self, chunk: int) -> None:
        nets = self.networks
        fresh = self.latents[:, :, None].expand(-1, -1, CHUNK, -1, -1)
        noise = torch.from_numpy(recipe.array(f"noise/{chunk + 1}", fresh.shape))
        window = torch.cat([self.pile, noised(fresh, noise, TIMESTEPS[-CHUNK:])], dim=2)
        conditions = nets.denoising_unet.conditions(
            timesteps=TIMESTEPS,
            motion=self.motion[None],
            pose=self.pose,
            image_embeds=self.image_embeds,
            banks=self.banks,
        )
        noise_pred = nets.denoising_unet(window, conditions)
        if chunk in {0, 1, int(self.case.facts["chunks"]) - 1}:
            self.record("noise_pred", noise_pred)
        share = alpha(TIMESTEPS)
        clean = (window - (1 - share).sqrt() * noise_pred) / share.sqrt()
        self.keyframe(chunk, clean[:, :, 0])
        self.record("latents", clean[0, :, :CHUNK].transpose(0, 1))
        after = alpha(TIMESTEPS - STEP)
        self.pile = (after.sqrt() * clean + (1 - after).sqrt() * noise_pred)[:, :, CHUNK:]

    def keyframe(self, chunk: int, clean: Tensor) -> None:
        motion = self.motion[:1]
        if chunk >= FIRST_KEYFRAME_CHUNK:
            distances = [float((motion - other).norm()) for other in self.motion_bank]
            if min(distances) > float(self.case.facts["keyframe_threshold"]):
                self.motion_bank.append(motion)
                if len(self.banks) <= MOST_KEYFRAMES:
                    self.banks.append(self.networks.reference_unet(clean, self.cross))
        self.record("keyframes", torch.tensor([len(self.banks) - 1]))

    def stage(self, name: str) -> Tensor:
        """What was recorded under that name, frames first."""
        return torch.cat(self.recorded[name])


def per_frame(name: str, figure: np.ndarray) -> Tensor:
    """A figure with its frames in front, as `PlainSession.stage` has them."""
    tensor = torch.from_numpy(figure)
    match name:
        case "motion":
            return tensor[0]
        case "pose":
            return tensor.transpose(0, 2)
        case "noise_pred":
            return tensor[:, 0].transpose(1, 2).flatten(0, 1)
        case _:
            return tensor
