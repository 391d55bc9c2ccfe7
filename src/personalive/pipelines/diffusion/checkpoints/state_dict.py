"""Matching of the entries of files to a network, and filling the network with them.

Every entry has to be accounted for. Constants that a network can compute (positional encodings, index vectors) are
taken from a file that has them, if they are equal up to rounding. Every other entry must exist once, with the right
shape, a floating-point type where the network computes, and finite values. An error names the file and the entry;
what is only unusual is noted.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from personalive.errors import WeightsError
from personalive.pipelines.diffusion.checkpoints.checkpoint_file import CheckpointFile, format_names
from personalive.pipelines.diffusion.checkpoints.key_prefixes import KeyPrefix

Rename = Callable[[str, tuple[int, ...]], tuple[str, tuple[int, ...]]]
"""A function from an entry's name and shape in the file to those in the network, with as many elements."""

_MAX_LISTED = 4
_BATCH_COUNTER = "num_batches_tracked"
"""The last part of the name of a counter that batch norms keep in training, and that nothing reads."""
_STATISTICS = ("running_mean", "running_var")
_MAX_CONSTANT_ERROR = 1e-2
"""The largest error of a constant: positional encodings, from -1 to 1, may have been in half precision."""


def keep_name(name: str, shape: tuple[int, ...]) -> tuple[str, tuple[int, ...]]:
    """Return the name and the shape unchanged."""
    return name, shape


@dataclass(frozen=True, slots=True)
class EntrySource:
    """The source of an entry of the network: a file and the entry's name in it."""

    file: CheckpointFile
    name: str


@dataclass(frozen=True, slots=True)
class StateDictPlan:
    """The source of each entry of a network; `unused` entries are ignored, which `notes` tell the user."""

    network: str
    sources: Mapping[str, EntrySource]
    constants: Mapping[str, EntrySource]
    unused: Sequence[EntrySource]
    notes: tuple[str, ...] = ()

    @property
    def all_sources(self) -> Iterator[EntrySource]:
        """The sources of all entries of the files, used or not."""
        return itertools.chain(self.sources.values(), self.constants.values(), self.unused)

    @property
    def nbytes(self) -> int:
        """The number of bytes to read."""
        return sum(source.file.entries[source.name].nbytes for source in self.sources.values())


def plan_loading(
    network: str,
    module: nn.Module,
    files: Sequence[CheckpointFile],
    *,
    rename: Rename = keep_name,
    ignored_prefixes: tuple[str, ...] = (),
    missing_files: Sequence[Path] = (),
    strict: bool = False,
) -> StateDictPlan:
    """Account for every entry of `files`, of which later ones replace earlier ones, without reading a tensor.

    `module` is built on the meta device: its meta tensors are to be filled, the others are its constants. Entries
    that belong to nothing are an error where others are missing, or when `strict`. Otherwise they are noted, except
    those that begin with one of `ignored_prefixes`. When entries are missing, the error names `missing_files`,
    which may have them.

    Raises `WeightsError` naming files and entries that are missing, left over, or of a wrong shape or type.
    """
    wanted = expected_entries(module)
    constants = {name: tensor for name, tensor in module.named_buffers() if not tensor.is_meta}
    matching = _EntryMatcher({**constants, **wanted}, rename)
    for file in files:
        matching.add(file, network)
    sources, extras = (
        matching.sources,
        [each for each in matching.unused if not each.name.startswith(ignored_prefixes)],
    )
    read = " or ".join(str(file.path) for file in files)
    lacking = [f"{name} is missing from {read}" for name in matching.missing(wanted)]
    problems = matching.problems + lacking
    if problems or strict:
        problems += _left_over(extras)
    if problems:
        remedy = _suggest_download(missing_files) if lacking else ""
        raise WeightsError(f"The {network} cannot be loaded: {_format_problems(problems)}.{remedy}")
    return StateDictPlan(
        network,
        _select_sources(sources, wanted),
        _select_sources(sources, constants),
        matching.unused,
        (*matching.notes, *_format_unused(network, extras)),
    )


def expected_entries(module: nn.Module) -> dict[str, Tensor]:
    """Return the entries that files must have for a network that is built on the meta device."""
    return {name: tensor for name, tensor in module.state_dict().items() if tensor.is_meta}


def find_missing_entries(
    module: nn.Module, files: Sequence[CheckpointFile], network: str, rename: Rename
) -> list[str]:
    """Return the entries of a network, built on the meta device, that none of its files has."""
    wanted = expected_entries(module)
    matching = _EntryMatcher(wanted, rename)
    for file in files:
        matching.add(file, network)
    return matching.missing(wanted)


class _EntryMatcher:
    """The matching of files' entries to the entries of a network, `targets`."""

    def __init__(self, targets: Mapping[str, Tensor], rename: Rename) -> None:
        self.sources: dict[str, EntrySource] = {}
        self.unused: list[EntrySource] = []
        self.problems: list[str] = []
        self.notes: list[str] = []
        self._targets = targets
        self._rename = rename

    def missing(self, expected: Collection[str]) -> list[str]:
        """Return those of the expected entries that no file has."""
        return [name for name in expected if name not in self.sources]

    def add(self, file: CheckpointFile, network: str) -> None:
        """Add a file, whose entries replace those of earlier files."""
        naming = KeyPrefix(file.entries, network, lambda name: self._rename(name, ())[0] in self._targets)
        self.notes.extend(file.notes)
        if naming.note is not None:
            self.notes.append(f"{file.path}: {naming.note}.")
        for stored, entry in file.entries.items():
            if stored.rpartition(".")[2] == _BATCH_COUNTER:
                continue
            bare = naming(stored)
            name, shape = (None, ()) if bare is None else self._rename(bare, entry.shape)
            if name is None or name not in self._targets:
                self.unused.append(EntrySource(file, stored))
                continue
            if name in self.sources and self.sources[name].file is file:
                self.problems.append(
                    f"{file.path}: {stored} and {self.sources[name].name} are the same entry"
                )
            self.sources[name] = EntrySource(file, stored)
            target = self._targets[name]
            if shape != tuple(target.shape):
                self.problems.append(
                    f"{file.path}: {stored} has shape {list(entry.shape)}, not {list(target.shape)}"
                )
            elif not _is_convertible(entry.dtype, target.dtype):
                self.problems.append(
                    f"{file.path}: {stored} is {entry.dtype}, which cannot be {target.dtype}"
                )


@torch.no_grad()
def fill_module(
    module: nn.Module,
    plan: StateDictPlan,
    *,
    device: torch.device,
    resolve_dtype: Callable[[str], torch.dtype],
    progress: Callable[[int], None] = lambda nbytes: None,
) -> tuple[str, ...]:
    """Fill every meta tensor of `module` on `device`, and move its constants there. Returns notes for the user.

    Floating-point entries get the type that `resolve_dtype` returns for their names; a batch norm's statistics that
    it cannot represent become float32. Tensors are converted one by one, so that memory holds little more than the
    network. `progress` is called with the bytes of each tensor read. Raises `WeightsError` for values that are not
    finite or constants that differ.
    """
    state = module.state_dict()
    constants = {name: tensor for name, tensor in module.named_buffers() if not tensor.is_meta}
    notes = _load_constants(plan, constants)
    filled: dict[str, Tensor] = {}
    for name, tensor in _stream_tensors(plan.sources):
        kind = resolve_dtype(name) if state[name].dtype.is_floating_point else state[name].dtype
        value = tensor.to(device, kind, copy=True, memory_format=torch.contiguous_format)
        if name.rpartition(".")[2] in _STATISTICS and not _is_finite(value):
            value = tensor.to(device, torch.float32, copy=True)
        value = value.reshape(state[name].shape)
        _check_finite(plan.sources[name], tensor, value)
        filled[name] = value
        progress(tensor.nbytes)
    module.load_state_dict({**state, **filled}, assign=True)
    for name, constant in constants.items():
        owner, _, leaf = name.rpartition(".")
        kind = resolve_dtype(name) if constant.dtype.is_floating_point else constant.dtype
        setattr(module.get_submodule(owner), leaf, constant.to(device, kind))
    module.requires_grad_(False)
    module.eval()
    return notes


def _load_constants(plan: StateDictPlan, constants: dict[str, Tensor]) -> tuple[str, ...]:
    """Replace `constants` by the values that files have for them. Returns notes for the user.

    Raises `WeightsError` for values that differ by more than rounding.
    """
    rounded: dict[Path, list[str]] = {}
    farthest = 0.0
    for name, tensor in _stream_tensors(plan.constants):
        source, own = plan.constants[name], constants[name]
        off = float((tensor.double() - own.double()).abs().max()) if own.numel() else 0.0
        if not off <= _MAX_CONSTANT_ERROR:  # NaN is refused too
            raise WeightsError(
                f"{source.file.path}: {source.name} is a constant of the method, but holds other values."
            )
        if off > _rounding_tolerance(tensor.dtype):
            rounded.setdefault(source.file.path, []).append(source.name)
            farthest = max(farthest, off)
        # The research code computes with what is in its files.
        constants[name] = tensor.to(own.dtype, copy=True, memory_format=torch.contiguous_format)
    return tuple(
        f"{path}: the file's values are taken for {format_names(names)}, off by up to {farthest:.1g} from what "
        "the method computes, as after rounding to half precision."
        for path, names in rounded.items()
    )


def _rounding_tolerance(dtype: torch.dtype) -> float:
    """Return the error that a constant may have because of the type it is stored in."""
    return max(1e-5, torch.finfo(dtype).eps) if dtype.is_floating_point else 0.0


def _is_convertible(stored: torch.dtype, expected: torch.dtype) -> bool:
    return stored.is_floating_point == expected.is_floating_point and not stored.is_complex


def _select_sources(
    sources: Mapping[str, EntrySource], names: Mapping[str, Tensor]
) -> dict[str, EntrySource]:
    return {name: source for name, source in sources.items() if name in names}


def _stream_tensors(sources: Mapping[str, EntrySource]) -> Iterator[tuple[str, Tensor]]:
    """Yield the network's names with their tensors, file by file and in each file's order."""
    by_file: dict[Path, dict[str, str]] = {}
    files: dict[Path, CheckpointFile] = {}
    for name, source in sources.items():
        files[source.file.path] = source.file
        by_file.setdefault(source.file.path, {})[source.name] = name
    for path, names in by_file.items():
        for stored, tensor in files[path].stream(name for name in files[path].entries if name in names):
            yield names[stored], tensor


def _is_finite(value: Tensor) -> bool:
    if not value.dtype.is_floating_point or value.numel() == 0:
        return True
    low, high = value.aminmax()  # in one pass and without a mask; NaN propagates
    return bool(torch.isfinite(low) & torch.isfinite(high))


def _check_finite(source: EntrySource, stored: Tensor, value: Tensor) -> None:
    if not _is_finite(value):
        overflowed = bool(torch.isfinite(stored).all())
        reason = f"values too large for {value.dtype}" if overflowed else "values that are not finite"
        raise WeightsError(f"{source.file.path}: {source.name} holds {reason}.")


def _left_over(extras: Sequence[EntrySource]) -> Iterator[str]:
    for path, names in _by_file(extras).items():
        belongs = "belongs" if len(names) == 1 else "belong"
        yield f"{path}: {format_names(names)} {belongs} to no entry of this network"


def _format_unused(network: str, extras: Sequence[EntrySource]) -> Iterator[str]:
    for path, names in _by_file(extras).items():
        yield f"{path}: left out, as nothing in the {network} has such a name: {format_names(names)}."


def _by_file(entries: Iterable[EntrySource]) -> dict[Path, list[str]]:
    """Group the entries' names in their files by file."""
    names: dict[Path, list[str]] = {}
    for each in entries:
        names.setdefault(each.file.path, []).append(each.name)
    return names


def _suggest_download(missing_files: Sequence[Path]) -> str:
    if not missing_files:
        return ""
    verb = "is" if len(missing_files) == 1 else "are"
    paths = " and ".join(map(str, missing_files))
    return f" {paths} {verb} not there: get the released weights with: personalive download"


def _format_problems(problems: Sequence[str]) -> str:
    shown = "; ".join(problems[:_MAX_LISTED])
    return shown if len(problems) <= _MAX_LISTED else f"{shown}; and {len(problems) - _MAX_LISTED} more"
