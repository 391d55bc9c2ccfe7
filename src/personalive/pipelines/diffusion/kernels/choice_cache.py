"""What was measured to be fastest, kept in a file for the next start."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import json
import logging
import os
from collections.abc import Iterator, Mapping, MutableMapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch

from personalive.file_replace import replace_file

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Choice:
    """Which form was taken, and the milliseconds of each that was timed."""

    form: str
    ms: Mapping[str, float]


class Choices(MutableMapping[str, Choice]):
    """Operation and shape → choice. With a folder they are read from a file in it, and written as they are made.

    The file is named by the versions of all that computes. One that cannot be read is as good as none, and where
    nothing can be written choices last as long as the process.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.path = None if folder is None else folder / f"choices-{versions()}.json"
        self._known: dict[str, Choice] = {} if self.path is None else _read(self.path)
        self._passing: set[str] = set()

    def __getitem__(self, key: str) -> Choice:
        return self._known[key]

    def __setitem__(self, key: str, choice: Choice) -> None:
        self._passing.discard(key)
        self._known[key] = choice
        self._write()

    def __delitem__(self, key: str) -> None:
        del self._known[key]
        self._passing.discard(key)

    def __iter__(self) -> Iterator[str]:
        return iter(self._known)

    def __len__(self) -> int:
        return len(self._known)

    def put_for_now(self, key: str, choice: Choice) -> None:
        """One that the next start shall make anew."""
        self._passing.add(key)
        self._known[key] = choice

    def _write(self) -> None:
        if self.path is None:
            return
        kept = {
            key: {"form": choice.form, "ms": {name: round(ms, 5) for name, ms in choice.ms.items()}}
            for key, choice in sorted(self._known.items())
            if key not in self._passing
        }
        beside = self.path.with_name(f".{self.path.name}.{os.getpid()}")
        try:
            beside.write_text(json.dumps(kept, indent=1), encoding="utf-8")
            replace_file(beside, self.path)
        except OSError as error:
            _log.info("which kernels are fastest is not kept for the next start: %s", error)
            self.path = None
            with contextlib.suppress(OSError):
                beside.unlink()


@cache
def versions() -> str:
    """A short hash of what computes: PyTorch, its libraries, Triton, and our own operations."""
    try:
        triton = importlib.metadata.version("triton")
    except importlib.metadata.PackageNotFoundError:
        triton = ""
    cudnn = torch.backends.cudnn.version() if torch.backends.cudnn.is_available() else None
    digest = hashlib.sha256(f"{torch.__version__} {torch.version.cuda} {cudnn} {triton}".encode())
    for source in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(source.read_bytes())
    return digest.hexdigest()[:12]


def _read(path: Path) -> dict[str, Choice]:
    try:
        found: Any = json.loads(path.read_text(encoding="utf-8"))
        return {str(key): _choice(entry) for key, entry in found.items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, AttributeError, KeyError) as error:
        _log.info("%s cannot be read, what is fastest is measured anew: %s", path, error)
        return {}


def _choice(entry: Any) -> Choice:
    return Choice(str(entry["form"]), {str(name): float(ms) for name, ms in entry["ms"].items()})
