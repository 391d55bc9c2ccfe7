"""Every kernel's launches at the product's shapes, on tensors without contents.

A new kernel's go here: the wrapper that launches it is called with what it gets in a step, once for each way in
which the kernel's constants (widths, flags) come out. Types other than float16 are tried at one level, as the code
differs in loads and stores alone.
"""

from __future__ import annotations

import torch
from torch import Tensor

from personalive.pipelines.diffusion.kernels import (
    batch_norm,
    fp8_convolution,
    fp8_convolution_pointers,
    group_norm,
    layer_norm,
    linear_geglu,
    linear_geglu_pointers,
    single_head_attention,
    token_ops,
)
from personalive.pipelines.diffusion.kernels.fp8 import FLOAT8

_FRAMES, _HEADS, _GROUPS = 16, 8, 32
_LEVELS = [(1280, 16), (640, 32), (320, 64)]
"""Channels of the UNets' levels, and their sides at 512×512."""
_CONVOLUTIONS = [(16, 1280, 1280, 8), (16, 320, 320, 64), (2, 256, 128, 512), (1, 512, 512, 12)]
"""Of codes: pictures, their channels, the result's, and the side."""
_PICTURES = [(4, 128, 1024), (4, 512, 256), (16, 2560, 16), (16, 320, 64)]
"""Pictures of group norms in the decoder and the UNets: how many, channels, side."""


def launch_all(dtype: torch.dtype) -> None:
    """Launch every kernel on values of this type."""
    most = None if dtype == torch.float16 else 1
    for count, channels, side in _PICTURES[:most]:
        _group_norm(dtype, count, channels, side)
    _plain_norms(dtype)
    for channels, side in _LEVELS:
        _attention_along_time(dtype, _FRAMES, channels, side**2)
        _attention_along_time(dtype, token_ops.MAX_FRAMES, channels, side**2)
    for channels, side in _LEVELS[:most]:
        _tokens(dtype, channels, side**2)
        _gates(dtype, channels, side**2)
    if dtype == torch.float16:
        _codes(dtype)
    _wide_attention(dtype)


def _given(*shape: int, dtype: torch.dtype) -> Tensor:
    return torch.empty(shape, dtype=dtype, device="meta")


def _group_norm(dtype: torch.dtype, count: int, channels: int, side: int) -> None:
    x = _given(count, channels, side, side, dtype=dtype).contiguous(memory_format=torch.channels_last)
    weight, shift = _given(channels, dtype=dtype), _given(count, channels, dtype=dtype)
    group_norm.add_with_stats(x, x, weight)
    group_norm.group_norm(x, None, weight, weight, _GROUPS, 1e-6, True, shift, None)


def _plain_norms(dtype: torch.dtype) -> None:
    """Norms with less than they can do on the way."""
    x = _given(16, 640, 32, 32, dtype=dtype).contiguous(memory_format=torch.channels_last)
    weight = _given(640, dtype=dtype)
    group_norm.add_with_stats(x, x, None)
    group_norm.add_with_stats(x, None, weight)
    group_norm.group_norm(x, None, weight, weight, _GROUPS, 1e-6, False, None, None)
    batch_norm.batch_norm_relu(x, weight, weight, weight, weight, 1e-5)
    flat = _given(_FRAMES, 1024, 640, dtype=dtype)
    layer_norm.layer_norm(flat, weight, weight, 1e-5, None, None, None, None, None)
    layer_norm.layer_norm(flat, weight, weight, 1e-5, flat, None, None, None, None)


def _tokens(dtype: torch.dtype, channels: int, length: int) -> None:
    whole, weight = _given(_FRAMES, length, channels, dtype=dtype), _given(channels, dtype=dtype)
    shift, code = _given(1, 1, channels, dtype=dtype), _given(_FRAMES, channels, dtype=dtype)
    layer_norm.layer_norm(whole, weight, weight, 1e-5, whole, shift, code, weight, None)
    token_ops.concat_kv(whole, _given(1, length, channels, dtype=dtype))


def _gates(dtype: torch.dtype, channels: int, length: int) -> None:
    rows = _FRAMES * length
    projected = _given(rows, 8 * channels, dtype=dtype)
    token_ops.geglu(projected)
    given, weight = _given(rows, channels, dtype=dtype), _given(8 * channels, channels, dtype=dtype)
    if linear_geglu.is_supported(given, weight):
        linear_geglu.linear_geglu(given, weight, _given(8 * channels, dtype=dtype))
    if linear_geglu_pointers.is_supported(given, weight):
        linear_geglu_pointers.linear_geglu_pointers(given, weight, _given(8 * channels, dtype=dtype))


def _codes(dtype: torch.dtype) -> None:
    """What gives and takes codes."""
    for count, channels, outputs, side in _CONVOLUTIONS:
        x = _given(count, channels, side, side, dtype=dtype).contiguous(memory_format=torch.channels_last)
        norm, factors = _given(channels, dtype=dtype), _given(outputs, dtype=torch.float32)
        weight = _given(9, outputs, channels, dtype=FLOAT8)
        codes = group_norm.group_norm(x, None, norm, norm, _GROUPS, 1e-6, True, None, 8.0)
        for wide in (False, True) if fp8_convolution.is_wide_supported(weight) else (False,):
            fp8_convolution.fp8_conv(codes, weight, factors, dtype, wide)
        if fp8_convolution_pointers.is_supported(codes, weight):
            fp8_convolution_pointers.fp8_conv_pointers(codes, weight, factors, dtype)
    for channels, side in [*_LEVELS, (1280, 8)]:
        total, norm = _given(_FRAMES, side**2, channels, dtype=dtype), _given(channels, dtype=dtype)
        _, codes = layer_norm.layer_norm(total, norm, norm, 1e-5, total, None, None, norm, 8.0)
        weight = _given(8 * channels, channels, dtype=FLOAT8)
        bias, factors = (_given(8 * channels, dtype=kind) for kind in (dtype, torch.float32))
        for gated in (linear_geglu.linear_geglu, linear_geglu_pointers.linear_geglu_pointers):
            gated(codes, weight, bias, factors, 2.0)


def _attention_along_time(dtype: torch.dtype, frames: int, channels: int, length: int) -> None:
    together = _given(1, frames, length, 3 * channels, dtype=dtype)
    query, key, value = together.split(channels, dim=-1)
    if token_ops.is_temporal_attention_supported(query, _HEADS):
        token_ops.temporal_attention(query, key, value, _HEADS)


def _wide_attention(dtype: torch.dtype) -> None:
    for length in (4096, 8192):
        query = _given(4, length, 512, dtype=dtype)
        if single_head_attention.is_supported(query, query):
            scores = _given(4, length, length, dtype=torch.float32)
            single_head_attention.exp_scores(scores, 512**-0.5, dtype)
