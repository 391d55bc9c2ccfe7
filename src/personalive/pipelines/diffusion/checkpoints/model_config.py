"""The sizes of the networks of a set: the released ones, unless its `model.json` gives others.

    {"format": 1, "denoising_unet": {"block_out_channels": [32, 64, 64, 64], "cross_attention_width": 32}, …}

A section names a network; its keys are the fields of that network's params. Missing ones are as released.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from personalive.errors import WeightsError
from personalive.pipelines.diffusion.checkpoints.file_diagnosis import diagnose_file
from personalive.pipelines.diffusion.checkpoints.layout import MODEL_CONFIG
from personalive.pipelines.diffusion.networks.denoising_unet import DenoisingUNetParams
from personalive.pipelines.diffusion.networks.motion_encoder import MotionEncoderParams
from personalive.pipelines.diffusion.networks.motion_extractor import MotionExtractorParams
from personalive.pipelines.diffusion.networks.pose_guider import PoseGuiderParams
from personalive.pipelines.diffusion.networks.unet import UNetParams

FORMAT_VERSION = 1

_MAX_JSON_BYTES = 1 << 20
_MAX_VALUE = 4096
_MAX_LIST_LENGTH = 6
# Sizes that multiply the work of building: without a bound, one wrong digit would take hours or all of the memory.
_MAX_VALUES = {
    "layers_per_block": 8,
    "depths": 64,
    "hourglass_depth": 6,
    "max_frames": 128,
    "tokens": 128,
    "image_size": 512,
}


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """One params object per network, except for those that are published with a config.json."""

    reference_unet: UNetParams = field(default_factory=UNetParams)
    denoising_unet: DenoisingUNetParams = field(default_factory=DenoisingUNetParams)
    motion_encoder: MotionEncoderParams = field(default_factory=MotionEncoderParams)
    motion_extractor: MotionExtractorParams = field(default_factory=MotionExtractorParams)
    pose_guider: PoseGuiderParams = field(default_factory=PoseGuiderParams)

    def __post_init__(self) -> None:
        reference, denoising = self.reference_unet, self.denoising_unet
        shared = ("in_channels", "block_out_channels", "layers_per_block", "cross_attention_width")
        for name in shared:
            if getattr(reference, name) != getattr(denoising, name):
                raise ValueError(f"the reference UNet and the denoising UNet differ in {name}")
        if self.pose_guider.out_channels != denoising.block_out_channels[0]:
            raise ValueError("the pose guider's out_channels is not the denoising UNet's first width")
        if self.motion_encoder.token_width != denoising.motion_width:
            raise ValueError("the motion encoder's token_width is not the denoising UNet's motion_width")


def read_model_config(root: Path) -> ModelConfig:
    """Read the sizes of the set at `root`. Raises `WeightsError` naming what is wrong in its `model.json`."""
    path = root / MODEL_CONFIG
    if not path.is_file():
        return ModelConfig()
    content = read_json_object(path)
    if content.pop("format", None) != FORMAT_VERSION:
        raise WeightsError(f'{path} must be an object with "format": {FORMAT_VERSION}.')
    kinds = {network.name: type(getattr(ModelConfig(), network.name)) for network in fields(ModelConfig)}
    unknown = sorted(content.keys() - kinds.keys())
    if unknown:
        raise WeightsError(f"{path} names {unknown[0][:100]!r}; known networks are {', '.join(kinds)}.")
    try:
        return ModelConfig(
            **{name: _parse_params(name, kinds[name], section) for name, section in content.items()}
        )
    except (TypeError, ValueError, ArithmeticError) as error:
        raise WeightsError(f"{path}: {_format_error(error)}.") from None


def read_json_object(path: Path) -> dict[str, Any]:
    """Read the JSON object in a file. Raises `WeightsError` when there is none, or one larger than 1 MiB."""
    try:
        wrong = diagnose_file(path)
        if wrong is not None:
            raise WeightsError(wrong)
        with path.open("rb") as file:
            text = file.read(_MAX_JSON_BYTES + 1)
        content = json.loads(text) if len(text) <= _MAX_JSON_BYTES else None
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {error.strerror or error}.") from None
    except (ValueError, RecursionError) as error:
        raise WeightsError(f"{path} is not JSON: {error}.") from None
    if not isinstance(content, dict):
        raise WeightsError(f"{path} must be a JSON object, of at most {_MAX_JSON_BYTES >> 20} MiB.")
    return content


def write_model_config(root: Path, config: ModelConfig) -> None:
    """Write `model.json` with every size."""
    content = {"format": FORMAT_VERSION, **asdict(config)}
    (root / MODEL_CONFIG).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def _parse_params(network: str, kind: type[Any], section: object) -> Any:
    if not isinstance(section, dict):
        raise TypeError(f"{network} must be an object")
    known = {size.name for size in fields(kind)}
    unknown = sorted(section.keys() - known)
    if unknown:
        raise ValueError(f"{network} has no size {unknown[0][:100]!r}; it has {', '.join(sorted(known))}")
    for size, value in section.items():
        _check_bound(f"{network}.{size}", value, _MAX_VALUES.get(size, _MAX_VALUE))
    return TypeAdapter(kind).validate_json(json.dumps(section), strict=True)


def _check_bound(size: str, value: object, bound: int) -> None:
    """Raise ValueError for a size, or one of a list of sizes, that is not from 1 to `bound`."""
    numbers = value if isinstance(value, list) else [value]
    if not 1 <= len(numbers) <= _MAX_LIST_LENGTH:
        raise ValueError(f"{size} lists {len(numbers)} sizes; 1 to {_MAX_LIST_LENGTH} are possible")
    for number in numbers:
        if type(number) is not int or not 1 <= number <= bound:
            raise ValueError(f"{size} is {repr(value)[:100]}, not made of whole numbers from 1 to {bound}")


def _format_error(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False)[0]
        return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
    return str(error)
