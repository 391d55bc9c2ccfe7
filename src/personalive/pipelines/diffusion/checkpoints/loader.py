"""A set of weights on disk → the networks, ready to run; and the check of a set without keeping them."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

from personalive.errors import MissingWeightsError
from personalive.pipelines.diffusion.checkpoints import zip_archive
from personalive.pipelines.diffusion.checkpoints.layout import resolve
from personalive.pipelines.diffusion.checkpoints.model_config import read_sizes
from personalive.pipelines.diffusion.checkpoints.network_specs import DENOISING_UNET, Network, networks_of
from personalive.pipelines.diffusion.checkpoints.shards import open_all
from personalive.pipelines.diffusion.checkpoints.state_dict import Plan, fill, missing, plan
from personalive.pipelines.diffusion.components import Models

_BESIDE_THE_BASE = re.compile(r"\.(motion|temporal)_modules\.")

Progress = Callable[[str, int, int], None]
"""Called with the network being read, the bytes read so far and the bytes in all."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A network of a set, built without weights, and the plan by which it is filled."""

    network: Network
    module: nn.Module
    plan: Plan
    notes: tuple[str, ...] = ()
    """What the user should know of its files, one sentence each: complete when it is filled."""

    def filled(self, device: torch.device, dtype: torch.dtype, progress: Callable[[int], None]) -> Prepared:
        """Read the network's weights into the module."""
        said = fill(
            self.module,
            self.plan,
            device=device,
            dtype_of=lambda entry: self.network.dtype_of(entry, dtype),
            progress=progress,
        )
        return replace(self, notes=(*self.notes, *said))


def prepare(directory: Path, *, strict: bool = False) -> list[Prepared]:
    """Build every network of the set in `directory` and account for every entry of its files.

    No weights are read. `directory` is the set's folder or the one around it. Raises `WeightsError` naming
    the first network that does not fit and what is wrong with it; when `strict`, so do entries that belong to
    nothing.
    """
    root = resolve(directory)
    if not root.is_dir():
        raise MissingWeightsError(f"{root} is not there. Get the released weights with: personalive download")
    sizes = read_sizes(root)
    return [
        _prepare(network, root, network.build(root, sizes), strict=strict) for network in networks_of(root)
    ]


def _prepare(network: Network, root: Path, module: nn.Module, *, strict: bool) -> Prepared:
    made = plan(
        network.name,
        module,
        [file for path in network.present(root) for file in open_all(path)],
        rename=network.rename,
        ignored=network.ignored,
        absent=network.absent(root),
        strict=strict,
    )
    return Prepared(network, module, made, made.notes)


def check_sums(networks: list[Prepared], progress: Progress | None = None) -> None:
    """Compare the files of a set that have checksums, those that `torch.save` wrote, with them.

    Raises `WeightsError` for the first that is not what was written, whether or not what is used is concerned.
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

        zip_archive.check_sums(path, count)


def leaves_open(directory: Path) -> bool:
    """Whether the denoising UNet lacks entries in the set in `directory`, as it is, that a base UNet may have.

    Reads no weights. Raises `WeightsError` where that cannot be told, as files are missing or unsound.
    """
    root = resolve(directory)
    module = DENOISING_UNET.build(root, read_sizes(root))
    files = [file for path in DENOISING_UNET.present(root) for file in open_all(path)]
    lacking = missing(module, files, DENOISING_UNET.name, DENOISING_UNET.rename)
    return any(not _BESIDE_THE_BASE.search(name) for name in lacking)


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
    caller to bring. Memory stays near one copy of the weights in `dtype`. Raises `WeightsError` naming the file and
    the entry that cannot be used.
    """
    return models_of(
        prepare(directory),
        device=torch.device(device),
        dtype=dtype,
        progress=progress,
        shelved=shelved,
        on_host=on_host,
    )


def models_of(
    networks: list[Prepared],
    *,
    device: torch.device,
    dtype: torch.dtype,
    progress: Progress | None = None,
    shelved: Collection[str] = (),
    on_host: Collection[str] = (),
) -> Models:
    """Fill networks that `prepare` gave; see `load_models`. They can be filled once."""
    loaded: dict[str, nn.Module | None] = {"tiny_vae": None}
    warnings: list[str] = []
    for prepared in read(networks, device, dtype, progress, (*shelved, *on_host)):
        loaded[prepared.network.name] = prepared.module
        warnings.extend(prepared.notes)
    models = Models(**loaded, device=device, dtype=dtype, warnings=tuple(warnings))  # type: ignore[arg-type]
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
        yield prepared.filled(place, dtype, count)
