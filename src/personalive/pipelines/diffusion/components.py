"""All networks of the method, as a loaded pipeline holds them."""

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

    All compute in `dtype` except two parts, which stay in float32. The motion extractor does because keypoints are
    truncated to pixels, and half precision would move some into other pixels. The encoder of `vae` does because a
    session's first frames inherit the rounding errors of the encoded reference.
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
    """The networks, or parts of one, that are on the device only while they are needed, by name."""
    warnings: tuple[str, ...] = ()
    """What is unusual about the files that the networks were read from, one sentence each."""

    def offload(self, names: Iterable[str]) -> Components:
        """Return the same networks, those named (or parts, as "vae.encoder") on the device only while needed."""
        return replace(self, offloaded={name: OffloadedModule(attrgetter(name)(self)) for name in names})

    @contextmanager
    def onloaded(self, name: str) -> Iterator[None]:
        """Keep the network of that name on the device for the time of the block."""
        module = self.offloaded.get(name)
        with module.onloaded(self.device) if module is not None else nullcontext():
            yield

    def networks(self) -> dict[str, nn.Module]:
        """Return the networks that this set has, by name."""
        found = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return {name: network for name, network in found.items() if isinstance(network, nn.Module)}

    def fingerprint(self) -> str:
        """Return a short hash that tells weights apart: of each network's first and last tensor and their types."""
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
