"""Where modules keep their tensors, to exchange them for others of the same numbers elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn

TensorSlot = tuple[dict[str, Any], str, Tensor]
"""A module's parameters, buffers or other attributes by name, a name among them, and the tensor that is there."""


def module_slots(module: nn.Module, *, attributes: bool = False) -> list[TensorSlot]:
    """A module's own parameters and buffers and, where asked, the tensors that are plain attributes of it."""
    kept: list[dict[str, Any]] = [module._parameters, module._buffers]
    if attributes:
        kept.append(module.__dict__)
    return [
        (places, name, tensor)
        for places in kept
        for name, tensor in places.items()
        if isinstance(tensor, Tensor)
    ]


def network_slots(network: nn.Module, *, attributes: bool = False) -> Iterator[TensorSlot]:
    """The same of all modules of a network, one after the other: what was exchanged need not be kept."""
    for module in network.modules():
        yield from module_slots(module, attributes=attributes)


def wrap_like(tensor: Tensor, data: Tensor) -> Tensor:
    """The data as what the tensor is: a parameter or not."""
    return nn.Parameter(data, requires_grad=False) if isinstance(tensor, nn.Parameter) else data
