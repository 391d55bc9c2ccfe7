"""A workaround that makes PyTorch's vector functions on x86 CPUs exact from their first call on.

PyTorch's builds for x86 include oneMKL 2024, which selects the routine of a function at that function's first call.
Where several threads make that call at once, one of them may get the routine of low accuracy, and its part of that
one result is wrong by 1.5e-4: in 23 of 80 processes on two cores (https://github.com/pytorch/pytorch/issues/188792).
The first sine here is a position encoding, a constant for the life of the process.
"""

from __future__ import annotations

import torch

FUNCTIONS = (
    *("sin", "cos", "tan", "asin", "acos", "atan", "sinh", "cosh", "tanh"),
    *("exp", "expm1", "log", "log2", "log10", "log1p", "sqrt", "erf", "erfc", "erfinv", "lgamma"),
)
"""The functions of `torch` that may use oneMKL."""


def initialize_vector_math() -> None:
    """Call each function once on one element, which a single thread computes. Takes a millisecond or two."""
    for dtype in (torch.float32, torch.float64):
        one = torch.full((1,), 0.5, dtype=dtype, device="cpu")
        for name in FUNCTIONS:
            getattr(torch, name)(one)
