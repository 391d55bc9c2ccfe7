"""Loading of a set of weights into networks that are ready to run, and the check of a set without loading it."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

from personalive.errors import MissingWeightsError
from personalive.pipelines.diffusion.checkpoints import zip_archive
from personalive.pipelines.diffusion.checkpoints.layout import resolve_weights_dir
from personalive.pipelines.diffusion.checkpoints.model_config import read_model_config
from personalive.pipelines.diffusion.checkpoints.network_specs import (
    DENOISING_UNET,
    NetworkSpec,
    list_networks,
)
from personalive.pipelines.diffusion.checkpoints.shards import open_shards
from personalive.pipelines.diffusion.checkpoints.state_dict import (
    StateDictPlan,
    fill_module,
    find_missing_entries,
    plan_loading,
)
from personalive.pipelines.diffusion.components import Components

_NOT_IN_BASE_UNET = re.compile(r"\.(motion|temporal)_modules\.")

LoadProgress = Callable[[str, int, int], None]
"""Called with the network being read, the bytes read so far and the bytes in all."""


@dataclass(frozen=True, slots=True)
class PreparedNetwork:
    """A network of a set, built without weights, and the plan by which it is filled."""

    spec: NetworkSpec
    module: nn.Module
    plan: StateDictPlan
    notes: tuple[str, ...] = ()
    """What the user should know about its files, one sentence each; complete after `fill`."""

    def fill(
        self, device: torch.device, dtype: torch.dtype, progress: Callable[[int], None]
    ) -> PreparedNetwork:
        """Read the network's weights into the module."""
        notes = fill_module(
            self.module,
            self.plan,
            device=device,
            resolve_dtype=lambda entry: self.spec.resolve_dtype(entry, dtype),
            progress=progress,
        )
        return replace(self, notes=(*self.notes, *notes))


def prepare_networks(directory: Path, *, strict: bool = False) -> list[PreparedNetwork]:
    """Build every network of the set in `directory` and account for every entry of its files.

    No weights are read. `directory` is the set's folder or its parent. Raises `WeightsError` naming the first
    network that does not fit and what is wrong with it; when `strict`, also for entries that belong to no network.
    """
    root = resolve_weights_dir(directory)
    if not root.is_dir():
        raise MissingWeightsError(f"{root} is not there. Get the released weights with: personalive download")
    sizes = read_model_config(root)
    return [
        _prepare_network(network, root, network.build(root, sizes), strict=strict)
        for network in list_networks(root)
    ]


def _prepare_network(network: NetworkSpec, root: Path, module: nn.Module, *, strict: bool) -> PreparedNetwork:
    made = plan_loading(
        network.name,
        module,
        [file for path in network.find_files(root) for file in open_shards(path)],
        rename=network.rename,
        ignored_prefixes=network.ignored_prefixes,
        missing_files=network.missing_files(root),
        strict=strict,
    )
    return PreparedNetwork(network, module, made, made.notes)


def verify_checksums(networks: list[PreparedNetwork], progress: LoadProgress | None = None) -> None:
    """Verify the checksums of those files of a set that have them, which `torch.save` wrote.

    Raises `WeightsError` for the first record with another checksum, even if nothing in it is used.
    """
    files = {source.file.path for prepared in networks for source in prepared.plan.all_sources}
    archived = sorted(path for path in files if path.suffix != ".safetensors" and zip_archive.is_zip(path))
    total, done = sum(path.stat().st_size for path in archived), 0
    for path in archived:

        def count(nbytes: int, name: str = path.name) -> None:
            nonlocal done
            done += nbytes
            if progress is not None:
                progress(f"checksums of {name}", done, total)

        zip_archive.verify_checksums(path, count)


def needs_base_unet(directory: Path) -> bool:
    """Return whether the denoising UNet of the set in `directory` lacks entries that a base UNet may have.

    No weights are read. Raises `WeightsError` where files are missing or damaged, so that this cannot be known.
    """
    root = resolve_weights_dir(directory)
    module = DENOISING_UNET.build(root, read_model_config(root))
    files = [file for path in DENOISING_UNET.find_files(root) for file in open_shards(path)]
    lacking = find_missing_entries(module, files, DENOISING_UNET.name, DENOISING_UNET.rename)
    return any(not _NOT_IN_BASE_UNET.search(name) for name in lacking)


def build_components(
    networks: list[PreparedNetwork],
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    progress: LoadProgress | None = None,
    offloaded: Collection[str] = (),
    on_host: Collection[str] = (),
) -> Components:
    """Fill networks that `prepare_networks` returned, which is possible once.

    Every network is on `device` and in `dtype`, with the exceptions of `Components`. Networks named in `offloaded`
    wait on the host until they are needed; those in `on_host` stay there, for the caller to move. Memory stays near
    one copy of the weights in `dtype`. Raises `WeightsError` naming the file and the entry that cannot be used.
    """
    device = torch.device(device)
    loaded: dict[str, nn.Module | None] = {"tiny_vae": None}
    warnings: list[str] = []
    for prepared in fill_networks(networks, device, dtype, progress, (*offloaded, *on_host)):
        loaded[prepared.spec.name] = prepared.module
        warnings.extend(prepared.notes)
    models = Components(**loaded, device=device, dtype=dtype, warnings=tuple(warnings))  # type: ignore[arg-type]
    return models.offload(offloaded)


def fill_networks(
    networks: list[PreparedNetwork],
    device: torch.device,
    dtype: torch.dtype,
    progress: LoadProgress | None,
    offloaded: Collection[str] = (),
) -> Iterator[PreparedNetwork]:
    """Fill networks one by one and yield each when it is complete; those named in `offloaded` are on the host."""
    total = sum(prepared.plan.nbytes for prepared in networks)
    done = 0
    for prepared in networks:

        def count(nbytes: int, name: str = prepared.spec.name) -> None:
            nonlocal done
            done += nbytes
            if progress is not None:
                progress(name, done, total)

        place = torch.device("cpu") if prepared.spec.name in offloaded else device
        yield prepared.fill(place, dtype, count)
