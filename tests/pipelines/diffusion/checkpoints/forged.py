"""Files of weights as nobody should write them, and a network small enough to load thousands of times."""

from __future__ import annotations

import io
import json
import pickle
import re
import struct
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from personalive.errors import WeightsError
from personalive.pipelines.diffusion.checkpoints.checkpoint_file import CheckpointFile
from personalive.pipelines.diffusion.checkpoints.state_dict import fill_module, plan_loading
from personalive.pipelines.diffusion.networks.hourglass import FrozenBatchNorm2d

CPU = torch.device("cpu")

fuzzers = pytest.mark.parametrize(
    "examples", [pytest.param(60, id="quick"), pytest.param(500, id="deep", marks=pytest.mark.slow)]
)
"""Runs a fuzzer twice: briefly with the fast tests, thoroughly with the slow ones."""


def fuzz(examples: int, check: Callable[..., None], *strategies: st.SearchStrategy[Any]) -> None:
    """Try `check` on that many examples."""
    chosen = settings(
        max_examples=examples,
        deadline=None,
        suppress_health_check=[
            HealthCheck.too_slow,
            HealthCheck.filter_too_much,
            HealthCheck.large_base_example,
        ],
    )
    chosen(given(*strategies)(check))()


class Tiny(nn.Module):
    """Learned entries of both kinds of number, and a constant. Build it on the meta device."""

    pe: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 3)
        self.norm = FrozenBatchNorm2d(3)
        self.register_buffer("pe", torch.arange(5, dtype=torch.float32, device="cpu")[None])


def tiny() -> Tiny:
    with torch.device("meta"):
        return Tiny()


def tiny_weights(dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    """Entries that fit `Tiny`, its constant left out."""
    generator = torch.Generator().manual_seed(0)
    return {
        name: torch.zeros(like.shape, dtype=like.dtype)
        if not like.is_floating_point()
        else torch.rand(like.shape, generator=generator).to(dtype)
        for name, like in tiny().state_dict().items()
        if name != "pe"
    }


def load_tiny(*paths: Path, dtype: torch.dtype = torch.float32) -> Tiny:
    """The network filled from those files, laid over one another."""
    module = tiny()
    fill_module(
        module,
        plan_loading("tiny network", module, list(map(CheckpointFile.open, paths))),
        device=CPU,
        resolve_dtype=lambda _: dtype,
    )
    return module


def survives(path: Path) -> str:
    """Load the network from a file that holds anything. Returns what the error says; empty when it loaded.

    Fails when something other than a `WeightsError` naming the file comes out, or one about lack of memory:
    nothing here is large enough for that.
    """
    try:
        module = load_tiny(path)
    except WeightsError as error:
        said = str(error)
        assert str(path) in said
        assert len(said) < 3000
        assert said.isprintable()
        assert "alloc" not in said
        assert "MemoryError" not in said
        return said
    assert all(tensor.isfinite().all() for tensor in module.state_dict().values())
    return ""


def refused(path: Path) -> str:
    """What the error of a file says that cannot even be opened."""
    with pytest.raises(WeightsError) as caught:
        CheckpointFile.open(path)
    assert str(path) in str(caught.value)
    return str(caught.value)


class Call:
    """Unpickled, it is the result of a call."""

    def __init__(self, function: Callable[..., Any], *arguments: object, state: object = None) -> None:
        self.call = function, arguments, state

    def __reduce__(self) -> tuple[Any, ...]:
        function, arguments, state = self.call
        return (function, arguments) if state is None else (function, arguments, state)


class Storage:
    """Unpickled, it is the storage that was saved under that key."""

    def __init__(self, kind: object, key: object, numel: object) -> None:
        self.id = ("storage", kind, key, "cpu", numel)


class _Pickler(pickle.Pickler):
    def persistent_id(self, obj: Any) -> object:
        return obj.id if isinstance(obj, Storage) else None


def pickled(content: object) -> bytes:
    """A pickle as `torch.save` makes them, calls and storages in it."""
    buffer = io.BytesIO()
    _Pickler(buffer, protocol=2).dump(content)
    return buffer.getvalue()


def tensor(storage: Storage, offset: object, shape: object, strides: object, hooks: object = None) -> Call:
    """Unpickled, it is a tensor on that storage."""
    return Call(torch._utils._rebuild_tensor_v2, storage, offset, shape, strides, False, hooks or {})


def archive(
    path: Path,
    content: bytes,
    storages: Mapping[str, bytes] | None = None,
    compression: int = zipfile.ZIP_STORED,
) -> Path:
    """Write a file laid out like those of `torch.save`, around any pickle."""
    with zipfile.ZipFile(path, "w", compression) as file:
        file.writestr("forged/data.pkl", content)
        file.writestr("forged/byteorder", "little")
        for key, stored in (storages or {}).items():
            file.writestr(f"forged/data/{key}", stored)
        file.writestr("forged/version", "3\n")
    return path


def two_directories(path: Path, content: bytes) -> Path:
    """A compressed archive with a second list of its records behind the first, which denies the compression.

    The end states the first list's place; Python's reader takes the one that is right before the end.
    """
    whole = archive(path, content, compression=zipfile.ZIP_DEFLATED).read_bytes()
    (place,) = struct.unpack("<L", whole[-6:-2])
    denied = bytearray(whole[place:-22])
    for begin in (found.start() for found in re.finditer(rb"PK\x01\x02", bytes(denied))):
        denied[begin + 10 : begin + 12] = bytes(2)
        denied[begin + 24 : begin + 28] = denied[begin + 20 : begin + 24]
    path.write_bytes(whole[:-22] + denied + whole[-22:])
    return path


def safetensors(path: Path, header: object, data: bytes = b"", length: int | None = None) -> Path:
    """Write a safetensors file with any header."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + data)
    return path


def edited(content: bytes) -> st.SearchStrategy[bytes]:
    """That content with a few stretches of it replaced, dropped or doubled."""
    edits = st.tuples(
        st.integers(0, len(content)), st.integers(0, 12), st.binary(max_size=12) | st.just(content[:80])
    )

    def apply(chosen: list[tuple[int, int, bytes]]) -> bytes:
        result = content
        for place, dropped, added in chosen:
            result = result[:place] + added + result[place + dropped :]
        return result

    return st.lists(edits, min_size=1, max_size=3).map(apply)


def flipped(content: bytes) -> st.SearchStrategy[bytes]:
    """That content with a few of its bits turned."""

    def apply(bits: list[int]) -> bytes:
        result = bytearray(content)
        for bit in bits:
            result[bit // 8] ^= 1 << bit % 8
        return bytes(result)

    return st.lists(st.integers(0, 8 * len(content) - 1), min_size=1, max_size=8).map(apply)
