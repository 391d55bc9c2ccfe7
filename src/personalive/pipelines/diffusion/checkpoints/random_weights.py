"""Sets of seeded random weights in the released layout, for tests, for trials of the program, and for timing.

The frames of such a set look like coloured noise. Its values are well-behaved all the same: activations keep their
scale from layer to layer, and the motion extractor's keypoints stay within the image, as with released weights.
"""

from __future__ import annotations

import hashlib
import json
import math
import tempfile
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from personalive.errors import OutputExistsError
from personalive.pipelines.diffusion.checkpoints import layout
from personalive.pipelines.diffusion.checkpoints.atomic_dir import atomic_dir
from personalive.pipelines.diffusion.checkpoints.layout import PublishedFile
from personalive.pipelines.diffusion.checkpoints.model_config import ModelConfig, write_model_config
from personalive.pipelines.diffusion.checkpoints.network_specs import NETWORKS, TINY_VAE, NetworkSpec
from personalive.pipelines.diffusion.components import Components
from personalive.pipelines.diffusion.networks.denoising_unet import DenoisingUNetParams
from personalive.pipelines.diffusion.networks.motion_encoder import MotionEncoderParams
from personalive.pipelines.diffusion.networks.motion_extractor import MotionExtractorParams
from personalive.pipelines.diffusion.networks.pose_guider import PoseGuiderParams
from personalive.pipelines.diffusion.networks.unet import UNetParams


@dataclass(frozen=True, slots=True)
class RandomWeightsVariant:
    """The sizes of a whole set: some networks' as params, others' as the config.json they are published with."""

    sizes: ModelConfig
    vae: dict[str, Any]
    tiny_vae: dict[str, Any]
    image_encoder: dict[str, Any]


def _vae_config(widths: tuple[int, ...], layers: int) -> dict[str, Any]:
    levels = len(widths)
    return {
        "_class_name": "AutoencoderKL",
        "act_fn": "silu",
        "block_out_channels": widths,
        "down_block_types": ["DownEncoderBlock2D"] * levels,
        "up_block_types": ["UpDecoderBlock2D"] * levels,
        "in_channels": 3,
        "out_channels": 3,
        "latent_channels": 4,
        "layers_per_block": layers,
        "norm_num_groups": 32,
        "sample_size": 256,
        "scaling_factor": 0.18215,
    }


def _tiny_vae_config(width: int, blocks: tuple[int, ...]) -> dict[str, Any]:
    return {
        "_class_name": "AutoencoderTiny",
        "encoder_block_out_channels": [width] * 4,
        "decoder_block_out_channels": [width] * 4,
        "num_encoder_blocks": blocks,
        "num_decoder_blocks": blocks[::-1],
        "latent_channels": 4,
        "scaling_factor": 1.0,
    }


def _image_encoder_config(width: int, layers: int, heads: int, patch: int, projection: int) -> dict[str, Any]:
    return {
        "architectures": ["CLIPVisionModelWithProjection"],
        "model_type": "clip_vision_model",
        "hidden_act": "quick_gelu",
        "hidden_size": width,
        "image_size": 224,
        "intermediate_size": 4 * width if layers > 2 else 2 * width,
        "num_attention_heads": heads,
        "num_hidden_layers": layers,
        "patch_size": patch,
        "projection_dim": projection,
    }


VARIANTS = {
    "small": RandomWeightsVariant(
        ModelConfig(
            reference_unet=UNetParams(
                block_out_channels=(32, 64, 64, 64), layers_per_block=1, cross_attention_width=32
            ),
            denoising_unet=DenoisingUNetParams(
                block_out_channels=(32, 64, 64, 64), layers_per_block=1, cross_attention_width=32
            ),
            motion_encoder=MotionEncoderParams(
                stem=8,
                outer_width=16,
                inner_width=16,
                attention_width=16,
                attention_heads=1,
                norm_groups=4,
                hourglass_depth=2,
                features=32,
            ),
            motion_extractor=MotionExtractorParams(depths=(1, 1, 2, 1), widths=(8, 16, 24, 32)),
            pose_guider=PoseGuiderParams(out_channels=32),
        ),
        vae=_vae_config((32, 32, 32, 32), layers=1),
        tiny_vae=_tiny_vae_config(16, (1, 1, 1, 1)),
        image_encoder=_image_encoder_config(32, layers=2, heads=4, patch=32, projection=32),
    ),
    "released": RandomWeightsVariant(
        ModelConfig(),
        vae=_vae_config((128, 256, 512, 512), layers=2),
        tiny_vae=_tiny_vae_config(64, (1, 3, 3, 3)),
        image_encoder=_image_encoder_config(1024, layers=24, heads=16, patch=14, projection=768),
    ),
}
"""The sizes by name: networks small enough for tests on a CPU, or as large as the released ones."""

# Gain of the weights and range of the biases. Keypoints stay in the image; motion tokens are of order one, since
# larger ones make random UNets amplify rounding errors without bound.
_INIT_SCALES = {
    "motion_extractor/detector.fc_kp": (0.15, (-0.22, 0.22)),
    "motion_extractor/detector.fc_scale": (0.05, (1.0, 1.0)),
    "motion_extractor/detector.fc_t": (0.1, (0.0, 0.0)),
    "motion_encoder/model.conv6": (0.05, (0.5, 0.5)),
    "motion_encoder/final_proj": (0.3, (0.0, 0.0)),
}


def write_random_weights(
    directory: Path,
    *,
    variant: str = "small",
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    progress: Callable[[str], None] = lambda name: None,
) -> Path:
    """Write a complete set of seeded random weights, the released way, and return its folder.

    `progress` is called with each file's name before it is written; the folder appears when all are. Raises
    `OutputExistsError` when the folder is not empty, `InputError` when it cannot be written.
    """
    if directory.is_symlink() or (directory.exists() and not _is_empty_dir(directory)):
        raise OutputExistsError(f"{directory} is not empty: give a new folder.")
    with atomic_dir(directory) as partial:
        write_config_files(partial, VARIANTS[variant])
        for network in (*NETWORKS, TINY_VAE):
            module = network.build(partial, VARIANTS[variant].sizes)
            made = random_state_dict(network.name, module, seed=seed, resolve_dtype=lambda _: dtype)
            weights = {network.restore_name(name): tensor for name, tensor in made.items()}
            for file, part in _split_into_files(network, weights):
                path = partial / file.folder / file.names[-1]
                progress(str(path.relative_to(partial)))
                _save_file(part, path)
    return directory


def _is_empty_dir(directory: Path) -> bool:
    try:
        return not any(directory.iterdir())
    except OSError:  # such as for a file
        return False


def _save_file(weights: dict[str, Tensor], path: Path) -> None:
    """Save the weights, and raise OSError where that fails; torch only reports an unexpected file position."""
    try:
        torch.save(weights, path)
    except RuntimeError as error:
        raise OSError(f"{path.name} could not be written; is the disk full?") from error


def write_config_files(directory: Path, variant: RandomWeightsVariant) -> None:
    """Write the files with the sizes of a set, `model.json` and each config.json, and make the folders."""
    for file in layout.FILES:
        if file is not layout.BASE_UNET and file is not layout.BASE_UNET_CONFIG:
            (directory / file.folder).mkdir(parents=True, exist_ok=True)
    configs = (
        (layout.VAE_CONFIG, variant.vae),
        (layout.TINY_VAE_CONFIG, variant.tiny_vae),
        (layout.IMAGE_ENCODER_CONFIG, variant.image_encoder),
    )
    for file, config in configs:
        path = directory / file.folder / file.names[0]
        path.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    write_model_config(directory, variant.sizes)


def build_meta_networks(variant: RandomWeightsVariant) -> dict[str, nn.Module]:
    """Build the networks of such a set by name, on the meta device except for their constants, for counting."""
    with tempfile.TemporaryDirectory() as name:
        write_config_files(Path(name), variant)
        return {network.name: network.build(Path(name), variant.sizes) for network in (*NETWORKS, TINY_VAE)}


def build_random_components(
    variant: RandomWeightsVariant,
    *,
    device: torch.device,
    dtype: torch.dtype = torch.float32,
    offloaded: Collection[str] = (),
    on_host: Collection[str] = (),
) -> Components:
    """Make the networks of such a set on the device, without files; for timing, where reading would take longer.

    The device's generator draws the values, so they differ from device to device. Networks named in `offloaded` are
    moved to the host as soon as they are made, and wait there until they are needed; those in `on_host` are made on
    the host and stay there.
    """
    networks = build_meta_networks(variant)
    for network in (*NETWORKS, TINY_VAE):
        module = networks[network.name]
        # The device's generator is faster, but networks that never go to the device may not fit there.
        _fill_random(module, network, dtype, torch.device("cpu") if network.name in on_host else device)
        place = torch.device("cpu") if network.name in (*offloaded, *on_host) else device
        module.to(place).requires_grad_(False).eval()
    models = Components(**networks, device=device, dtype=dtype)  # type: ignore[arg-type]
    return models.offload(offloaded)


def _fill_random(module: nn.Module, network: NetworkSpec, dtype: torch.dtype, device: torch.device) -> None:
    """Fill a network with random weights drawn on the device, and convert weights and constants to their types."""

    def kept(entry: str) -> torch.dtype:
        return network.resolve_dtype(entry, dtype)

    weights = random_state_dict(network.name, module, seed=0, resolve_dtype=kept, device=device)
    module.load_state_dict(weights, assign=True)
    for entry, buffer in module.named_buffers():
        if buffer.dtype.is_floating_point:
            buffer.data = buffer.to(kept(entry))


def random_state_dict(
    network: str,
    module: nn.Module,
    *,
    seed: int,
    resolve_dtype: Callable[[str], torch.dtype] = lambda _: torch.float32,
    device: torch.device | str = "cpu",
) -> dict[str, Tensor]:
    """Return a random state dict for a module on the meta device; the module's constants are unchanged.

    `resolve_dtype` returns the type of a floating-point entry by its name. Each entry depends only on `seed`, the
    network's name, the entry's name and the kind of device.
    """
    return {
        name: _random_tensor(network, name, tensor, seed, torch.device(device)).to(
            resolve_dtype(name) if tensor.dtype.is_floating_point else tensor.dtype
        )
        if tensor.is_meta
        else tensor
        for name, tensor in module.state_dict().items()
    }


def _random_tensor(network: str, name: str, like: Tensor, seed: int, device: torch.device) -> Tensor:
    digest = hashlib.sha256(f"{seed}/{network}/{name}".encode()).digest()
    generator = torch.Generator(device).manual_seed(int.from_bytes(digest[:7], "little"))
    module, _, leaf = name.rpartition(".")
    shape = like.shape
    if not like.dtype.is_floating_point:
        return torch.zeros(shape, dtype=like.dtype, device=device)
    if leaf == "running_var":
        return 1.0 + 0.2 * torch.rand(shape, generator=generator, device=device)
    gain, biases = _INIT_SCALES.get(f"{network}/{module}", (1.0, None))
    if leaf == "bias" and biases is not None:
        return torch.empty(shape, device=device).uniform_(*biases, generator=generator)
    normal = torch.randn(shape, generator=generator, device=device)
    if leaf == "weight" and len(shape) > 1:
        return gain / math.sqrt(math.prod(shape[1:])) * normal
    return 1.0 + 0.1 * normal if leaf == "weight" else 0.05 * normal


def _split_into_files(
    network: NetworkSpec, weights: dict[str, Tensor]
) -> list[tuple[PublishedFile, dict[str, Tensor]]]:
    """Split a network's entries into files like the released ones."""
    if network.converted_file is not layout.DENOISING_UNET:
        return [(network.converted_file, weights)]
    temporal = {name: tensor for name, tensor in weights.items() if ".temporal_modules." in name}
    rest = {name: tensor for name, tensor in weights.items() if name not in temporal}
    return [(layout.DENOISING_UNET, rest), (layout.TEMPORAL_MODULE, temporal)]
