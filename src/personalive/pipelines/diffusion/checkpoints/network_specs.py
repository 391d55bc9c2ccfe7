"""The networks of a set: how each is built, which files fill it, and which of their entries may be ignored."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from personalive.errors import MissingWeightsError, WeightsError
from personalive.pipelines.diffusion.checkpoints import hf_config, layout
from personalive.pipelines.diffusion.checkpoints.checkpoint_file import summarize_error
from personalive.pipelines.diffusion.checkpoints.layout import PublishedFile
from personalive.pipelines.diffusion.checkpoints.model_config import ModelConfig, read_json_object
from personalive.pipelines.diffusion.checkpoints.state_dict import Rename, keep_name
from personalive.pipelines.diffusion.networks.autoencoder import Autoencoder
from personalive.pipelines.diffusion.networks.denoising_unet import DenoisingUNet
from personalive.pipelines.diffusion.networks.image_encoder import ImageEncoder
from personalive.pipelines.diffusion.networks.motion_encoder import MotionEncoder
from personalive.pipelines.diffusion.networks.motion_extractor import MotionExtractor
from personalive.pipelines.diffusion.networks.pose_guider import PoseGuider
from personalive.pipelines.diffusion.networks.reference_unet import ReferenceUNet
from personalive.pipelines.diffusion.networks.tiny_autoencoder import TinyAutoencoder

_LEGACY_ATTENTION_KEY = re.compile(
    r"(mid_block\.attentions\.\d+)\.(query|key|value|proj_attn)\.(weight|bias)$"
)
_TINY_UPSAMPLE_STORED = re.compile(r"^(decoder\.layers\.[1-9]\d*)\.weight$")
_TINY_UPSAMPLE_MODULE = re.compile(r"^(decoder\.layers\.\d+)\.conv\.weight$")
_WEIGHT_AXES = 4
_ATTENTION_RENAMES = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}


def _rename_legacy_vae_key(name: str, shape: tuple[int, ...]) -> tuple[str, tuple[int, ...]]:
    """Convert a name and shape of older exports, whose attention was made of 1×1 convolutions, to today's."""
    renamed = _LEGACY_ATTENTION_KEY.sub(
        lambda match: f"{match[1]}.{_ATTENTION_RENAMES[match[2]]}.{match[3]}", name
    )
    if re.search(r"mid_block\.attentions\.\d+\.to_", renamed) and shape[2:] == (1, 1):
        shape = shape[:2]
    return renamed, shape


def _rename_tiny_vae_key(name: str, shape: tuple[int, ...]) -> tuple[str, tuple[int, ...]]:
    """Rename a convolution after an upsampling, which is a part of it here.

    Only these convolutions, besides the first one, keep the width.
    """
    keeps_width = len(shape) == _WEIGHT_AXES and shape[0] == shape[1]
    return (_TINY_UPSAMPLE_STORED.sub(r"\1.conv.weight", name) if keeps_width else name), shape


def _restore_tiny_vae_key(name: str) -> str:
    """Return the published name of an entry, which is the inverse of `_rename_tiny_vae_key`."""
    return _TINY_UPSAMPLE_MODULE.sub(r"\1.weight", name)


@dataclass(frozen=True, slots=True)
class NetworkSpec:
    """One network of a set.

    Entries of later `files` replace those of earlier ones. `build` makes the module, on the meta device except for
    its constants. `converted_file` is the network's file in a converted set. `rename` converts the name and shape
    of a file's entry to the module's, `restore_name` converts the name back. Entries that begin with one of
    `ignored_prefixes` are ignored if they belong to nothing; those that begin with one of `float32_prefixes` are
    always kept in float32.
    """

    name: str
    converted_file: PublishedFile
    files: tuple[PublishedFile, ...]
    build: Callable[[Path, ModelConfig], nn.Module]
    rename: Rename = keep_name
    restore_name: Callable[[str], str] = str
    ignored_prefixes: tuple[str, ...] = ()
    float32_prefixes: tuple[str, ...] = ()
    config: PublishedFile | None = None

    def resolve_dtype(self, entry: str, dtype: torch.dtype) -> torch.dtype:
        """Return the type that a floating-point entry of the module is kept in where `dtype` is asked for."""
        return torch.float32 if entry.startswith(self.float32_prefixes) else dtype

    def find_files(self, root: Path) -> list[Path]:
        """Return the network's files that are in the set. Raises `MissingWeightsError` when there are none."""
        found = [path for path in (file.find_in(root) for file in self.files) if path is not None]
        if not found:
            expected = root / self.converted_file.folder / self.converted_file.names[-1]
            raise MissingWeightsError(
                f"There is no {self.name} in {root}: {expected} is missing. Get the released weights with: "
                "personalive download"
            )
        return found

    def missing_files(self, root: Path) -> list[Path]:
        """Return the paths of the network's files that are missing in the set."""
        return [root / file.folder / file.names[-1] for file in self.files if file.find_in(root) is None]


def _library_network(
    name: str,
    file: PublishedFile,
    config: PublishedFile,
    construct: Callable[[hf_config.Config], nn.Module],
    **options: Any,
) -> NetworkSpec:
    """Describe a network that a library defines, whose sizes are in a config.json."""

    def build(root: Path, sizes: ModelConfig) -> nn.Module:
        del sizes
        path = config.find_in(root)
        if path is None:
            raise MissingWeightsError(f"{root / config.folder / config.names[0]} is missing.")
        content = read_json_object(path)
        with _on_meta_device(path):
            return construct(content)

    return NetworkSpec(name, file, (file,), build, config=config, **options)


def _sized_network(
    name: str,
    file: PublishedFile,
    construct: Callable[[Any], nn.Module],
    files: tuple[PublishedFile, ...] = (),
    **options: Any,
) -> NetworkSpec:
    """Describe a network whose sizes are those of its name in the set's `ModelConfig`."""

    def build(root: Path, sizes: ModelConfig) -> nn.Module:
        with _on_meta_device(root / layout.MODEL_CONFIG):
            return construct(getattr(sizes, name))

    return NetworkSpec(name, file, files or (file,), build, **options)


class _Uninitialized(TorchFunctionMode):
    """A mode in which layers are built without drawing random numbers, which is slow even on the meta device."""

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
def _on_meta_device(path: Path) -> Iterator[None]:
    """Build on the meta device within the block, and convert errors to one that names the file with the sizes."""
    try:
        with torch.device("meta"), _Uninitialized():
            yield
    except Exception as error:  # layers raise errors of many types for wrong sizes
        raise WeightsError(f"{path} describes no usable network ({summarize_error(error)}).") from error


NETWORKS = (
    _sized_network("reference_unet", layout.REFERENCE_UNET, ReferenceUNet),
    _sized_network(
        "denoising_unet",
        layout.DENOISING_UNET,
        DenoisingUNet,
        files=(layout.BASE_UNET, layout.DENOISING_UNET, layout.TEMPORAL_MODULE),
    ),
    _sized_network("motion_encoder", layout.MOTION_ENCODER, MotionEncoder),
    _sized_network(
        "motion_extractor",
        layout.MOTION_EXTRACTOR,
        MotionExtractor,
        ignored_prefixes=("",),  # the published file also holds entries of a larger model
        float32_prefixes=(
            "",
        ),  # keypoints are truncated to pixels, and half precision moves them into others
    ),
    _sized_network("pose_guider", layout.POSE_GUIDER, PoseGuider),
    _library_network(
        "image_encoder",
        layout.IMAGE_ENCODER,
        layout.IMAGE_ENCODER_CONFIG,
        lambda config: ImageEncoder(hf_config.read_image_encoder_params(config)),
    ),
    _library_network(
        "vae",
        layout.VAE,
        layout.VAE_CONFIG,
        lambda config: Autoencoder(hf_config.read_autoencoder_params(config)),
        rename=_rename_legacy_vae_key,
        # A session's first frames inherit the rounding errors of the reference.
        float32_prefixes=("encoder.", "quant_conv."),
    ),
)
"""Every network that a set must have."""

DENOISING_UNET = next(network for network in NETWORKS if network.converted_file is layout.DENOISING_UNET)

TINY_VAE = _library_network(
    "tiny_vae",
    layout.TINY_VAE,
    layout.TINY_VAE_CONFIG,
    lambda config: TinyAutoencoder(hf_config.read_tiny_autoencoder_params(config)),
    rename=_rename_tiny_vae_key,
    restore_name=_restore_tiny_vae_key,
    ignored_prefixes=("encoder.",),
)


def list_networks(root: Path) -> tuple[NetworkSpec, ...]:
    """Return the networks of the set at `root`: all that it must have, and the optional one if it is there."""
    return (*NETWORKS, TINY_VAE) if layout.TINY_VAE.find_in(root) else NETWORKS
