"""One file of weights: its entries, and its tensors one after the other in little memory.

Only formats that hold no code are read: safetensors, and files that `pickle_inspector.py` and then
`torch.load(weights_only=True)` accept. Files are mapped, not read into memory, and mapped again every few hundred
megabytes, since pages that were touched count as the process's memory until their mapping is closed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from personalive.errors import MissingWeightsError, WeightsError
from personalive.pipelines.diffusion.checkpoints import pickle_inspector, state_dict_search, zip_archive
from personalive.pipelines.diffusion.checkpoints.file_diagnosis import diagnose_file

_BYTES_PER_MAPPING = 512 << 20
_MAX_NAME_LENGTH = 250
_MAX_LISTED = 3

_SAFETENSORS_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


@dataclass(frozen=True, slots=True)
class TensorEntry:
    """The shape and type of one tensor of a file."""

    shape: tuple[int, ...]
    dtype: torch.dtype

    @property
    def nbytes(self) -> int:
        """The size of the tensor in bytes."""
        return math.prod(self.shape) * self.dtype.itemsize


@dataclass(frozen=True, slots=True)
class CheckpointFile:
    """A weights file and the entries it holds, in the file's order. Made by `CheckpointFile.open`.

    `key_path`: the names that lead to the entries; `skipped`: the names beside them whose values are no tensors;
    `has_numpy_scalars`: whether numpy's scalars are in the file.
    """

    path: Path
    entries: Mapping[str, TensorEntry]
    key_path: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()
    has_numpy_scalars: bool = False

    @classmethod
    def open(cls, path: Path) -> CheckpointFile:
        """Read the entries of a file. Raises `WeightsError`, naming the file, for anything but plain tensors."""
        with _naming_file(path):
            wrong = diagnose_file(path)
            if wrong is not None:
                raise WeightsError(wrong)
            file = cls._open_safetensors(path) if _is_safetensors(path) else cls._open_pickle(path)
        for name in (*file.entries, *file.key_path, *file.skipped):
            if len(name) > _MAX_NAME_LENGTH or not name.isprintable():  # errors could not show it
                raise WeightsError(
                    f"{path} holds an entry with the name {name[:100]!r}, which cannot be right."
                )
        return file

    @classmethod
    def _open_safetensors(cls, path: Path) -> CheckpointFile:
        return cls(path, dict(_read_safetensors_entries(path)))

    @classmethod
    def _open_pickle(cls, path: Path) -> CheckpointFile:
        content, scalars = pickle_inspector.inspect_pickle(path)
        found = state_dict_search.find_state_dict(content, path)
        entries = {name: TensorEntry(tensor.shape, tensor.dtype) for name, tensor in found.tensors.items()}
        return cls(path, entries, found.key_path, found.skipped, scalars)

    @property
    def notes(self) -> tuple[str, ...]:
        """What was chosen or skipped to find the entries, one sentence each."""
        notes = []
        if self.key_path:
            notes.append(f"{self.path}: the network is taken from {'.'.join(self.key_path)!r} in it.")
        if self.skipped:
            notes.append(f"{self.path}: skipped, as they are no tensors: {format_names(self.skipped)}.")
        return tuple(notes)

    def stream(self, names: Iterable[str]) -> Iterator[tuple[str, Tensor]]:
        """Yield the named entries in turn. Copy each tensor: it is valid only until the next one is asked for."""
        pending = list(names)
        while pending:
            mapped = 0
            with _open_mapped(self) as read:
                while pending and mapped < _BYTES_PER_MAPPING:
                    name = pending.pop(0)
                    yield name, read(name)
                    mapped += self.entries[name].nbytes


def _load_pickle(file: CheckpointFile) -> dict[str, Tensor]:
    """Return the tensors of a file that `torch.load` reads."""
    # The constructors of numpy's scalars, which are harmless, as the inspector has accepted the file.
    allowed = _numpy_globals() if file.has_numpy_scalars else []
    with torch.serialization.safe_globals(allowed):
        content = torch.load(
            file.path, map_location="cpu", weights_only=True, mmap=zip_archive.is_zip(file.path)
        )
    content = state_dict_search.get_nested(content, file.key_path)
    tensors = {name: Tensor.detach(content[name]) for name in file.entries}
    for name, tensor in tensors.items():
        if tensor.layout is not torch.strided or tensor.is_quantized or tensor.is_meta:
            raise WeightsError(f"{file.path}: {name} is not a plain tensor.")
    return tensors


def _numpy_globals() -> list[Any]:
    """Return everything that pickles of numpy's scalars refer to, under the names of both of numpy's versions."""
    import numpy as np

    make = np.float64(0).__reduce__()[0]
    kinds = [kind for kind in vars(np.dtypes).values() if isinstance(kind, type)]
    return [(make, "numpy.core.multiarray.scalar"), (make, "numpy._core.multiarray.scalar"), np.dtype, *kinds]


def _read_safetensors_entries(path: Path) -> Iterator[tuple[str, TensorEntry]]:
    with safe_open(path, framework="pt", device="cpu") as opened:
        for name in opened.keys():  # noqa: SIM118 - not a mapping
            view = opened.get_slice(name)
            kind = view.get_dtype()
            if kind not in _SAFETENSORS_DTYPES:
                raise WeightsError(f"{path}: {name} is stored as {kind}, which is not read here.")
            yield name, TensorEntry(tuple(view.get_shape()), _SAFETENSORS_DTYPES[kind])


def _is_safetensors(path: Path) -> bool:
    return path.suffix == ".safetensors"


@contextmanager
def _open_mapped(file: CheckpointFile) -> Iterator[Callable[[str], Tensor]]:
    """Map the file's tensors for the time of the block; yields a function that returns the tensor of a name."""
    with _naming_file(file.path):
        if _is_safetensors(file.path):
            with safe_open(file.path, framework="pt", device="cpu") as opened:
                yield opened.get_tensor
        else:
            yield _load_pickle(file).__getitem__


@contextmanager
def _naming_file(path: Path) -> Iterator[None]:
    """Convert every error that a broken file causes in the block to a `WeightsError` that names the file."""
    try:
        yield
    except WeightsError:
        raise
    except FileNotFoundError:
        raise MissingWeightsError(f"{path} is not there.") from None
    except PermissionError:
        raise WeightsError(f"{path} may not be read: check its permissions.") from None
    except Exception as error:  # parsers of damaged files raise nearly anything
        raise WeightsError(
            f"{path} is damaged or no file of weights ({summarize_error(error)}). Fetch it again."
        ) from error


def summarize_error(error: Exception) -> str:
    """Return the type and the first line of a library's error, which may quote a file, as printable text."""
    words = str(error).strip().split("\n", 1)[0][:200]
    return f"{type(error).__name__}: {''.join(sign if sign.isprintable() else '?' for sign in words)}"


def format_names(names: Sequence[str]) -> str:
    """Return a list of the first three names for a message, and how many more there are."""
    more = len(names) - _MAX_LISTED
    return ", ".join(names[:_MAX_LISTED]) + (f" and {more} more" if more > 0 else "")
