"""The search for the network in a checkpoint: the one dict of tensors in it, under any name.

Training code saves more than a state dict: `{"state_dict": …, "optimizer": …, "epoch": 3}`. Everything beside the
dict that is found stays unread.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from personalive.errors import WeightsError
from personalive.pipelines.diffusion.checkpoints.pickle_inspector import NumpyScalar, TensorInfo

WRAPPER_KEYS = (
    *("state_dict", "model_state_dict", "model", "module", "net", "network", "weights", "params"),
    *("ema_state_dict", "model_ema", "params_ema", "ema_model", "ema", "generator"),
)
"""The names that state dicts are saved under, preferred ones first."""

_MAX_DEPTH = 3
_MAX_LISTED = 3
_PLAIN_TYPES = (int, float, complex, bool, str, bytes, type(None), NumpyScalar)


@dataclass(frozen=True, slots=True)
class FoundStateDict:
    """A checkpoint's tensors by name, the names that lead to them, and the names of other values beside them."""

    tensors: Mapping[str, TensorInfo]
    key_path: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()


def find_state_dict(content: object, path: Path) -> FoundStateDict:
    """Find the state dict in a file's content.

    `path` is for errors, and for a network that is saved under the file's name. Raises `WeightsError` where there
    is no state dict or more than one, or where a value beside the tensors is not a number, text, or list or dict of
    these.
    """
    wrappers: tuple[str, ...] = ()
    while isinstance(content, dict) and not _has_tensors(content) and len(wrappers) < _MAX_DEPTH:
        name = _find_wrapper_key(content, path, _MAX_DEPTH - len(wrappers))
        if name is None:
            break
        wrappers, content = (*wrappers, name), content[name]
    if not isinstance(content, dict):
        raise WeightsError(f"{path} holds {_describe_type(content)}, not named tensors.")
    if content and not _has_tensors(content):
        name, value = next(iter(content.items()))
        raise WeightsError(
            f"{path} holds no named tensors, but {_format_key(name)}, {_describe_type(value)}."
        )
    tensors: dict[str, TensorInfo] = {}
    skipped: list[str] = []
    for name, value in content.items():
        if isinstance(name, str) and isinstance(value, TensorInfo):
            tensors[name] = value
        elif isinstance(name, str) and _is_plain(value):
            skipped.append(name)
        else:
            raise WeightsError(
                f"{path} holds {_format_key(name)}, {_describe_type(value)}: only named tensors are expected."
            )
    return FoundStateDict(tensors, wrappers, tuple(skipped))


def get_nested(content: Any, key_path: tuple[str, ...]) -> Any:
    """Return the part of a loaded checkpoint that `find_state_dict` found."""
    for name in key_path:
        content = content[name]
    return content


def _has_tensors(content: Mapping[object, object]) -> bool:
    return any(isinstance(value, TensorInfo) for value in content.values())


def _find_wrapper_key(content: Mapping[object, object], path: Path, depth: int) -> str | None:
    """Return the name of the dict to search next: a usual one, or the only one."""
    found = [
        name for name, value in content.items() if isinstance(name, str) and _contains_tensors(value, depth)
    ]
    usual = (path.name.partition(".")[0], *WRAPPER_KEYS)
    known = next((name for name in usual if name in found), None)
    if known is None and len(found) > 1:
        names = ", ".join(_format_key(name) for name in found[:_MAX_LISTED])
        raise WeightsError(
            f"{path} holds {len(found)} dicts of tensors ({names}), and nothing says which is the network: save "
            "that one alone."
        )
    return known or next(iter(found), None)


def _contains_tensors(value: object, depth: int) -> bool:
    if not isinstance(value, dict) or depth == 0:
        return False
    if _has_tensors(value):
        return True
    # Only usual names are followed, as in the search; otherwise a dict that contains itself would have no end.
    inner = [value[name] for name in WRAPPER_KEYS if name in value]
    return any(_contains_tensors(each, depth - 1) for each in inner)


def _is_plain(value: object) -> bool:
    """Return whether a value is a number, a text, or lists and dicts of these."""
    seen: set[int] = set()
    waiting = [value]
    while waiting:
        each = waiting.pop()
        if isinstance(each, _PLAIN_TYPES) or id(each) in seen:
            continue
        if not isinstance(each, dict | list | tuple):
            return False
        seen.add(id(each))
        waiting.extend(_iterate_values(each))
    return True


def _iterate_values(value: dict[object, object] | list[object] | tuple[object, ...]) -> Iterator[object]:
    if isinstance(value, dict):
        yield from value.keys()
        yield from value.values()
    else:
        yield from value


def _format_key(name: object) -> str:
    return repr(name)[:100]


def _describe_type(value: object) -> str:
    if isinstance(value, dict):
        return "a dict"
    if isinstance(value, NumpyScalar):
        return "a number"
    return "a tensor" if isinstance(value, TensorInfo) else f"something of type {type(value).__name__}"
