"""A network that waits in the host's memory and is brought to the device when it is needed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

_Places = dict[str, Any]
"""A module's parameters or buffers by name."""


class Shelf:
    """Keeps a network's tensors on the host, page-locked where there is CUDA, so that bringing them is quick.

    Nothing is copied back: weights do not change. While they are away, the network must not be run.
    """

    def __init__(self, network: nn.Module) -> None:
        self._network = network
        self._depth = 0
        for places, name, tensor in self._tensors():
            waiting = tensor.detach().cpu()
            places[name] = _like(tensor, waiting.pin_memory() if torch.cuda.is_available() else waiting)

    @contextmanager
    def taken(self, device: torch.device) -> Iterator[None]:
        """For the time of the block, the network is on the device. Blocks may be nested."""
        self._depth += 1
        waiting = self._tensors() if self._depth == 1 else []
        try:
            for places, name, tensor in waiting:
                places[name] = _like(tensor, tensor.detach().to(device, non_blocking=True))
            yield
        finally:
            for places, name, tensor in waiting:
                places[name] = tensor
            self._depth -= 1

    def _tensors(self) -> list[tuple[_Places, str, Tensor]]:
        """Every parameter and buffer, with where a module keeps it."""
        return [
            (places, name, tensor)
            for module in self._network.modules()
            for places in (module._parameters, module._buffers)
            for name, tensor in places.items()
            if tensor is not None
        ]


def _like(tensor: Tensor, data: Tensor) -> Tensor:
    return nn.Parameter(data, requires_grad=False) if isinstance(tensor, nn.Parameter) else data
