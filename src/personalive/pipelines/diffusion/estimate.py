"""An estimate of how long a frame takes on a CPU, so that a user knows beforehand where it takes minutes."""

from __future__ import annotations

import time

import torch

from personalive.pipelines.diffusion.sampling.engine import DiffusionEngine

_CHUNK_FLOPS = 34.2e12
"""Floating-point operations of a chunk at 512×512 with the released networks: UNet 24.1e12, decoder 10.1e12."""
_RELEASED_PARAMETERS = 1.686e9
_TRAINED_PIXELS = 512 * 512
_EFFICIENCY = 0.6
"""The share of a matrix product's rate that convolutions and attention reach, roughly."""
_MATRIX_SIZE = 1024


def estimate_seconds_per_frame(engine: DiffusionEngine) -> float | None:
    """Estimate the seconds per frame on a CPU from the operations and this machine's rate; None on other devices.

    The estimate is right within a factor of two for networks of the released sizes.
    """
    if engine.components.device.type != "cpu":
        return None
    parameters = sum(tensor.numel() for tensor in engine.components.denoising_unet.parameters())
    pixels = engine.parameters.height * engine.parameters.width
    operations = _CHUNK_FLOPS * (pixels / _TRAINED_PIXELS) * (parameters / _RELEASED_PARAMETERS)
    return (
        operations / (_EFFICIENCY * _measure_flops(engine.components.dtype)) / engine.scheduler.chunk_frames
    )


def _measure_flops(dtype: torch.dtype) -> float:
    """Measure the floating-point operations per second of a matrix product, the best of four runs."""
    matrix = torch.ones(_MATRIX_SIZE, _MATRIX_SIZE, dtype=dtype)
    fastest = float("inf")
    for _ in range(4):
        begun = time.perf_counter()
        matrix @ matrix
        fastest = min(fastest, time.perf_counter() - begun)
    return 2 * _MATRIX_SIZE**3 / fastest
