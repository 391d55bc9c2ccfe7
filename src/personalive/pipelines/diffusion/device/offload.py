"""A network that waits in the host's memory and is brought to the device when it is needed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from personalive.pipelines.diffusion.device.pinned_memory import held_on_host
from personalive.pipelines.diffusion.device.tensor_slots import Place, like, places_of, places_within
from personalive.pipelines.diffusion.networks.unet import Trunk


class Shelf:
    """Keeps a network's tensors on the host, page-locked where there is CUDA, so that bringing them is quick.

    Nothing is copied back: weights do not change. While they are away, the network must not be run. Of a UNet that
    is taken, only one unit is on the device at a time: the one that is `present`.
    """

    def __init__(self, network: nn.Module) -> None:
        self._network = network
        self._depth = 0
        self._device = torch.device("cpu")
        for places, name, tensor in places_within(network):
            places[name] = like(tensor, held_on_host(tensor, locked=torch.cuda.is_available()))
        self._units: list[tuple[nn.Module, ...]] = []
        if isinstance(network, Trunk):
            self._units = network.units()
            network.present = self._brought

    @contextmanager
    def taken(self, device: torch.device) -> Iterator[None]:
        """For the time of the block, the network can be run on the device. Blocks may be nested."""
        self._depth += 1
        self._device = device
        try:
            with _on(device, self._beside_units() if self._depth == 1 else []):
                yield
        finally:
            self._depth -= 1

    @contextmanager
    def _brought(self, number: int) -> Iterator[None]:
        with _on(self._device, [place for module in self._units[number] for place in places_within(module)]):
            yield

    def _beside_units(self) -> list[Place]:
        """All of the network's tensors but its units'."""
        within = {id(module) for unit in self._units for part in unit for module in part.modules()}
        return [
            place
            for module in self._network.modules()
            if id(module) not in within
            for place in places_of(module)
        ]


@contextmanager
def _on(device: torch.device, waiting: list[Place]) -> Iterator[None]:
    """For the time of the block, these tensors are on the device."""
    try:
        for places, name, tensor in waiting:
            places[name] = like(tensor, tensor.detach().to(device, non_blocking=True))
        yield
    finally:
        for places, name, tensor in waiting:
            places[name] = tensor
