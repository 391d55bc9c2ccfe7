"""Checkpoints as training code saves them, through real files."""

from __future__ import annotations

import argparse
import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from personalive.errors import WeightsError
from personalive.pipelines.diffusion.checkpoints.checkpoint_file import CheckpointFile
from personalive.pipelines.diffusion.checkpoints.state_dict_search import WRAPPER_KEYS
from tests.pipelines.diffusion.checkpoints.forged import (
    Call,
    Storage,
    archive,
    pickled,
    refused,
    tensor,
    tiny_weights,
)

SCALAR: Any = np.float64(0).__reduce__()[0]
KINDS = pytest.mark.parametrize("new", [True, False], ids=["archive", "legacy"])


def opened(folder: Path, content: object, new: bool = True, name: str = "unet.pth") -> CheckpointFile:
    """A file with that content, of which every tensor was read."""
    torch.save(content, folder / name, _use_new_zipfile_serialization=new)
    file = CheckpointFile.open(folder / name)
    read = {entry: value.clone() for entry, value in file.stream(file.entries)}
    expected = tiny_weights()
    assert read.keys() == expected.keys()
    assert all(torch.equal(read[entry], value) for entry, value in expected.items())
    return file


@KINDS
@pytest.mark.parametrize("wrapper", [*WRAPPER_KEYS, "unet", "anything"])
def test_one_wrapper_is_taken_off_and_said(tmp_path: Path, wrapper: str, new: bool) -> None:
    file = opened(tmp_path, {wrapper: tiny_weights()}, new)
    assert file.key_path == (wrapper,)
    assert file.notes == (f"{tmp_path / 'unet.pth'}: the network is taken from {wrapper!r} in it.",)


@KINDS
def test_wrappers_in_wrappers_are_taken_off(tmp_path: Path, new: bool) -> None:
    file = opened(tmp_path, {"model": {"module": OrderedDict(tiny_weights())}, "epoch": 3}, new)
    assert file.notes == (f"{tmp_path / 'unet.pth'}: the network is taken from 'model.module' in it.",)


@KINDS
def test_what_training_keeps_beside_the_network_is_let_be(tmp_path: Path, new: bool) -> None:
    moments = {
        "state": {0: {"step": torch.tensor(1.0), "exp_avg": torch.zeros(3)}},
        "param_groups": [{"lr": 1}],
    }
    content = {
        "epoch": np.float64(3),
        "optimizer": moments,
        "betas": (0.9, 0.999),
        "best": None,
        "state_dict": tiny_weights(),
        "ema": {name: value + 1 for name, value in tiny_weights().items()},
    }
    assert opened(tmp_path, content, new).key_path == ("state_dict",)


SCALARS = [
    *(np.float64(3), np.float32(0.5), np.float16(1), np.int64(-7), np.uint8(255), np.bool_(True)),
    *(np.complex128(1j), np.float64("nan"), np.dtype(">f4").type(2)),
]


@KINDS
@pytest.mark.parametrize("scalar", SCALARS, ids=repr)
def test_numbers_of_numpy_beside_tensors_are_skipped(tmp_path: Path, scalar: Any, new: bool) -> None:
    before = set(torch.serialization.get_safe_globals())  # told in no order
    file = opened(tmp_path, {"step": scalar, **tiny_weights(), "loss": scalar}, new)
    assert file.notes == (f"{tmp_path / 'unet.pth'}: skipped, as they are no tensors: step, loss.",)
    assert set(torch.serialization.get_safe_globals()) == before


def test_so_are_those_that_an_older_numpy_wrote(tmp_path: Path) -> None:
    written = pickled(
        {"a": tensor(Storage(torch.FloatStorage, "0", 2), 0, (2,), (1,)), "step": np.float64(3)}
    )
    assert b"cnumpy._core.multiarray\nscalar\n" in written
    older = written.replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n")
    file = CheckpointFile.open(archive(tmp_path / "a.pth", older, {"0": bytes(8)}))
    assert file.skipped == ("step",)
    ((_, value),) = file.stream(file.entries)
    assert torch.equal(value, torch.zeros(2))


@KINDS
def test_plain_values_beside_tensors_are_skipped(tmp_path: Path, new: bool) -> None:
    plain = {"step": 7, "lr": 1e-5, "note": "best", "done": True, "none": None, "sizes": [1, (2, {"a": 3})]}
    assert opened(tmp_path, {**plain, **tiny_weights()}, new).skipped == tuple(plain)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (
            {"x": tiny_weights(), "y": tiny_weights()},
            "holds 2 dicts of tensors ('x', 'y'), and nothing says which",
        ),
        ({"args": argparse.Namespace(lr=1), "model": tiny_weights()}, "asks for 'argparse.Namespace'"),
        ({"state": np.zeros(3), "model": tiny_weights()}, "_reconstruct"),
        ({"text": np.str_("abc"), "model": tiny_weights()}, "a number is of no plain type"),
        ({"state_dict": {}}, "holds no named tensors, but 'state_dict', a dict."),
        ({"state_dict": {"epoch": np.float64(1)}}, "holds no named tensors, but 'state_dict', a dict."),
        ({"a": {"b": {"c": {"d": tiny_weights()}}}}, "holds no named tensors"),
        ({"model": [torch.zeros(1)]}, "holds no named tensors, but 'model', something of type list."),
        ({"a": torch.zeros(1), "more": [torch.zeros(1)]}, "holds 'more', something of type list: only named"),
        ({"a": torch.zeros(1), 7: 3}, "holds 7, something of type int: only named"),
    ],
)
@KINDS
def test_what_is_not_clear_is_refused(tmp_path: Path, content: object, said: str, new: bool) -> None:
    torch.save(content, tmp_path / "a.pth", _use_new_zipfile_serialization=new)
    assert said in refused(tmp_path / "a.pth")


def test_a_checkpoint_that_holds_itself_is_refused(tmp_path: Path) -> None:
    content: dict[str, Any] = {"a": torch.zeros(1)}
    content["b"] = loop = [1]
    loop.append(loop)  # type: ignore[arg-type]
    torch.save(content, tmp_path / "a.pth")
    assert CheckpointFile.open(tmp_path / "a.pth").skipped == ("b",)
    endless: dict[str, Any] = {}
    endless["model"] = endless
    torch.save(endless, tmp_path / "a.pth")
    refused(tmp_path / "a.pth")


def test_lists_in_lists_take_no_time(tmp_path: Path) -> None:
    value: list[Any] = []
    for _ in range(200):
        value = [value, value]
    torch.save({"a": torch.zeros(1), "b": value}, tmp_path / "a.pth")
    assert CheckpointFile.open(tmp_path / "a.pth").skipped == ("b",)


@pytest.mark.parametrize("protocol", [3, 4, 5])
@pytest.mark.parametrize("new", [True, False, None])
def test_another_protocol_is_named_as_such(tmp_path: Path, protocol: int, new: bool | None) -> None:
    path, weights = tmp_path / "a.pth", {"a": torch.zeros(1)}
    if new is None:
        path.write_bytes(pickle.dumps({"a": [0.5]}, protocol))
    else:
        torch.save(weights, path, pickle_protocol=protocol, _use_new_zipfile_serialization=new)
    assert refused(path) == (
        f"{path} is pickled with protocol {protocol}; only what torch.save writes by default (protocol 2) is read. "
        "If you trust the file, load it and save it again, best as safetensors."
    )


def scalar_of(code: object, state: object, content: object) -> object:
    """Unpickled, it is one of numpy's scalars as nobody writes them."""
    return Call(SCALAR, Call(np.dtype, code, False, True, state=state), content)


PLAIN = (3, "<", None, None, None, -1, -1, 0)


@pytest.mark.parametrize(
    "forged",
    [
        scalar_of("V1099511627776", (3, "|", None, None, None, 1 << 40, 1, 0), b""),
        scalar_of("O8", (3, "|", None, None, None, -1, -1, 63), [1]),
        scalar_of("f8", PLAIN, b"1234"),
        scalar_of("f8", PLAIN, b"12345678" * 3),
        scalar_of("f8", (3, "<", None, None, None, 1 << 40, -1, 0), b"12345678"),
        scalar_of("f8", (3, "<", Call(np.dtype, "f8", False, True), None, None, -1, -1, 0), b"12345678"),
        scalar_of(7, PLAIN, b"12345678"),
        Call(SCALAR, Call(np.dtype, "f8", False, True)),
        Call(np.dtype, "V1099511627776"),
        Call(np.dtype, {"names": ["a"], "formats": ["O"]}, False, True),
    ],
    ids=range(10),
)
def test_numbers_that_are_none_are_refused_unmade(tmp_path: Path, forged: object) -> None:
    said = refused(archive(tmp_path / "a.pth", pickled({"a": forged})))
    assert "alloc" not in said
    assert "Memory" not in said


def test_names_that_lead_to_the_network_are_shown_only_if_they_can_be(tmp_path: Path) -> None:
    torch.save({"\x1b[2J": {"a": torch.zeros(1)}}, tmp_path / "a.pth")
    with pytest.raises(WeightsError) as caught:
        CheckpointFile.open(tmp_path / "a.pth")
    assert str(caught.value).isprintable()


def test_an_empty_state_dict_is_one(tmp_path: Path) -> None:
    empty: dict[str, Tensor] = {}
    torch.save(empty, tmp_path / "a.pth")
    assert CheckpointFile.open(tmp_path / "a.pth").entries == {}
