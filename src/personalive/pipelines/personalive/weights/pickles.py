"""What a file of `torch.save` holds, found out without making any of it.

`torch.load(weights_only=True)` runs no foreign code, but does whatever a pickle asks of torch: make a tensor
of a terabyte, resize a storage, unpack a zip within a zip's means. Here the pickle is run with stand-ins for
everything that it names. What passes is what `torch.save` writes for a dict of tensors, each of them lying
within what the file stores; `torch.load` may have that.
"""

from __future__ import annotations

import io
import mmap
import pickle
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch

from personalive.errors import WeightsError

_ZIP_MAGIC = b"PK\x03\x04"
# The ends of archives: signature first; the size and the place of the list of records, and what follows it.
_END = struct.Struct("<4s4H2LH")
_LOCATOR = struct.Struct("<4sLQL")
_END_64 = struct.Struct("<4sQ2H2L4Q")
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_PROTOCOL = 1001

_DTYPES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
    "ComplexFloatStorage": torch.complex64,
    "ComplexDoubleStorage": torch.complex128,
}


class Description(NamedTuple):
    """A tensor as its file describes it."""

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype


def is_zip(path: Path) -> bool:
    """Whether the file is of the newer kind, a zip archive, which can be mapped into memory."""
    with path.open("rb") as file:
        return file.read(len(_ZIP_MAGIC)) == _ZIP_MAGIC


def describe(path: Path) -> Iterator[Description]:
    """The tensors of a file of `torch.save`, in its order.

    Raises `WeightsError` for anything that is no dict of tensors; of a damaged file it may raise anything.
    """
    content = _archived(path) if is_zip(path) else _legacy(path)
    if not isinstance(content, dict):
        raise WeightsError(f"{path} holds {_kind(content)}, not named tensors.")
    for name, value in content.items():
        if not isinstance(name, str) or not isinstance(value, _Tensor):
            raise WeightsError(
                f"{path} holds {repr(name)[:100]}, {_kind(value)}: only named tensors are expected."
            )
        yield Description(name, value.shape, value.dtype)


def _archived(path: Path) -> object:
    _require_one_directory(path)
    records = _records(path)
    # The very reader that `torch.load` has: two that disagree on a forged archive are a way around this.
    content = torch._C.PyTorchFileReader(str(path)).get_record("data.pkl")
    return _Survey(path, io.BytesIO(content), records).load()


def _require_one_directory(path: Path) -> None:
    """Raise `WeightsError` unless the list of records ends where the archive's end begins, as it says itself.

    Where both differ, Python's reader goes by the one and torch's by the other: two lists for two readers.
    """
    with path.open("rb") as file:
        size = file.seek(0, io.SEEK_END)
        file.seek(max(0, size - _END.size - _LOCATOR.size - _END_64.size))
        tail = file.read()
    end = size - _END.size
    signature, *_, length, offset, comment = _END.unpack(tail[-_END.size :])
    sound = signature == b"PK\x05\x06" and comment == 0
    locator = tail[-_END.size - _LOCATOR.size : -_END.size]
    if locator.startswith(b"PK\x06\x07"):
        end -= _LOCATOR.size + _END_64.size
        _, _, place, _ = _LOCATOR.unpack(locator)
        signature, *_, length, offset = _END_64.unpack(tail[: _END_64.size])
        sound = sound and signature == b"PK\x06\x06" and place == end
    if not sound or offset + length != end:
        raise WeightsError(
            f"{path} is damaged or no file of weights (it does not end as they do). Fetch it again."
        )


def _records(path: Path) -> dict[str, int]:
    """Sizes of an archive's records. None may be compressed: a few megabytes could unpack to gigabytes."""
    sizes: dict[str, int] = {}
    with zipfile.ZipFile(path) as archive:
        for record in archive.infolist():
            name = record.filename.partition("/")[2]
            if record.compress_type != zipfile.ZIP_STORED or record.compress_size != record.file_size:
                raise WeightsError(f"{path} is compressed, which files of weights are not.")
            if name in sizes:
                raise WeightsError(f"{path} holds {name[:100]!r} twice.")
            sizes[name] = record.file_size
    if sum(sizes.values()) > path.stat().st_size:
        raise WeightsError(f"{path} says that it holds more than its own size. Fetch it again.")
    return sizes


def _legacy(path: Path) -> object:
    """The content of a file from before the archives: pickles, then the storages one after the other."""
    # Mapped: reading as many bytes as a pickle says there are gives those that are there, and needs no more.
    with path.open("rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as file:
        begin = file.read(1)
        file.seek(0)
        # The first pickle is a number: what does not even begin like one is not handed on.
        if begin != pickle.PROTO or _Survey(path, file).load() != _LEGACY_MAGIC:
            raise WeightsError(f"{path} is no file of weights. Fetch it again.")
        if _Survey(path, file).load() != _LEGACY_PROTOCOL:
            raise WeightsError(f"{path} is of an unknown version.")
        _Survey(path, file).load()  # about the system that wrote it
        survey = _Survey(path, file)
        content = survey.load()
        keys = _Survey(path, file).load()
    if not isinstance(keys, list) or set(keys) != set(survey.storages):
        raise WeightsError(f"{path} stores other tensors than it names. Fetch it again.")
    return content


class _Storage(NamedTuple):
    """Stand-in for a storage."""

    dtype: torch.dtype
    numel: int


class _Tensor:
    """Stand-in for a tensor. Raises ValueError where it does not lie within its storage."""

    __slots__ = ("dtype", "shape")

    def __init__(
        self, storage: object, offset: object, shape: object, strides: object, grad: object, hooks: object
    ) -> None:
        del grad
        shape, strides = _counts(shape), _counts(strides)
        (offset,) = _counts((offset,))
        if not isinstance(storage, _Storage) or len(shape) != len(strides) or hooks:
            raise ValueError("a tensor is not described as tensors are")
        reach = sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
        if 0 not in shape and offset + reach >= storage.numel:
            raise ValueError("a tensor reaches beyond what is stored")
        self.dtype = storage.dtype
        self.shape = shape

    def __setstate__(self, state: object) -> None:
        raise ValueError("a tensor is changed after it was made")


class _Names(OrderedDict[Any, Any]):
    """Stand-in for the dict of a state; its notes on versions (`_metadata`) are dropped."""

    def __setstate__(self, state: object) -> None:
        pass


class _Parameter:
    """Stand-in for what makes a parameter of a tensor: the tensor stays as it is."""

    def __new__(cls, tensor: object, grad: object, hooks: object) -> Any:
        del grad
        if not isinstance(tensor, _Tensor) or hooks:
            raise ValueError("a parameter is made of something else than a tensor")
        return tensor


_KNOWN: Mapping[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): _Names,
    ("torch._utils", "_rebuild_tensor_v2"): _Tensor,
    ("torch._utils", "_rebuild_parameter"): _Parameter,
    **{("torch", name): dtype for name, dtype in _DTYPES.items()},
}


# What pickles of `torch.save` are made of. Others set memory aside for as many bytes as they say will follow.
_OPCODES = frozenset(
    b"".join(
        (
            pickle.PROTO + pickle.STOP + pickle.GLOBAL + pickle.REDUCE + pickle.BUILD + pickle.BINPERSID,
            pickle.MARK + pickle.TUPLE + pickle.TUPLE1 + pickle.TUPLE2 + pickle.TUPLE3 + pickle.EMPTY_TUPLE,
            pickle.EMPTY_DICT + pickle.SETITEM + pickle.SETITEMS,
            pickle.EMPTY_LIST + pickle.APPEND + pickle.APPENDS,
            pickle.NONE + pickle.NEWTRUE + pickle.NEWFALSE + pickle.BINUNICODE + pickle.SHORT_BINSTRING,
            pickle.BININT + pickle.BININT1 + pickle.BININT2 + pickle.LONG1 + pickle.BINFLOAT,
            pickle.BINPUT + pickle.LONG_BINPUT + pickle.BINGET + pickle.LONG_BINGET,
        )
    )
)


# Python's own, not the faster one in C, which sets memory aside for as many objects as a pickle says it has.
class _Survey(pickle._Unpickler):
    """Runs a pickle with the stand-ins. `records` are the sizes of the storages where they are known."""

    dispatch = {code: run for code, run in pickle._Unpickler.dispatch.items() if code in _OPCODES}  # noqa: RUF012

    def __init__(
        self, path: Path, file: io.BytesIO | mmap.mmap, records: Mapping[str, int] | None = None
    ) -> None:
        super().__init__(file, encoding="utf-8")
        self.storages: dict[object, _Storage] = {}
        self._path = path
        self._records = records
        self._left = path.stat().st_size

    def find_class(self, module: str, name: str, /) -> Any:
        """A stand-in. Raises `WeightsError` for what the tensors of a file do not need."""
        known = _KNOWN.get((module, name))
        if known is None:
            raise WeightsError(
                f"{self._path} asks for {f'{module}.{name}'[:100]!r}: only plain tensors are read, "
                "anything else could be harmful."
            )
        return known

    def persistent_load(self, pid: Any) -> _Storage:
        """The storage of that id, which must be no larger than what the file has for it."""
        kind, dtype, key, _, numel, *view = pid
        if kind != "storage" or not isinstance(dtype, torch.dtype) or not isinstance(key, str) or any(view):
            raise ValueError("a storage is not described as storages are")
        (numel,) = _counts((numel,))
        if key not in self.storages:
            nbytes = numel * dtype.itemsize
            self._left -= nbytes
            if nbytes > (self._left + nbytes if self._records is None else self._records[f"data/{key}"]):
                raise WeightsError(f"{self._path} holds less than it says. Fetch it again.")
            self.storages[key] = _Storage(dtype, numel)
        return self.storages[key]


def _counts(numbers: object) -> tuple[int, ...]:
    if not isinstance(numbers, tuple) or not all(type(number) is int and number >= 0 for number in numbers):
        raise ValueError("a tensor's sizes are no numbers")
    return numbers


def _kind(value: object) -> str:
    if isinstance(value, _Names):
        return "a dict"
    return "a tensor" if isinstance(value, _Tensor) else f"something of type {type(value).__name__}"
