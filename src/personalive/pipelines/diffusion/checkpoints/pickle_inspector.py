"""What a file of `torch.save` holds, found out without making any of it.

`torch.load(weights_only=True)` runs no foreign code, but does whatever a pickle asks of torch: make a tensor
of a terabyte, resize a storage, unpack a zip within a zip's means. Here the pickle is run with stand-ins for
everything that it names. What passes is what `torch.save` writes for plain values and for tensors, each of them
lying within what the file stores; `torch.load` may have that.
"""

from __future__ import annotations

import io
import mmap
import pickle
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch

from personalive.errors import WeightsError
from personalive.pipelines.diffusion.checkpoints.zip_archive import PICKLE_RECORD, is_zip, list_records

_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_PROTOCOL = 1001
_LEGACY_SIZE_BYTES = 8  # bytes before each storage, which say how long it is
_PICKLE_PROTOCOL = 2

# Kind and bytes: truth values, whole and floating numbers, complex ones.
_NUMPY_TYPES = frozenset(
    ("b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8", "c8", "c16")
)
_NUMPY_STATE = 8
_MAX_SCALAR_BYTES = 16

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


def inspect_pickle(path: Path) -> tuple[object, bool]:
    """What a file of `torch.save` holds, tensors as `TensorInfo`; and whether numpy's scalars are among it.

    Raises `WeightsError` for anything but plain values; of a damaged file it may raise anything.
    """
    return _inspect_archive(path) if is_zip(path) else _inspect_legacy(path)


def _inspect_archive(path: Path) -> tuple[object, bool]:
    sizes = list_records(path)
    # The very reader that `torch.load` has: two that disagree on a forged archive are a way around this.
    content = torch._C.PyTorchFileReader(str(path)).get_record(PICKLE_RECORD)
    run = _PickleInspector(path, io.BytesIO(content), sizes)
    return run.load(), run.scalars


def _inspect_legacy(path: Path) -> tuple[object, bool]:
    """The content of a file from before the archives: pickles, then the storages one after the other."""
    # Mapped: reading as many bytes as a pickle says there are gives those that are there, and needs no more.
    with path.open("rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as file:
        begin = file.read(1)
        file.seek(0)
        # The first pickle is a number: what does not even begin like one is not handed on.
        if begin != pickle.PROTO or _PickleInspector(path, file).load() != _LEGACY_MAGIC:
            raise WeightsError(f"{path} is no file of weights. Fetch it again.")
        if _PickleInspector(path, file).load() != _LEGACY_PROTOCOL:
            raise WeightsError(f"{path} is of an unknown version.")
        _PickleInspector(path, file).load()  # about the system that wrote it
        run = _PickleInspector(path, file)
        content = run.load()
        keys = _PickleInspector(path, file).load()
        there = len(file) - file.tell()
    if not isinstance(keys, list) or set(keys) != set(run.storages):
        raise WeightsError(f"{path} stores other tensors than it names. Fetch it again.")
    needed = sum(_LEGACY_SIZE_BYTES + storage.nbytes for storage in run.storages.values())
    if there < needed:
        raise WeightsError(
            f"{path} is cut short: {there:,} bytes of {needed:,} of its tensors are there. Fetch it again."
        )
    return content, run.scalars


class _Storage(NamedTuple):
    """Stand-in for a storage."""

    dtype: torch.dtype
    numel: int

    @property
    def nbytes(self) -> int:
        return self.numel * self.dtype.itemsize


class TensorInfo:
    """Stand-in for a tensor. Raises ValueError where it does not lie within its storage."""

    __slots__ = ("dtype", "shape")

    def __init__(
        self, storage: object, offset: object, shape: object, strides: object, grad: object, hooks: object
    ) -> None:
        del grad
        shape, strides = _check_sizes(shape), _check_sizes(strides)
        (offset,) = _check_sizes((offset,))
        if not isinstance(storage, _Storage) or len(shape) != len(strides) or hooks:
            raise ValueError("a tensor is not described as tensors are")
        reach = sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
        if 0 not in shape and offset + reach >= storage.numel:
            raise ValueError("a tensor reaches beyond what is stored")
        self.dtype = storage.dtype
        self.shape = shape

    def __setstate__(self, state: object) -> None:
        raise ValueError("a tensor is changed after it was made")


class _StateDict(OrderedDict[Any, Any]):
    """Stand-in for the dict of a state; its notes on versions (`_metadata`) are dropped."""

    def __setstate__(self, state: object) -> None:
        pass


class _Parameter:
    """Stand-in for what makes a parameter of a tensor: the tensor stays as it is."""

    def __new__(cls, tensor: object, grad: object, hooks: object) -> Any:
        del grad
        if not isinstance(tensor, TensorInfo) or hooks:
            raise ValueError("a parameter is made of something else than a tensor")
        return tensor


class _NumpyType:
    """Stand-in for the type of one of numpy's scalars: of fixed size, and no object."""

    def __init__(self, code: object, align: object, copy: object) -> None:
        del align, copy
        if not isinstance(code, str) or code not in _NUMPY_TYPES:
            raise ValueError("a number is of no plain type")
        self.nbytes = int(code[1:])

    def __setstate__(self, state: object) -> None:
        """Take the byte order, which is all that a plain type has beside its code."""
        order = state[1] if isinstance(state, tuple) and len(state) == _NUMPY_STATE else None
        if order not in ("<", ">", "|", "=") or state != (3, order, None, None, None, -1, -1, 0):
            raise ValueError("a number is of no plain type")


class NumpyScalar:
    """Stand-in for one of numpy's scalars. Raises ValueError for one that would take more than a few bytes."""

    def __init__(self, kind: object, content: object) -> None:
        if not isinstance(kind, _NumpyType) or not isinstance(content, bytes) or len(content) != kind.nbytes:
            raise ValueError("a number is not described as numbers are")


def _encode_text(text: object, encoding: object) -> bytes:
    """Stand-in for how pickles of this protocol write a scalar's bytes."""
    if not isinstance(text, str) or len(text) > _MAX_SCALAR_BYTES or encoding != "latin1":
        raise ValueError("bytes are not written as those of numbers are")
    return text.encode("latin1")


_STAND_INS: Mapping[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): _StateDict,
    ("torch._utils", "_rebuild_tensor_v2"): TensorInfo,
    ("torch._utils", "_rebuild_parameter"): _Parameter,
    ("numpy.core.multiarray", "scalar"): NumpyScalar,  # so called before numpy 2
    ("numpy._core.multiarray", "scalar"): NumpyScalar,
    ("numpy", "dtype"): _NumpyType,
    ("_codecs", "encode"): _encode_text,
    **{("torch", name): dtype for name, dtype in _DTYPES.items()},
}


# What pickles of `torch.save` are made of. Others set memory aside for as many bytes as they say will follow.
_ALLOWED_OPCODES = frozenset(
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
class _PickleInspector(pickle._Unpickler):
    """Runs a pickle with the stand-ins. `records` are the sizes of the storages where they are known."""

    dispatch = {code: run for code, run in pickle._Unpickler.dispatch.items() if code in _ALLOWED_OPCODES}  # noqa: RUF012

    def __init__(
        self, path: Path, file: io.BytesIO | mmap.mmap, records: Mapping[str, int] | None = None
    ) -> None:
        super().__init__(file, encoding="utf-8")
        self.storages: dict[object, _Storage] = {}
        self.scalars = False
        self._path = path
        self._records = records
        self._left = path.stat().st_size

    def find_class(self, module: str, name: str, /) -> Any:
        """A stand-in. Raises `WeightsError` for what the tensors of a file do not need."""
        known = _STAND_INS.get((module, name))
        if known is None:
            raise WeightsError(
                f"{self._path} asks for {f'{module}.{name}'[:100]!r}: only plain tensors are read, "
                "anything else could be harmful."
            )
        self.scalars = self.scalars or known in (NumpyScalar, _NumpyType)
        return known

    def load_proto(self) -> None:
        """Name a protocol that files of weights are not written in, whose opcodes are not run here."""
        protocol = self.read(1)[0]  # type: ignore[attr-defined]
        if protocol != _PICKLE_PROTOCOL:
            raise WeightsError(
                f"{self._path} is pickled with protocol {protocol}; only what torch.save writes by default "
                f"(protocol {_PICKLE_PROTOCOL}) is read. Whoever trusts the file can load it and save it anew, "
                "best as safetensors."
            )

    dispatch[pickle.PROTO[0]] = cast("Any", load_proto)

    def persistent_load(self, pid: Any) -> _Storage:
        """The storage of that id, which must be no larger than what the file has for it."""
        kind, dtype, key, _, numel, *view = pid
        if kind != "storage" or not isinstance(dtype, torch.dtype) or not isinstance(key, str) or any(view):
            raise ValueError("a storage is not described as storages are")
        (numel,) = _check_sizes((numel,))
        if key not in self.storages:
            nbytes = _Storage(dtype, numel).nbytes
            self._left -= nbytes
            if nbytes > (self._left + nbytes if self._records is None else self._records[f"data/{key}"]):
                raise WeightsError(f"{self._path} holds less than it says. Fetch it again.")
            self.storages[key] = _Storage(dtype, numel)
        return self.storages[key]


def _check_sizes(numbers: object) -> tuple[int, ...]:
    if not isinstance(numbers, tuple) or not all(type(number) is int and number >= 0 for number in numbers):
        raise ValueError("a tensor's sizes are no numbers")
    return numbers
