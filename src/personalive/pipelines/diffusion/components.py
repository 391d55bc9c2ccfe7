"""The networks of the method, together: what a loaded pipeline holds."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from operator import attrgetter
from typing import TYPE_CHECKING

import torch
from torch import nn

from personalive.pipelines.diffusion.device.offload import OffloadedModule

if TYPE_CHECKING:
    from personalive.pipelines.diffusion.networks.autoencoder import Autoencoder
    from personalive.pipelines.diffusion.networks.denoising_unet import DenoisingUNet
    from personalive.pipelines.diffusion.networks.image_encoder import ImageEncoder
    from personalive.pipelines.diffusion.networks.motion_encoder import MotionEncoder
    from personalive.pipelines.diffusion.networks.motion_extractor import MotionExtractor
    from personalive.pipelines.diffusion.networks.pose_guider import PoseGuider
    from personalive.pipelines.diffusion.networks.reference_unet import ReferenceUNet
    from personalive.pipelines.diffusion.networks.tiny_autoencoder import TinyAutoencoder


@dataclass(frozen=True, slots=True)
class Components:
    """Every network, on one device, ready for inference.

    All compute in `dtype` but two, which stay in float32: the motion extractor, as keypoints are truncated to
    pixels, and half precision moves them into others; and what encodes in `vae`, as a session's first frames
    inherit from the reference what would be rounded there.
    """

    reference_unet: ReferenceUNet
    denoising_unet: DenoisingUNet
    motion_encoder: MotionEncoder
    motion_extractor: MotionExtractor
    pose_guider: PoseGuider
    image_encoder: ImageEncoder
    vae: Autoencoder
    tiny_vae: TinyAutoencoder | None
    device: torch.device
    dtype: torch.dtype
    offloaded: Mapping[str, OffloadedModule] = field(default_factory=dict)
    """By name, the networks, or parts of one, that are on the device only while they are needed."""
    warnings: tuple[str, ...] = ()
    """What is unusual about the files that they come from, one sentence each."""

    def offload(self, names: Iterable[str]) -> Components:
        """The same networks, those named (of a network's part, "vae.encoder") there only while they are needed."""
        return replace(self, offloaded={name: OffloadedModule(attrgetter(name)(self)) for name in names})

    @contextmanager
    def onloaded(self, name: str) -> Iterator[None]:
        """For the time of the block, the network of that name is on the device."""
        shelf = self.offloaded.get(name)
        with shelf.onloaded(self.device) if shelf is not None else nullcontext():
            yield

    def networks(self) -> dict[str, nn.Module]:
        """Name → network, those that are there."""
        found = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return {name: network for name, network in found.items() if isinstance(network, nn.Module)}

    def fingerprint(self) -> str:
        """A short hash that tells weights apart: of each network's first and last tensor and their types."""
        digest = hashlib.sha256()
        for name, network in self.networks().items():
            tensors = list(network.state_dict().values())
            for tensor in (tensors[0], tensors[-1]):
                digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
                digest.update(tensor.detach().float().cpu().numpy().tobytes())
        return digest.hexdigest()[:16]

    @property
    def nbytes(self) -> int:
        """Bytes of all weights."""
        return sum(
            tensor.nbytes for network in self.networks().values() for tensor in network.state_dict().values()
        )
