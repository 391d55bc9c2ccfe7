"""A case's session on the real pipeline: its networks, its noise, and every stage recorded."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from personalive.pipelines.base import FrameChunk
from personalive.pipelines.diffusion.components import Components
from personalive.pipelines.diffusion.parameters import PersonaLiveLoadParameters, PersonaLiveRunParameters
from personalive.pipelines.diffusion.pipeline import PersonaLivePipeline
from personalive.pipelines.diffusion.preprocessing.face_crops import compute_face_boxes
from personalive.pipelines.diffusion.preprocessing.keypoints import transform_keypoints
from personalive.pipelines.diffusion.preprocessing.pixels import preprocess_clip_image
from tests.parity.networks import StreamNetworks, bank_statistics
from tests.pipelines.diffusion import recipe
from tests.pipelines.diffusion.figures import Case

CHUNK = 4


class NamedNoise:
    """The case's noise: draw n is the array of that number."""

    def __init__(self) -> None:
        self._drawn = 0

    def draw(self, shape: tuple[int, ...]) -> Tensor:
        self._drawn += 1
        return torch.from_numpy(recipe.array(f"noise/{self._drawn - 1}", shape))

    def state(self) -> Tensor:
        return torch.tensor([self._drawn], dtype=torch.uint8)

    def restore(self, state: Tensor) -> None:
        self._drawn = int(state[0])


def models(salt: str) -> Components:
    """A case's networks, as a pipeline holds them."""
    networks = StreamNetworks(salt)
    return Components(
        reference_unet=networks.reference_unet,
        denoising_unet=networks.denoising_unet,
        motion_encoder=networks.motion_encoder,
        motion_extractor=networks.motion_extractor,
        pose_guider=networks.pose_guider,
        image_encoder=networks.image_encoder,
        vae=networks.vae,
        tiny_vae=None,
        device=torch.device("cpu"),
        dtype=torch.float32,
    )


def run(case: Case, chunks: int) -> dict[str, list[Tensor]]:
    """Every stage of the session's first chunks by its figure's name, one tensor a chunk."""
    own = models(case.salt)
    load = PersonaLiveLoadParameters(height=case.height, width=case.width, face_detection=False)
    recorded: dict[str, list[Tensor]] = {}
    with PersonaLivePipeline(own, load) as pipeline:
        facts = case.facts
        size = [int(facts.get(f"reference_{side}", facts[side])) for side in ("height", "width")]
        image = recipe.image(facts["reference"], *size)
        reference = pipeline.fuse(image)
        recorded |= {"ref_latents": [reference.latents], "motion": [reference.motion]}
        with torch.inference_mode():
            box = compute_face_boxes(transform_keypoints(reference.head), case.height, case.width)
            embeds = own.image_encoder(preprocess_clip_image(image))
            banks = own.reference_unet(reference.latents, reference.keyframe_cross_attention)
        recorded |= {"image_embeds": [embeds[:, None]], "bank_stats": [bank_statistics(banks)]}

        def record(stage: str, value: Tensor) -> None:
            recorded.setdefault(stage, []).append(value)

        run_parameters = PersonaLiveRunParameters(keyframe_threshold=facts["keyframe_threshold"])
        with pipeline.open_session(reference, run_parameters, noise=NamedNoise, trace=record) as session:
            frames = recipe.video(facts["driving"], CHUNK * chunks, case.height, case.width)
            for chunk in range(chunks):
                images = frames[CHUNK * chunk : CHUNK * (chunk + 1)]
                session.step(FrameChunk(images, np.zeros(CHUNK)))
    recorded["boxes"].insert(1, box)
    return recorded
