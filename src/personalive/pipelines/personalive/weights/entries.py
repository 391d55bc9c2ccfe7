"""Matching the entries of files to a network, and filling the network with them.

Every entry has to be accounted for. What a network computes for itself (position codes, index vectors) is
compared where a file carries it; everything else must be there once, with the right shape, a floating type
where the network computes, and finite values. Whatever is wrong is said with the file and the entry.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from personalive.errors import WeightsError
from personalive.pipelines.personalive.weights.tensor_files import TensorFile

Rename = Callable[[str, tuple[int, ...]], tuple[str, tuple[int, ...]]]
"""From an entry's name and shape in the file to those in the network, with the same number of elements."""

_NAMED_AT_MOST = 4


def as_it_is(name: str, shape: tuple[int, ...]) -> tuple[str, tuple[int, ...]]:
    """No renaming."""
    return name, shape


@dataclass(frozen=True, slots=True)
class Source:
    """Where an entry of the network comes from: a file and the entry's name there."""

    file: TensorFile
    name: str


@dataclass(frozen=True, slots=True)
class Plan:
    """Which file gives which entry of a network; `constants` are only compared, `unused` are let be."""

    network: str
    sources: Mapping[str, Source]
    constants: Mapping[str, Source]
    unused: Sequence[Source]

    @property
    def nbytes(self) -> int:
        """Bytes to read."""
        return sum(source.file.entries[source.name].nbytes for source in self.sources.values())


def plan(
    network: str,
    module: nn.Module,
    files: Sequence[TensorFile],
    *,
    rename: Rename = as_it_is,
    ignored: tuple[str, ...] = (),
    absent: Sequence[Path] = (),
) -> Plan:
    """Account for every entry of `files`, later ones laid over earlier ones, without reading a tensor.

    `module` is built on the meta device: its meta tensors are to be filled, the others are its constants. Entries
    of files that begin like one of `ignored` may belong to nothing. `absent` files are named when entries are
    missing, which they may have. Raises `WeightsError` naming files and entries that are missing, left over,
    misshapen or of a wrong type.
    """
    wanted = {name: tensor for name, tensor in module.state_dict().items() if tensor.is_meta}
    constants = {name: tensor for name, tensor in module.named_buffers() if not tensor.is_meta}
    sources: dict[str, Source] = {}
    unused: list[Source] = []
    problems: list[str] = []
    for file in files:
        for stored, entry in file.entries.items():
            name, shape = rename(stored, entry.shape)
            target = wanted.get(name, constants.get(name))
            if target is None:
                unused.append(Source(file, stored))
                continue
            if name in sources and sources[name].file is file:
                problems.append(f"{file.path}: {stored} and {sources[name].name} are the same entry")
            sources[name] = Source(file, stored)
            if shape != tuple(target.shape):
                problems.append(
                    f"{file.path}: {stored} has shape {list(entry.shape)}, not {list(target.shape)}"
                )
            elif not _convertible(entry.dtype, target.dtype):
                problems.append(f"{file.path}: {stored} is {entry.dtype}, which cannot be {target.dtype}")
    read = " or ".join(str(file.path) for file in files)
    missing = [f"{name} is missing from {read}" for name in wanted if name not in sources]
    problems += missing
    problems += [
        f"{extra.file.path}: {extra.name} belongs to no entry of this network"
        for extra in unused
        if not extra.name.startswith(ignored)
    ]
    if problems:
        remedy = _remedy(absent) if missing else ""
        raise WeightsError(f"The {network} cannot be loaded: {_listed(problems)}.{remedy}")
    return Plan(network, _only(sources, wanted), _only(sources, constants), unused)


@torch.no_grad()
def fill(
    module: nn.Module,
    plan: Plan,
    *,
    device: torch.device,
    dtype_of: Callable[[str], torch.dtype],
    progress: Callable[[int], None] = lambda nbytes: None,
) -> None:
    """Give every meta tensor of `module` its values on `device`; constants follow.

    Floating ones become what `dtype_of` gives for their names. Tensors are converted one by one, so that little
    more than the network itself is ever in memory. `progress` is told the bytes of each tensor read. Raises
    `WeightsError` for values that are not finite or constants that differ.
    """
    state = module.state_dict()
    constants = {name: tensor for name, tensor in module.named_buffers() if not tensor.is_meta}
    for name, tensor in _stream(plan.constants):
        _require_equal(plan.constants[name], tensor, constants[name])
    filled: dict[str, Tensor] = {}
    for name, tensor in _stream(plan.sources):
        kind = dtype_of(name) if state[name].dtype.is_floating_point else state[name].dtype
        value = tensor.to(device, kind, copy=True, memory_format=torch.contiguous_format)
        value = value.reshape(state[name].shape)
        _require_finite(plan.sources[name], tensor, value)
        filled[name] = value
        progress(tensor.nbytes)
    module.load_state_dict({**state, **filled}, assign=True)
    for name, constant in constants.items():
        owner, _, leaf = name.rpartition(".")
        kind = dtype_of(name) if constant.dtype.is_floating_point else constant.dtype
        setattr(module.get_submodule(owner), leaf, constant.to(device, kind))
    module.requires_grad_(False)
    module.eval()


def _convertible(stored: torch.dtype, wanted: torch.dtype) -> bool:
    return stored.is_floating_point == wanted.is_floating_point and not stored.is_complex


def _only(sources: Mapping[str, Source], names: Mapping[str, Tensor]) -> dict[str, Source]:
    return {name: source for name, source in sources.items() if name in names}


def _stream(sources: Mapping[str, Source]) -> Iterator[tuple[str, Tensor]]:
    """The network's names with their tensors, file by file in each file's own order."""
    by_file: dict[Path, dict[str, str]] = {}
    files: dict[Path, TensorFile] = {}
    for name, source in sources.items():
        files[source.file.path] = source.file
        by_file.setdefault(source.file.path, {})[source.name] = name
    for path, names in by_file.items():
        for stored, tensor in files[path].stream(name for name in files[path].entries if name in names):
            yield names[stored], tensor


def _require_finite(source: Source, stored: Tensor, value: Tensor) -> None:
    if not value.dtype.is_floating_point or value.numel() == 0:
        return
    low, high = value.aminmax()  # in one pass and without a mask; NaN comes through
    if not bool(torch.isfinite(low) & torch.isfinite(high)):
        overflowed = bool(torch.isfinite(stored).all())
        reason = f"values too large for {value.dtype}" if overflowed else "values that are not finite"
        raise WeightsError(f"{source.file.path}: {source.name} holds {reason}.")


def _require_equal(source: Source, stored: Tensor, constant: Tensor) -> None:
    tolerance = 1e-5 if stored.dtype in {torch.float32, torch.float64} else 1e-2
    if not torch.allclose(stored.double(), constant.double(), rtol=0, atol=tolerance):
        raise WeightsError(
            f"{source.file.path}: {source.name} is a constant of the method, but holds other values."
        )


def _remedy(absent: Sequence[Path]) -> str:
    if not absent:
        return ""
    verb = "is" if len(absent) == 1 else "are"
    paths = " and ".join(map(str, absent))
    return f" {paths} {verb} not there: get the released weights with: personalive download"


def _listed(problems: Sequence[str]) -> str:
    shown = "; ".join(problems[:_NAMED_AT_MOST])
    return shown if len(problems) <= _NAMED_AT_MOST else f"{shown}; and {len(problems) - _NAMED_AT_MOST} more"
