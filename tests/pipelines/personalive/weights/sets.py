"""Sets of random weights, and copies of them to be damaged."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from personalive.pipelines.personalive.weights.layout import PublishedFile


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


@cache
def stored(path: Path) -> dict[str, Tensor]:
    """What a file of a sound set holds."""
    entries: dict[str, Tensor] = torch.load(path, weights_only=True)
    return entries
