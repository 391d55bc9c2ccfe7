"""Matching the entries of files to a network, and filling the network with them.

Every entry has to be accounted for. What a network computes for itself (position codes, index vectors) is taken
from a file that carries it, if it is the same but for rounding; everything else must be there once, with the right
shape, a floating type where the network computes, and finite values. Whatever is wrong is said with the file and
the entry; what is only unusual is noted.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from personalive.errors import WeightsError
from personalive.pipelines.diffusion.checkpoints.checkpoint_file import TensorFile, named
from personalive.pipelines.diffusion.checkpoints.key_prefixes import Naming

Rename = Callable[[str, tuple[int, ...]], tuple[str, tuple[int, ...]]]
"""From an entry's name and shape in the file to those in the network, with the same number of elements."""

_NAMED_AT_MOST = 4
_COUNTER = "num_batches_tracked"
"""What batch norms count in training, and nothing reads."""
_STATISTICS = ("running_mean", "running_var")
_ROUNDED = 1e-2
"""How far a constant may be off: position codes, from -1 to 1, that went through half precision are."""


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
    """Which file gives which entry of a network; `unused` entries are let be, as `notes` say to the user."""

    network: str
    sources: Mapping[str, Source]
    constants: Mapping[str, Source]
    unused: Sequence[Source]
    notes: tuple[str, ...] = ()

    @property
    def all_sources(self) -> Iterator[Source]:
        """Of every entry of its files, used or not."""
        return itertools.chain(self.sources.values(), self.constants.values(), self.unused)

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
    strict: bool = False,
) -> Plan:
    """Account for every entry of `files`, later ones laid over earlier ones, without reading a tensor.

    `module` is built on the meta device: its meta tensors are to be filled, the others are its constants. Entries
    that belong to nothing are an error where something is missing, or when `strict`; else they are noted, but for
    those that begin like one of `ignored`. `absent` files are named when entries are missing, which they may have.
    Raises `WeightsError` naming files and entries that are missing, left over, misshapen or of a wrong type.
    """
    wanted = wanted_entries(module)
    constants = {name: tensor for name, tensor in module.named_buffers() if not tensor.is_meta}
    matching = _Matching({**constants, **wanted}, rename)
    for file in files:
        matching.add(file, network)
    sources, extras = (
        matching.sources,
        [each for each in matching.unused if not each.name.startswith(ignored)],
    )
    read = " or ".join(str(file.path) for file in files)
    lacking = [f"{name} is missing from {read}" for name in matching.lacking(wanted)]
    problems = matching.problems + lacking
    if problems or strict:
        problems += _left_over(extras)
    if problems:
        remedy = _remedy(absent) if lacking else ""
        raise WeightsError(f"The {network} cannot be loaded: {_listed(problems)}.{remedy}")
    return Plan(
        network,
        _only(sources, wanted),
        _only(sources, constants),
        matching.unused,
        (*matching.notes, *_left_out(network, extras)),
    )


def wanted_entries(module: nn.Module) -> dict[str, Tensor]:
    """What files must have for a network that is built on the meta device."""
    return {name: tensor for name, tensor in module.state_dict().items() if tensor.is_meta}


def missing(module: nn.Module, files: Sequence[TensorFile], network: str, rename: Rename) -> list[str]:
    """The entries of a network, built on the meta device, that none of its files has."""
    wanted = wanted_entries(module)
    matching = _Matching(wanted, rename)
    for file in files:
        matching.add(file, network)
    return matching.lacking(wanted)


class _Matching:
    """Entries of files by the entries of a network, `targets`, that they belong to."""

    def __init__(self, targets: Mapping[str, Tensor], rename: Rename) -> None:
        self.sources: dict[str, Source] = {}
        self.unused: list[Source] = []
        self.problems: list[str] = []
        self.notes: list[str] = []
        self._targets = targets
        self._rename = rename

    def lacking(self, wanted: Collection[str]) -> list[str]:
        """Those of the wanted entries that no file has given."""
        return [name for name in wanted if name not in self.sources]

    def add(self, file: TensorFile, network: str) -> None:
        """Lay a file over those before."""
        naming = Naming(file.entries, network, lambda name: self._rename(name, ())[0] in self._targets)
        self.notes.extend(file.notes)
        if naming.note is not None:
            self.notes.append(f"{file.path}: {naming.note}.")
        for stored, entry in file.entries.items():
            if stored.rpartition(".")[2] == _COUNTER:
                continue
            bare = naming(stored)
            name, shape = (None, ()) if bare is None else self._rename(bare, entry.shape)
            if name is None or name not in self._targets:
                self.unused.append(Source(file, stored))
                continue
            if name in self.sources and self.sources[name].file is file:
                self.problems.append(
                    f"{file.path}: {stored} and {self.sources[name].name} are the same entry"
                )
            self.sources[name] = Source(file, stored)
            target = self._targets[name]
            if shape != tuple(target.shape):
                self.problems.append(
                    f"{file.path}: {stored} has shape {list(entry.shape)}, not {list(target.shape)}"
                )
            elif not _convertible(entry.dtype, target.dtype):
                self.problems.append(
                    f"{file.path}: {stored} is {entry.dtype}, which cannot be {target.dtype}"
                )


@torch.no_grad()
def fill(
    module: nn.Module,
    plan: Plan,
    *,
    device: torch.device,
    dtype_of: Callable[[str], torch.dtype],
    progress: Callable[[int], None] = lambda nbytes: None,
) -> tuple[str, ...]:
    """Give every meta tensor of `module` its values on `device`; constants follow. Returns what is to be noted.

    Floating ones become what `dtype_of` gives for their names; a batch norm's statistics that it cannot hold
    become float32. Tensors are converted one by one, so that little more than the network itself is ever in memory.
    `progress` is told the bytes of each tensor read. Raises `WeightsError` for values that are not finite or
    constants that differ.
    """
    state = module.state_dict()
    constants = {name: tensor for name, tensor in module.named_buffers() if not tensor.is_meta}
    notes = _take_constants(plan, constants)
    filled: dict[str, Tensor] = {}
    for name, tensor in _stream(plan.sources):
        kind = dtype_of(name) if state[name].dtype.is_floating_point else state[name].dtype
        value = tensor.to(device, kind, copy=True, memory_format=torch.contiguous_format)
        if name.rpartition(".")[2] in _STATISTICS and not _is_finite(value):
            value = tensor.to(device, torch.float32, copy=True)
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
    return notes


def _take_constants(plan: Plan, constants: dict[str, Tensor]) -> tuple[str, ...]:
    """Put the values that files have for `constants` into them. Returns what is to be noted.

    Raises `WeightsError` for values that are others, and not these after some rounding.
    """
    rounded: dict[Path, list[str]] = {}
    farthest = 0.0
    for name, tensor in _stream(plan.constants):
        source, own = plan.constants[name], constants[name]
        off = float((tensor.double() - own.double()).abs().max()) if own.numel() else 0.0
        if not off <= _ROUNDED:  # NaN is refused too
            raise WeightsError(
                f"{source.file.path}: {source.name} is a constant of the method, but holds other values."
            )
        if off > _own_rounding(tensor.dtype):
            rounded.setdefault(source.file.path, []).append(source.name)
            farthest = max(farthest, off)
        # The research code computes with what is in its files.
        constants[name] = tensor.to(own.dtype, copy=True, memory_format=torch.contiguous_format)
    return tuple(
        f"{path}: the file's values are taken for {named(names)}, off by up to {farthest:.1g} from what the method "
        "computes, as after rounding to half precision."
        for path, names in rounded.items()
    )


def _own_rounding(dtype: torch.dtype) -> float:
    """How far a constant is off for no other reason than the type it is stored in."""
    return max(1e-5, torch.finfo(dtype).eps) if dtype.is_floating_point else 0.0


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


def _is_finite(value: Tensor) -> bool:
    if not value.dtype.is_floating_point or value.numel() == 0:
        return True
    low, high = value.aminmax()  # in one pass and without a mask; NaN comes through
    return bool(torch.isfinite(low) & torch.isfinite(high))


def _require_finite(source: Source, stored: Tensor, value: Tensor) -> None:
    if not _is_finite(value):
        overflowed = bool(torch.isfinite(stored).all())
        reason = f"values too large for {value.dtype}" if overflowed else "values that are not finite"
        raise WeightsError(f"{source.file.path}: {source.name} holds {reason}.")


def _left_over(extras: Sequence[Source]) -> Iterator[str]:
    for path, names in _by_file(extras).items():
        belongs = "belongs" if len(names) == 1 else "belong"
        yield f"{path}: {named(names)} {belongs} to no entry of this network"


def _left_out(network: str, extras: Sequence[Source]) -> Iterator[str]:
    for path, names in _by_file(extras).items():
        yield f"{path}: left out, as nothing in the {network} has such a name: {named(names)}."


def _by_file(entries: Iterable[Source]) -> dict[Path, list[str]]:
    """The names that entries have in their files."""
    names: dict[Path, list[str]] = {}
    for each in entries:
        names.setdefault(each.file.path, []).append(each.name)
    return names


def _remedy(absent: Sequence[Path]) -> str:
    if not absent:
        return ""
    verb = "is" if len(absent) == 1 else "are"
    paths = " and ".join(map(str, absent))
    return f" {paths} {verb} not there: get the released weights with: personalive download"


def _listed(problems: Sequence[str]) -> str:
    shown = "; ".join(problems[:_NAMED_AT_MOST])
    return shown if len(problems) <= _NAMED_AT_MOST else f"{shown}; and {len(problems) - _NAMED_AT_MOST} more"
