"""Page-locked host memory, which a GPU copies asynchronously; ordinary memory where none is available."""

from __future__ import annotations

import logging

import torch
from torch import Tensor

_log = logging.getLogger(__name__)


class _PinningFailure:
    """A warning, logged once per process, that memory could not be page-locked."""

    logged = False

    @classmethod
    def log_once(cls, error: Exception) -> None:
        if not cls.logged:
            cls.logged = True
            _log.warning(
                "memory cannot be page-locked, so copies to and from the GPU make the host wait: %s",
                " ".join(str(error).split())[:200],
            )


def allocate_host_tensor(shape: torch.Size | tuple[int, ...], dtype: torch.dtype, *, pinned: bool) -> Tensor:
    """Allocate an uninitialised tensor in the host's memory, page-locked if `pinned` is set and it is possible."""
    if pinned:
        try:
            return torch.empty(shape, dtype=dtype, pin_memory=True)
        except RuntimeError as error:  # WSL2 allows 0.5 to 1 GB; elsewhere a limit of the user may apply
            _PinningFailure.log_once(error)
    return torch.empty(shape, dtype=dtype)


def copy_to_host(tensor: Tensor, *, pinned: bool) -> Tensor:
    """Copy a tensor to the host's memory with its layout, page-locked if `pinned` is set and it is possible."""
    waiting = tensor.detach().cpu()
    if pinned:
        try:
            return waiting.pin_memory()
        except RuntimeError as error:
            _PinningFailure.log_once(error)
    return waiting
