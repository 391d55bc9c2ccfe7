"""Networks that wait in the host's memory and are copied to the device when they are needed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from personalive.pipelines.diffusion.device.pinned_memory import copy_to_host
from personalive.pipelines.diffusion.device.tensor_slots import (
    TensorSlot,
    module_slots,
    network_slots,
    wrap_like,
)
from personalive.pipelines.diffusion.networks.unet import UNet


class OffloadedModule:
    """A network whose tensors wait on the host, page-locked where there is CUDA, so that copying them is quick.

    Nothing is copied back, since weights do not change. The network must not run while its tensors are on the host.
    Of a whole UNet, only the unit that is running is on the device.
    """

    def __init__(self, network: nn.Module) -> None:
        self._module = network
        self._depth = 0
        self._device = torch.device("cpu")
        for places, name, tensor in network_slots(network):
            places[name] = wrap_like(tensor, copy_to_host(tensor, pinned=torch.cuda.is_available()))
        self._units: list[tuple[nn.Module, ...]] = []
        if isinstance(network, UNet):
            self._units = network.units()
            network.block_context = self._onloaded_unit

    @contextmanager
    def onloaded(self, device: torch.device) -> Iterator[None]:
        """Keep the network ready to run on the device for the time of the block. Blocks may be nested."""
        self._depth += 1
        self._device = device
        try:
            with _onloaded_slots(device, self._slots_outside_units() if self._depth == 1 else []):
                yield
        finally:
            self._depth -= 1

    @contextmanager
    def _onloaded_unit(self, number: int) -> Iterator[None]:
        with _onloaded_slots(
            self._device, [place for module in self._units[number] for place in network_slots(module)]
        ):
            yield

    def _slots_outside_units(self) -> list[TensorSlot]:
        """Return the slots of all the network's tensors except those of its units."""
        within = {id(module) for unit in self._units for part in unit for module in part.modules()}
        return [
            place
            for module in self._module.modules()
            if id(module) not in within
            for place in module_slots(module)
        ]


@contextmanager
def _onloaded_slots(device: torch.device, waiting: list[TensorSlot]) -> Iterator[None]:
    """Keep these tensors on the device for the time of the block."""
    try:
        for places, name, tensor in waiting:
            places[name] = wrap_like(tensor, tensor.detach().to(device, non_blocking=True))
        yield
    finally:
        for places, name, tensor in waiting:
            places[name] = tensor
