"""PyTorch's vector functions on Intel CPUs, made exact from their first call on.

Its builds for x86 bring oneMKL 2024, which finds the routine for a function at that function's first call. Where
threads make that call together, one of them may get the routine of low accuracy and spoil its part of this one
result: by 1.5e-4, in 23 of 80 processes on two cores (https://github.com/pytorch/pytorch/issues/188792). Our first
sine is a position code, a constant for the life of the process.
"""

from __future__ import annotations

import torch

FUNCTIONS = (
    *("sin", "cos", "tan", "asin", "acos", "atan", "sinh", "cosh", "tanh"),
    *("exp", "expm1", "log", "log2", "log10", "log1p", "sqrt", "erf", "erfc", "erfinv", "lgamma"),
)
"""The functions of `torch` that may end up in oneMKL."""


def initialize_vector_math() -> None:
    """Call each once, on one element, which one thread does. Takes a millisecond or two."""
    for dtype in (torch.float32, torch.float64):
        one = torch.full((1,), 0.5, dtype=dtype, device="cpu")
        for name in FUNCTIONS:
            getattr(torch, name)(one)
