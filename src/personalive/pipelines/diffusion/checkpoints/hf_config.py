"""The sizes of networks that are published for a library, read from the config.json beside their weights.

Such a file follows diffusers or transformers, and cannot be trusted. Sizes are read from it, with the library's
defaults where they are missing; kinds of networks that are not implemented here are refused. Everything else, such
as an implementation to be fetched and run, is ignored. Functions raise ValueError for invalid values.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, cast

from personalive.pipelines.diffusion.networks.autoencoder import AutoencoderParams
from personalive.pipelines.diffusion.networks.image_encoder import Activation, ImageEncoderParams
from personalive.pipelines.diffusion.networks.tiny_autoencoder import TinyAutoencoderParams

Config = Mapping[str, Any]

_MAX_VALUE = 1 << 16
_MAX_LEVELS = 4
"""The number of sizes that an autoencoder works at: latents are an eighth of the picture."""


def read_autoencoder_params(config: Config) -> AutoencoderParams:
    """Read the sizes of diffusers' AutoencoderKL."""
    widths = _read_int_list(config, "block_out_channels", (64,))
    for key, kind in (("down_block_types", "DownEncoderBlock2D"), ("up_block_types", "UpDecoderBlock2D")):
        _check_equals(config, key, [kind] * len(widths), [kind])
    _check_equals(config, "act_fn", "silu", "silu")
    for key in ("mid_block_add_attention", "use_quant_conv", "use_post_quant_conv"):
        _check_equals(config, key, True, True)
    for key in ("shift_factor", "latents_mean", "latents_std"):
        _check_equals(config, key, None, None)
    return AutoencoderParams(
        latent_channels=_read_int(config, "latent_channels", 4, 64),
        in_channels=_read_int(config, "in_channels", 3, 3),
        out_channels=_read_int(config, "out_channels", 3, 3),
        block_out_channels=widths,
        layers_per_block=_read_int(config, "layers_per_block", 1, 16),
        norm_groups=_read_int(config, "norm_num_groups", 32),
        scale=_read_float(config, "scaling_factor", 0.18215),
    )


def read_tiny_autoencoder_params(config: Config) -> TinyAutoencoderParams:
    """Read the sizes of the decoder of diffusers' AutoencoderTiny."""
    widths = _read_int_list(config, "decoder_block_out_channels", (64, 64, 64, 64))
    if len(set(widths)) > 1:
        raise ValueError("decoder_block_out_channels differ, which is not built here")
    _check_equals(config, "act_fn", "relu", "relu")
    _check_equals(config, "upsample_fn", "nearest", "nearest")
    _check_equals(config, "upsampling_scaling_factor", 2, 2)
    _check_equals(config, "shift_factor", 0.0, 0.0)
    return TinyAutoencoderParams(
        latent_channels=_read_int(config, "latent_channels", 4, 64),
        out_channels=_read_int(config, "out_channels", 3, 3),
        width=widths[0],
        blocks=_read_int_list(config, "num_decoder_blocks", (3, 3, 3, 1), 16),
        scale=_read_float(config, "scaling_factor", 1.0),
    )


def read_image_encoder_params(config: Config) -> ImageEncoderParams:
    """Read the sizes of transformers' CLIPVisionModelWithProjection."""
    activation = config.get("hidden_act", "quick_gelu")
    if activation not in ("quick_gelu", "gelu"):
        raise ValueError(f"hidden_act is {_format_value(activation)}; quick_gelu and gelu are built here")
    return ImageEncoderParams(
        width=_read_int(config, "hidden_size", 768),
        inner_width=_read_int(config, "intermediate_size", 3072),
        layers=_read_int(config, "num_hidden_layers", 12, 64),
        heads=_read_int(config, "num_attention_heads", 12),
        in_channels=_read_int(config, "num_channels", 3, 3),
        image_size=_read_int(config, "image_size", 224, 1024),
        patch_size=_read_int(config, "patch_size", 32, 1024),
        out_width=_read_int(config, "projection_dim", 512),
        activation=cast("Activation", activation),
        eps=_read_float(config, "layer_norm_eps", 1e-5),
    )


def _read_int(config: Config, key: str, default: int, maximum: int = _MAX_VALUE) -> int:
    """Read a whole number from 1 to `maximum`; larger ones would make building take hours or all of the memory."""
    value = config.get(key, default)
    if type(value) is not int or not 1 <= value <= maximum:
        raise ValueError(f"{key} is {_format_value(value)}, not a whole number from 1 to {maximum}")
    return value


def _read_int_list(
    config: Config, key: str, default: tuple[int, ...], maximum: int = _MAX_VALUE
) -> tuple[int, ...]:
    values = config.get(key, default)
    if not isinstance(values, list | tuple) or len(values) != _MAX_LEVELS:
        raise ValueError(f"{key} is {_format_value(values)}, not {_MAX_LEVELS} numbers")
    return tuple(_read_int({key: value}, key, 0, maximum) for value in values)


def _read_float(config: Config, key: str, default: float) -> float:
    value = config.get(key, default)
    if type(value) not in (int, float) or not 0 < value < math.inf:
        raise ValueError(f"{key} is {_format_value(value)}, not a positive number")
    return float(value)


def _check_equals(config: Config, key: str, expected: object, default: object) -> None:
    value = config.get(key, default)
    if (list(value) if isinstance(value, tuple) else value) != expected:
        raise ValueError(f"{key} is {_format_value(value)}; {_format_value(expected)} is what is built here")


def _format_value(value: object) -> str:
    return repr(value)[:100]
