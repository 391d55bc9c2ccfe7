"""The networks of a set: how each is built, which files fill it, and what its files are forgiven."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from personalive.errors import MissingWeightsError, WeightsError
from personalive.pipelines.diffusion.checkpoints import hf_config, layout
from personalive.pipelines.diffusion.checkpoints.checkpoint_file import summary
from personalive.pipelines.diffusion.checkpoints.layout import PublishedFile
from personalive.pipelines.diffusion.checkpoints.model_config import Sizes, read_object
from personalive.pipelines.diffusion.checkpoints.state_dict import Rename, as_it_is
from personalive.pipelines.diffusion.networks.autoencoder import Autoencoder
from personalive.pipelines.diffusion.networks.denoising_unet import DenoisingUNet
from personalive.pipelines.diffusion.networks.image_encoder import ImageEncoder
from personalive.pipelines.diffusion.networks.motion_encoder import MotionEncoder
from personalive.pipelines.diffusion.networks.motion_extractor import MotionExtractor
from personalive.pipelines.diffusion.networks.pose_guider import PoseGuider
from personalive.pipelines.diffusion.networks.reference_unet import ReferenceUNet
from personalive.pipelines.diffusion.networks.tiny_autoencoder import TinyAutoencoder

Params = TypeVar("Params")

_OLD_ATTENTION = re.compile(r"(mid_block\.attentions\.\d+)\.(query|key|value|proj_attn)\.(weight|bias)$")
_TINY_DOUBLING = re.compile(r"^(decoder\.layers\.[1-9]\d*)\.weight$")
_TINY_DOUBLED = re.compile(r"^(decoder\.layers\.\d+)\.conv\.weight$")
_WEIGHT_AXES = 4
_NEW_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}


def _modern_vae_entry(name: str, shape: tuple[int, ...]) -> tuple[str, tuple[int, ...]]:
    """Names and shapes of older exports, whose attention was made of 1×1 convolutions, as they are today."""
    renamed = _OLD_ATTENTION.sub(lambda match: f"{match[1]}.{_NEW_ATTENTION[match[2]]}.{match[3]}", name)
    if re.search(r"mid_block\.attentions\.\d+\.to_", renamed) and shape[2:] == (1, 1):
        shape = shape[:2]
    return renamed, shape


def _tiny_vae_entry(name: str, shape: tuple[int, ...]) -> tuple[str, tuple[int, ...]]:
    """The convolution behind a doubling is a part of it here: these alone, but for the first, keep the width."""
    keeps_width = len(shape) == _WEIGHT_AXES and shape[0] == shape[1]
    return (_TINY_DOUBLING.sub(r"\1.conv.weight", name) if keeps_width else name), shape


def _stored_tiny_vae_entry(name: str) -> str:
    """The other way round."""
    return _TINY_DOUBLED.sub(r"\1.weight", name)


@dataclass(frozen=True, slots=True)
class Network:
    """One network of a set.

    `files` are laid over one another, later over earlier. `build` makes the module, on the meta device but for its
    constants. `main` is the file that a converted set keeps it in. `rename` takes an entry of a file to the
    module's, `stored` the name back. Entries that begin like one of `ignored` may be in a file for nothing; those
    that begin like one of `float32` are not kept in any other type.
    """

    name: str
    main: PublishedFile
    files: tuple[PublishedFile, ...]
    build: Callable[[Path, Sizes], nn.Module]
    rename: Rename = as_it_is
    stored: Callable[[str], str] = str
    ignored: tuple[str, ...] = ()
    float32: tuple[str, ...] = ()
    config: PublishedFile | None = None

    def dtype_of(self, entry: str, dtype: torch.dtype) -> torch.dtype:
        """What a floating entry of the module is kept in where the others are in `dtype`."""
        return torch.float32 if entry.startswith(self.float32) else dtype

    def present(self, root: Path) -> list[Path]:
        """Its files that are in the set. Raises `MissingWeightsError` when there is none."""
        found = [path for path in (file.find(root) for file in self.files) if path is not None]
        if not found:
            expected = root / self.main.folder / self.main.names[-1]
            raise MissingWeightsError(
                f"There is no {self.name} in {root}: {expected} is missing. Get the released weights with: "
                "personalive download"
            )
        return found

    def absent(self, root: Path) -> list[Path]:
        """Where its files would be that are not in the set."""
        return [root / file.folder / file.names[-1] for file in self.files if file.find(root) is None]


def _published(
    file: PublishedFile, read: Callable[[hf_config.Config], Params], make: Callable[[Params], nn.Module]
) -> Callable[[Path, Sizes], nn.Module]:
    """How a network is built whose sizes are in a config.json."""

    def build(root: Path, sizes: Sizes) -> nn.Module:
        del sizes
        path = file.find(root)
        if path is None:
            raise MissingWeightsError(f"{root / file.folder / file.names[0]} is missing.")
        config = read_object(path)
        with _described_by(path):
            return make(read(config))

    return build


def _ours(make: Callable[[Sizes], nn.Module]) -> Callable[[Path, Sizes], nn.Module]:
    def build(root: Path, sizes: Sizes) -> nn.Module:
        with _described_by(root / layout.SIZES):
            return make(sizes)

    return build


class _Uninitialized(TorchFunctionMode):
    """Build layers without drawing numbers: on the meta device, too, that takes longer than all else."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        del types
        if getattr(func, "__module__", "") == "torch.nn.init":
            return args[0] if args else (kwargs or {})["tensor"]
        return func(*args, **(kwargs or {}))


@contextmanager
def _described_by(path: Path) -> Iterator[None]:
    """Build in the block, on the meta device; what goes wrong is put down to the file with the sizes."""
    try:
        with torch.device("meta"), _Uninitialized():
            yield
    except Exception as error:  # layers say what is wrong with sizes in many ways
        raise WeightsError(f"{path} describes no usable network ({summary(error)}).") from error


NETWORKS = (
    Network(
        "reference_unet",
        layout.REFERENCE_UNET,
        (layout.REFERENCE_UNET,),
        _ours(lambda sizes: ReferenceUNet(sizes.reference_unet)),
    ),
    Network(
        "denoising_unet",
        layout.DENOISING_UNET,
        (layout.BASE_UNET, layout.DENOISING_UNET, layout.TEMPORAL_MODULE),
        _ours(lambda sizes: DenoisingUNet(sizes.denoising_unet)),
    ),
    Network(
        "motion_encoder",
        layout.MOTION_ENCODER,
        (layout.MOTION_ENCODER,),
        _ours(lambda sizes: MotionEncoder(sizes.motion_encoder)),
    ),
    Network(
        "motion_extractor",
        layout.MOTION_EXTRACTOR,
        (layout.MOTION_EXTRACTOR,),
        _ours(lambda sizes: MotionExtractor(sizes.motion_extractor)),
        ignored=("",),  # the published file carries entries of a larger model
        float32=("",),  # keypoints are truncated to pixels, and half precision moves them into others
    ),
    Network(
        "pose_guider",
        layout.POSE_GUIDER,
        (layout.POSE_GUIDER,),
        _ours(lambda sizes: PoseGuider(sizes.pose_guider)),
    ),
    Network(
        "image_encoder",
        layout.IMAGE_ENCODER,
        (layout.IMAGE_ENCODER,),
        _published(layout.IMAGE_ENCODER_CONFIG, hf_config.image_encoder_params, ImageEncoder),
        config=layout.IMAGE_ENCODER_CONFIG,
    ),
    Network(
        "vae",
        layout.VAE,
        (layout.VAE,),
        _published(layout.VAE_CONFIG, hf_config.autoencoder_params, Autoencoder),
        rename=_modern_vae_entry,
        # A session's first frames inherit what is rounded in the reference.
        float32=("encoder.", "quant_conv."),
        config=layout.VAE_CONFIG,
    ),
)
"""Every network that a set must have."""

DENOISING_UNET = next(network for network in NETWORKS if network.main is layout.DENOISING_UNET)

TINY_VAE = Network(
    "tiny_vae",
    layout.TINY_VAE,
    (layout.TINY_VAE,),
    _published(layout.TINY_VAE_CONFIG, hf_config.tiny_autoencoder_params, TinyAutoencoder),
    rename=_tiny_vae_entry,
    stored=_stored_tiny_vae_entry,
    ignored=("encoder.",),
    config=layout.TINY_VAE_CONFIG,
)


def networks_of(root: Path) -> tuple[Network, ...]:
    """The networks of the set at `root`: all that it must have, and the optional one if it is there."""
    return (*NETWORKS, TINY_VAE) if layout.TINY_VAE.find(root) else NETWORKS
