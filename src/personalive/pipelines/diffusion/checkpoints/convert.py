"""Conversion of a set of weights to one safetensors file per network: no pickle, and half the bytes in float16."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from functools import reduce
from pathlib import Path

import torch
from safetensors.torch import save_file

from personalive.errors import OutputExistsError
from personalive.pipelines.diffusion.checkpoints import layout
from personalive.pipelines.diffusion.checkpoints.atomic_dir import atomic_dir
from personalive.pipelines.diffusion.checkpoints.loader import (
    LoadProgress,
    PreparedNetwork,
    fill_networks,
    prepare_networks,
)
from personalive.pipelines.diffusion.checkpoints.model_config import read_model_config, write_model_config


def convert(
    directory: Path,
    out: Path,
    *,
    dtype: torch.dtype | None = None,
    progress: LoadProgress | None = None,
    report: Callable[[str], None] = lambda sentence: None,
) -> Path:
    """Write the set in `directory` to the new folder `out`, complete and checked, and return `out`.

    Weights keep the type they are stored in unless `dtype` names one; parts that compute in float32 (the motion
    extractor, the autoencoder's encoder) become float32 in any case. Entries that no network uses are left out;
    `report` is called with a sentence on that and on everything unusual. `out` appears only when it is complete.
    Raises `OutputExistsError` when `out` exists, `WeightsError` for a set that cannot be loaded, `InputError` when
    `out` cannot be written.
    """
    if out.exists() or out.is_symlink():
        raise OutputExistsError(f"{out} exists already: give a new folder.")
    root = layout.resolve_weights_dir(directory)
    networks = prepare_networks(directory)
    with atomic_dir(out) as partial:
        write_model_config(partial, read_model_config(root))
        done = 0
        for prepared in networks:
            kind = dtype or _stored_float_dtype(prepared)
            for filled in fill_networks(
                [prepared], torch.device("cpu"), kind, _offset_progress(progress, done, networks)
            ):
                _write_network(prepared, root, partial)
                for sentence in filled.notes:
                    report(sentence)
            done += prepared.plan.nbytes
            prepared.module.to_empty(device="meta")  # frees its memory for the next network
    return out


def _write_network(prepared: PreparedNetwork, root: Path, out: Path) -> None:
    network = prepared.spec
    folder = out / network.converted_file.folder
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / network.converted_file.names[0]
    entries = {network.restore_name(name): tensor for name, tensor in prepared.module.state_dict().items()}
    save_file(entries, path, metadata={"format": "pt"})
    path.chmod(folder.stat().st_mode & 0o666)  # the library lets only the owner read it, ignoring the umask
    if network.config is not None:
        config = network.config.find_in(root)
        if config is not None:
            shutil.copy(config, folder / config.name)


def _stored_float_dtype(prepared: PreparedNetwork) -> torch.dtype:
    """Return the floating type that holds all stored entries, except those that become float32 anyway."""
    free = prepared.spec.float32_prefixes
    kinds = {
        source.file.entries[source.name].dtype
        for name, source in prepared.plan.sources.items()
        if not name.startswith(free)
    } or {torch.float32}
    return reduce(torch.promote_types, (kind for kind in kinds if kind.is_floating_point))


def _offset_progress(
    progress: LoadProgress | None, done: int, networks: list[PreparedNetwork]
) -> LoadProgress | None:
    """Return a callback that reports the progress of one network as the progress of all."""
    if progress is None:
        return None
    total = sum(prepared.plan.nbytes for prepared in networks)
    return lambda name, count, _: progress(name, done + count, total)
