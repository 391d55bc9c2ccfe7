"""The networks of a set: how each is built, which files fill it, and what its files are forgiven."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from personalive.errors import MissingWeightsError, WeightsError
from personalive.pipelines.personalive.networks.denoising_unet import DenoisingUNet
from personalive.pipelines.personalive.networks.motion_encoder import MotionEncoder
from personalive.pipelines.personalive.networks.motion_extractor import MotionExtractor
from personalive.pipelines.personalive.networks.pose_guider import PoseGuider
from personalive.pipelines.personalive.networks.reference_unet import ReferenceUNet
from personalive.pipelines.personalive.weights import layout
from personalive.pipelines.personalive.weights.entries import Rename, as_it_is
from personalive.pipelines.personalive.weights.layout import PublishedFile
from personalive.pipelines.personalive.weights.sizes import Sizes, read_object
from personalive.pipelines.personalive.weights.tensor_files import summary

if TYPE_CHECKING:
    from transformers import CLIPVisionModelWithProjection

_OLD_ATTENTION = re.compile(r"(mid_block\.attentions\.\d+)\.(query|key|value|proj_attn)\.(weight|bias)$")
_NEW_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}

_IMAGE_ENCODER_SIZES = frozenset(
    (
        "hidden_size",
        "intermediate_size",
        "projection_dim",
        "num_hidden_layers",
        "num_attention_heads",
        "num_channels",
        "image_size",
        "patch_size",
        "hidden_act",
        "layer_norm_eps",
    )
)

_LARGEST_NUMBER = 1 << 16
_LONGEST_LIST = 64
_BOUNDS = {
    "num_hidden_layers": 64,
    "layers_per_block": 16,
    "num_encoder_blocks": 16,
    "num_decoder_blocks": 16,
    "image_size": 1024,
}


def _modern_vae_entry(name: str, shape: tuple[int, ...]) -> tuple[str, tuple[int, ...]]:
    """Names and shapes of older exports, whose attention was made of 1×1 convolutions, as they are today."""
    renamed = _OLD_ATTENTION.sub(lambda match: f"{match[1]}.{_NEW_ATTENTION[match[2]]}.{match[3]}", name)
    if re.search(r"mid_block\.attentions\.\d+\.to_", renamed) and shape[2:] == (1, 1):
        shape = shape[:2]
    return renamed, shape


@dataclass(frozen=True, slots=True)
class Network:
    """One network of a set.

    `files` are laid over one another, later over earlier. `build` makes the module, on the meta device but
    for its constants. `main` is the file that a converted set keeps it in.
    """

    name: str
    main: PublishedFile
    files: tuple[PublishedFile, ...]
    build: Callable[[Path, Sizes], nn.Module]
    rename: Rename = as_it_is
    ignore_extra: bool = False
    always_float32: bool = False
    config: PublishedFile | None = None

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


def _build_vae(root: Path, sizes: Sizes) -> nn.Module:
    del sizes
    from diffusers import AutoencoderKL

    return _from_config(root, layout.VAE_CONFIG, AutoencoderKL.from_config)


def _build_tiny_vae(root: Path, sizes: Sizes) -> nn.Module:
    del sizes
    from diffusers import AutoencoderTiny

    return _from_config(root, layout.TINY_VAE_CONFIG, AutoencoderTiny.from_config)


def _build_image_encoder(root: Path, sizes: Sizes) -> nn.Module:
    del sizes
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    def build(config: dict[str, Any]) -> CLIPVisionModelWithProjection:
        # Sizes only: a config may also name a dtype, or an implementation to be fetched from the hub and run.
        chosen = {name: value for name, value in config.items() if name in _IMAGE_ENCODER_SIZES}
        model = CLIPVisionModelWithProjection(CLIPVisionConfig(**chosen))
        embeddings = model.vision_model.embeddings
        positions = torch.arange(embeddings.num_positions, device="cpu")
        embeddings.position_ids = positions[None]  # its one constant
        return model

    return _from_config(root, layout.IMAGE_ENCODER_CONFIG, build)


def _from_config(root: Path, file: PublishedFile, build: Callable[[dict[str, Any]], Any]) -> nn.Module:
    path = file.find(root)
    if path is None:
        raise MissingWeightsError(f"{root / file.folder / file.names[0]} is missing.")
    config = read_object(path)
    with _described_by(path):
        _require_bounded(config)
        module: nn.Module = build(config)
    return module


def _require_bounded(config: Mapping[str, Any]) -> None:
    """Raise ValueError for numbers with which building a network takes hours or all of the memory."""
    for name, value in config.items():
        values = value if isinstance(value, list) else [value]
        bound = _BOUNDS.get(name, _LARGEST_NUMBER)
        if len(values) > _LONGEST_LIST:
            raise ValueError(f"{name[:100]} lists {len(values)} values; {_LONGEST_LIST} are possible")
        for number in values:
            if isinstance(number, int | float) and not -bound <= number <= bound:
                raise ValueError(
                    f"{name[:100]} is {repr(number)[:100]}; {bound} is the most that is possible"
                )


def _ours(make: Callable[[Sizes], nn.Module]) -> Callable[[Path, Sizes], nn.Module]:
    def build(root: Path, sizes: Sizes) -> nn.Module:
        with _described_by(root / layout.SIZES):
            return make(sizes)

    return build


@contextmanager
def _described_by(path: Path) -> Iterator[None]:
    """Build in the block, on the meta device; what goes wrong is put down to the file with the sizes."""
    try:
        with torch.device("meta"):
            yield
    except Exception as error:  # libraries say what is wrong with a config in many ways
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
        ignore_extra=True,  # the published file carries entries of a larger model
        always_float32=True,
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
        _build_image_encoder,
        config=layout.IMAGE_ENCODER_CONFIG,
    ),
    Network("vae", layout.VAE, (layout.VAE,), _build_vae, rename=_modern_vae_entry, config=layout.VAE_CONFIG),
)
"""Every network that a set must have."""

TINY_VAE = Network(
    "tiny_vae", layout.TINY_VAE, (layout.TINY_VAE,), _build_tiny_vae, config=layout.TINY_VAE_CONFIG
)


def networks_of(root: Path) -> tuple[Network, ...]:
    """The networks of the set at `root`: all that it must have, and the optional one if it is there."""
    return (*NETWORKS, TINY_VAE) if layout.TINY_VAE.find(root) else NETWORKS
