"""The places where modules keep their tensors, for replacing these by equal ones in other memory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn

TensorSlot = tuple[dict[str, Any], str, Tensor]
"""A module's dictionary of parameters, buffers or attributes; a name in it; and the tensor of that name."""


def module_slots(module: nn.Module, *, attributes: bool = False) -> list[TensorSlot]:
    """Return the slots of a module's direct parameters and buffers, and of tensors in plain attributes if asked."""
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
    """Yield the slots of all modules of a network one by one, so that replaced tensors need not be kept."""
    for module in network.modules():
        yield from module_slots(module, attributes=attributes)


def wrap_like(tensor: Tensor, data: Tensor) -> Tensor:
    """Return the data as a parameter if the tensor is one, otherwise as it is."""
    return nn.Parameter(data, requires_grad=False) if isinstance(tensor, nn.Parameter) else data
