"""Sets of random weights, and copies of them to be damaged."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from personalive.pipelines.diffusion.checkpoints import layout
from personalive.pipelines.diffusion.checkpoints.layout import PublishedFile


def copied(root: Path, to: Path) -> Path:
    """A copy of a set that takes no space: its files are the same until they are `replaced`."""
    shutil.copytree(root, to, copy_function=os.link)
    return to


def as_kept(value: Tensor, network: str, entry: str, dtype: torch.dtype) -> Tensor:
    """An entry's value as a network holds it where the others are in `dtype`."""
    exact = network == "motion_extractor" or (network == "vae" and entry.startswith(("encoder.", "quant")))
    kind = torch.float32 if exact else dtype
    return value.to(kind) if value.is_floating_point() else value


def replaced(path: Path, content: bytes) -> Path:
    """Give a file of a copied set other content. The set it was copied from keeps its own."""
    path.unlink(missing_ok=True)
    path.write_bytes(content)
    return path


def edit(root: Path, file: PublishedFile, change: Callable[[dict[str, Tensor]], object]) -> Path:
    """Change the entries of a file in a copied set, in place."""
    path = root / file.folder / file.names[-1]
    entries = torch.load(path, weights_only=True)
    change(entries)
    path.unlink()
    torch.save(entries, path)
    return path


def split_up(path: Path, entries: dict[str, Tensor], parts: int = 3) -> Path:
    """Write entries the way libraries do where a file grows too large, and return the index."""
    places = {name: index * parts // len(entries) for index, name in enumerate(entries)}
    names = [f"{path.stem}-{part + 1:05}-of-{parts:05}{path.suffix}" for part in range(parts)]
    for part, name in enumerate(names):
        save_file({entry: entries[entry] for entry, at in places.items() if at == part}, path.with_name(name))
    index = path.with_name(f"{path.name}{layout.INDEX_SUFFIX}")
    listed = {entry: names[part] for entry, part in places.items()}
    index.write_text(json.dumps({"metadata": {}, "weight_map": listed}))
    return index


@cache
def stored(path: Path) -> dict[str, Tensor]:
    """What a file of a sound set holds."""
    entries: dict[str, Tensor] = torch.load(path, weights_only=True)
    return entries
