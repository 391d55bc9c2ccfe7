"""Functions that several Triton kernels apply to their tiles."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def gelu(x):
    """Return the exact GELU x·Φ(x).

    Φ is computed by the complementary error function (Abramowitz and Stegun, 1964, 7.1.26; error 1.5e-7).
    """
    away = tl.abs(x) * 0.7071067811865476
    t = 1.0 / (1.0 + 0.3275911 * away)
    tail = ((((1.061405429 * t - 1.453152027) * t + 1.421413741) * t - 0.284496736) * t + 0.254829592) * t
    tail *= 0.5 * tl.exp2(away * away * -1.4426950408889634)
    return x * tl.where(x > 0, 1.0 - tail, tail)


@triton.jit
def codes(values, gain):
    """Scale and clamp values to codes before rounding, as `fp8.quantize_fp8` does."""
    return tl.minimum(tl.maximum(values * gain, -448.0), 448.0)
