"""Inspection of what a file of `torch.save` holds, without making any tensor of it.

`torch.load(weights_only=True)` runs no foreign code, but does everything that a pickle asks of torch: make a tensor
of a terabyte, resize a storage, unpack a highly compressed zip. Here the pickle is run with stand-ins for
everything that it names. It passes if it holds what `torch.save` writes for plain values and for tensors that lie
within the data that the file stores. Only then is the file given to `torch.load`.
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
_LEGACY_SIZE_BYTES = 8  # bytes before each storage that hold its length
_PICKLE_PROTOCOL = 2

# Kind and bytes: booleans, signed and unsigned integers, floating-point and complex numbers.
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
    """Return what a file of `torch.save` holds, tensors as `TensorInfo`, and whether it holds numpy's scalars.

    Raises `WeightsError` for anything but plain values, and possibly any error for a damaged file.
    """
    return _inspect_archive(path) if is_zip(path) else _inspect_legacy(path)


def _inspect_archive(path: Path) -> tuple[object, bool]:
    sizes = list_records(path)
    # The same reader as in `torch.load`: another that reads a forged archive differently would allow an attack.
    content = torch._C.PyTorchFileReader(str(path)).get_record(PICKLE_RECORD)
    run = _PickleInspector(path, io.BytesIO(content), sizes)
    return run.load(), run.scalars


def _inspect_legacy(path: Path) -> tuple[object, bool]:
    """Inspect a file of the format before zip archives: pickles, then the storages one after the other."""
    # Mapped, so that reading more bytes than the file has takes no more memory than the file's bytes.
    with path.open("rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as file:
        begin = file.read(1)
        file.seek(0)
        # The first pickle is a number; bytes that do not even begin like a pickle are not unpickled.
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
    """A stand-in for a storage."""

    dtype: torch.dtype
    numel: int

    @property
    def nbytes(self) -> int:
        return self.numel * self.dtype.itemsize


class TensorInfo:
    """A stand-in for a tensor. Raises ValueError where it does not lie within its storage."""

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
    """A stand-in for a state dict; its notes on versions (`_metadata`) are dropped."""

    def __setstate__(self, state: object) -> None:
        pass


class _Parameter:
    """A stand-in for the function that makes a parameter of a tensor; it returns the tensor unchanged."""

    def __new__(cls, tensor: object, grad: object, hooks: object) -> Any:
        del grad
        if not isinstance(tensor, TensorInfo) or hooks:
            raise ValueError("a parameter is made of something else than a tensor")
        return tensor


class _NumpyType:
    """A stand-in for the type of one of numpy's scalars, which must have a fixed size and be no object."""

    def __init__(self, code: object, align: object, copy: object) -> None:
        del align, copy
        if not isinstance(code, str) or code not in _NUMPY_TYPES:
            raise ValueError("a number is of no plain type")
        self.nbytes = int(code[1:])

    def __setstate__(self, state: object) -> None:
        """Accept the byte order, which is all that a plain type has besides its code."""
        order = state[1] if isinstance(state, tuple) and len(state) == _NUMPY_STATE else None
        if order not in ("<", ">", "|", "=") or state != (3, order, None, None, None, -1, -1, 0):
            raise ValueError("a number is of no plain type")


class NumpyScalar:
    """A stand-in for one of numpy's scalars. Raises ValueError for one that is larger than its type."""

    def __init__(self, kind: object, content: object) -> None:
        if not isinstance(kind, _NumpyType) or not isinstance(content, bytes) or len(content) != kind.nbytes:
            raise ValueError("a number is not described as numbers are")


def _encode_text(text: object, encoding: object) -> bytes:
    """Encode a scalar's bytes, which pickles of this protocol write as text; a stand-in for `_codecs.encode`."""
    if not isinstance(text, str) or len(text) > _MAX_SCALAR_BYTES or encoding != "latin1":
        raise ValueError("bytes are not written as those of numbers are")
    return text.encode("latin1")


_STAND_INS: Mapping[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): _StateDict,
    ("torch._utils", "_rebuild_tensor_v2"): TensorInfo,
    ("torch._utils", "_rebuild_parameter"): _Parameter,
    ("numpy.core.multiarray", "scalar"): NumpyScalar,  # its name before numpy 2
    ("numpy._core.multiarray", "scalar"): NumpyScalar,
    ("numpy", "dtype"): _NumpyType,
    ("_codecs", "encode"): _encode_text,
    **{("torch", name): dtype for name, dtype in _DTYPES.items()},
}


# The opcodes in pickles of `torch.save`. Some others allocate as much memory as the pickle declares.
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


# Python's implementation, since the faster one in C allocates memory for as many objects as a pickle declares.
class _PickleInspector(pickle._Unpickler):
    """An unpickler that uses the stand-ins. `records` are the sizes of the storages where they are known."""

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
        """Return a stand-in. Raises `WeightsError` for names that a file of plain tensors does not need."""
        known = _STAND_INS.get((module, name))
        if known is None:
            raise WeightsError(
                f"{self._path} asks for {f'{module}.{name}'[:100]!r}: only plain tensors are read, "
                "anything else could be harmful."
            )
        self.scalars = self.scalars or known in (NumpyScalar, _NumpyType)
        return known

    def load_proto(self) -> None:
        """Raise `WeightsError` for a protocol that `torch.save` does not use, whose opcodes are not run here."""
        protocol = self.read(1)[0]  # type: ignore[attr-defined]
        if protocol != _PICKLE_PROTOCOL:
            raise WeightsError(
                f"{self._path} is pickled with protocol {protocol}; only what torch.save writes by default "
                f"(protocol {_PICKLE_PROTOCOL}) is read. If you trust the file, load it and save it again, "
                "best as safetensors."
            )

    dispatch[pickle.PROTO[0]] = cast("Any", load_proto)

    def persistent_load(self, pid: Any) -> _Storage:
        """Return the storage of that id, which must be no larger than its data in the file."""
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
