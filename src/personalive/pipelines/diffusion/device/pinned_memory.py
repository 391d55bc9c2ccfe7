"""Page-locked memory of the host, which a GPU copies in its own time; ordinary memory where none can be had."""

from __future__ import annotations

import logging

import torch
from torch import Tensor

_log = logging.getLogger(__name__)


class _PinningFailure:
    """Says once in a process that memory could not be page-locked."""

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
    """An uninitialised tensor in the host's memory, page-locked where that is wanted and can be had."""
    if pinned:
        try:
            return torch.empty(shape, dtype=dtype, pin_memory=True)
        except RuntimeError as error:  # WSL2 gives 0.5 to 1 GB; elsewhere a limit of the user's may
            _PinningFailure.log_once(error)
    return torch.empty(shape, dtype=dtype)


def copy_to_host(tensor: Tensor, *, pinned: bool) -> Tensor:
    """The tensor's numbers in the host's memory, laid out as they are, page-locked where that can be had."""
    waiting = tensor.detach().cpu()
    if pinned:
        try:
            return waiting.pin_memory()
        except RuntimeError as error:
            _PinningFailure.log_once(error)
    return waiting
