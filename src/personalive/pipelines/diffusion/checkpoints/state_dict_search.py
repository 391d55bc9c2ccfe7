"""Which part of a checkpoint is the network: the one dict of tensors in it, under whatever name it was saved.

Training code saves more than a state dict: `{"state_dict": …, "optimizer": …, "epoch": 3}`. What is beside the
dict that is taken stays unread.
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
"""Names that a state dict is saved under, the preferred one first."""

_MAX_DEPTH = 3
_MAX_LISTED = 3
_PLAIN_TYPES = (int, float, complex, bool, str, bytes, type(None), NumpyScalar)


@dataclass(frozen=True, slots=True)
class FoundStateDict:
    """A checkpoint's tensors by name, the names that lead to them, and what lies beside them and is no tensor."""

    tensors: Mapping[str, TensorInfo]
    key_path: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()


def find_state_dict(content: object, path: Path) -> FoundStateDict:
    """The state dict in what a file holds; `path` is for errors, and for a network that is saved under its name.

    Raises `WeightsError` where there is none, more than one, or something beside the tensors that is no number,
    text or list of such.
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
    """The part of a loaded checkpoint that `find_state_dict` chose."""
    for name in key_path:
        content = content[name]
    return content


def _has_tensors(content: Mapping[object, object]) -> bool:
    return any(isinstance(value, TensorInfo) for value in content.values())


def _find_wrapper_key(content: Mapping[object, object], path: Path, depth: int) -> str | None:
    """The name of the dict to go on in: a usual one, or the only one there is."""
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
    # A usual name is enough: no other would be gone on in, and a dict that holds itself has no end.
    inner = [value[name] for name in WRAPPER_KEYS if name in value]
    return any(_contains_tensors(each, depth - 1) for each in inner)


def _is_plain(value: object) -> bool:
    """Whether it is a number, text, or lists and dicts of such."""
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
