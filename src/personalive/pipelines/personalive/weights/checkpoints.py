"""A set of weights on disk → the networks, ready to run; and the check of a set without keeping them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from personalive.errors import MissingWeightsError
from personalive.pipelines.personalive.models import Models
from personalive.pipelines.personalive.weights.catalogue import Network, networks_of
from personalive.pipelines.personalive.weights.entries import Plan, fill, plan
from personalive.pipelines.personalive.weights.layout import resolve
from personalive.pipelines.personalive.weights.sizes import read_sizes
from personalive.pipelines.personalive.weights.tensor_files import TensorFile

Progress = Callable[[str, int, int], None]
"""Called with the network being read, the bytes read so far and the bytes in all."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A network of a set, built without weights, and the plan by which it is filled."""

    network: Network
    module: nn.Module
    plan: Plan

    def fill(self, device: torch.device, dtype: torch.dtype, progress: Callable[[int], None]) -> None:
        """Read the network's weights."""
        fill(
            self.module,
            self.plan,
            device=device,
            dtype_of=lambda entry: self.network.dtype_of(entry, dtype),
            progress=progress,
        )


def prepare(directory: Path) -> list[Prepared]:
    """Build every network of the set in `directory` and account for every entry of its files.

    No weights are read. `directory` is the set's folder or the one around it. Raises `WeightsError` naming
    the first network that does not fit and what is wrong with it.
    """
    root = resolve(directory)
    if not root.is_dir():
        raise MissingWeightsError(f"{root} is not there. Get the released weights with: personalive download")
    sizes = read_sizes(root)
    return [
        _prepare(network, root, network.build(root, sizes), network.present(root))
        for network in networks_of(root)
    ]


def _prepare(network: Network, root: Path, module: nn.Module, paths: list[Path]) -> Prepared:
    files = [TensorFile.open(path) for path in paths]
    return Prepared(
        network,
        module,
        plan(
            network.name,
            module,
            files,
            rename=network.rename,
            ignored=network.ignored,
            absent=network.absent(root),
        ),
    )


def load_models(
    directory: Path,
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    progress: Progress | None = None,
    shelved: Collection[str] = (),
    on_host: Collection[str] = (),
) -> Models:
    """Load the set in `directory`: every network on `device`, in `dtype` but where `Models` says otherwise.

    Networks named in `shelved` wait on the host until they are needed; those in `on_host` are left there, for the
    caller to bring. Memory stays near one copy of the weights
    in `dtype`. Raises `WeightsError` naming the file and the entry that cannot be used.
    """
    device = torch.device(device)
    loaded = {
        prepared.network.name: prepared.module
        for prepared in read(prepare(directory), device, dtype, progress, (*shelved, *on_host))
    }
    models = Models(**{"tiny_vae": None, **loaded}, device=device, dtype=dtype)  # type: ignore[arg-type]
    return models.shelved(shelved)


def read(
    networks: list[Prepared],
    device: torch.device,
    dtype: torch.dtype,
    progress: Progress | None,
    shelved: Collection[str] = (),
) -> Iterator[Prepared]:
    """Fill networks one after the other, each yielded when it is complete; those `shelved` on the host."""
    total = sum(prepared.plan.nbytes for prepared in networks)
    done = 0
    for prepared in networks:

        def count(nbytes: int, name: str = prepared.network.name) -> None:
            nonlocal done
            done += nbytes
            if progress is not None:
                progress(name, done, total)

        place = torch.device("cpu") if prepared.network.name in shelved else device
        prepared.fill(place, dtype, count)
        yield prepared
