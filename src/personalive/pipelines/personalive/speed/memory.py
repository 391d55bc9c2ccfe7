"""How PyTorch takes memory from a GPU."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable

import torch

_log = logging.getLogger(__name__)

_VARIABLES = ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF")
_SETTINGS = "expandable_segments:True"


def let_segments_grow(device: torch.device) -> None:
    """Have PyTorch enlarge what it holds of a GPU instead of taking pieces that fit nothing else later.

    Recordings of several shapes share one pool, which otherwise holds 1 GB more than any of them needs. To be
    called before tensors are made. Where the environment says how memory is taken, it decides.
    """
    if device.type != "cuda" or any(os.environ.get(name) for name in _VARIABLES):
        return
    try:
        _set_allocator(_SETTINGS)
    except (AttributeError, RuntimeError, ValueError) as error:
        _log.info("memory is taken as PyTorch does by itself: %s", error)


def _set_allocator(settings: str) -> None:
    """PyTorch gives this function another name from version to version."""
    newest: Callable[[str], None] | None = getattr(torch._C, "_accelerator_setAllocatorSettings", None)
    (newest or torch.cuda.memory._set_allocator_settings)(settings)
