"""A file cache of the kernels that were measured to be fastest, for the next start."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import json
import logging
import os
from collections import UserDict
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch

from personalive.file_replace import replace_file

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class KernelChoice:
    """The chosen form of an operation, and the milliseconds of each form that was timed."""

    implementation: str
    ms: Mapping[str, float]


class KernelChoiceCache(UserDict[str, KernelChoice]):
    """A mapping from operation and shape to choice, kept in a file if a folder is given, and written on changes.

    The file's name has a hash of the versions of all that computes. A file that cannot be read is ignored, and
    where nothing can be written choices last as long as the process.
    """

    def __init__(self, cache_dir: Path | None = None) -> None:
        super().__init__()
        self.path = None if cache_dir is None else cache_dir / f"choices-{hash_versions()}.json"
        self.data = {} if self.path is None else _read_choices(self.path)
        self._unsaved: set[str] = set()

    def __setitem__(self, key: str, choice: KernelChoice) -> None:
        self._unsaved.discard(key)
        self.data[key] = choice
        self._write()

    def set_unsaved(self, key: str, choice: KernelChoice) -> None:
        """Set a choice for this process alone: the next start measures again."""
        self._unsaved.add(key)
        self.data[key] = choice

    def _write(self) -> None:
        if self.path is None:
            return
        kept = {
            key: {"form": choice.implementation, "ms": {name: round(ms, 5) for name, ms in choice.ms.items()}}
            for key, choice in sorted(self.data.items())
            if key not in self._unsaved
        }
        beside = self.path.with_name(f".{self.path.name}.{os.getpid()}")
        try:
            beside.write_text(json.dumps(kept, indent=1), encoding="utf-8")
            replace_file(beside, self.path)
        except OSError as error:
            _log.info("the choice of the fastest kernels is not kept for the next start: %s", error)
            self.path = None
            with contextlib.suppress(OSError):
                beside.unlink()


@cache
def hash_versions() -> str:
    """Return a short hash of all that computes: PyTorch, its libraries, Triton, and this package's kernels."""
    try:
        triton = importlib.metadata.version("triton")
    except importlib.metadata.PackageNotFoundError:
        triton = ""
    cudnn = torch.backends.cudnn.version() if torch.backends.cudnn.is_available() else None
    digest = hashlib.sha256(f"{torch.__version__} {torch.version.cuda} {cudnn} {triton}".encode())
    for source in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(source.read_bytes())
    return digest.hexdigest()[:12]


def _read_choices(path: Path) -> dict[str, KernelChoice]:
    try:
        found: Any = json.loads(path.read_text(encoding="utf-8"))
        return {str(key): _parse_choice(entry) for key, entry in found.items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, AttributeError, KeyError) as error:
        _log.info("%s cannot be read, the fastest kernels are measured again: %s", path, error)
        return {}


def _parse_choice(entry: Any) -> KernelChoice:
    return KernelChoice(str(entry["form"]), {str(name): float(ms) for name, ms in entry["ms"].items()})
