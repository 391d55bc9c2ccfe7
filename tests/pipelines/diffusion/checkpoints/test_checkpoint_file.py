from __future__ import annotations

import os
import pickle
import tarfile
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import strategies as st
from safetensors.torch import save, save_file
from torch import Tensor, nn

from personalive.errors import MissingWeightsError, WeightsError
from personalive.pipelines.diffusion.checkpoints import checkpoint_file
from personalive.pipelines.diffusion.checkpoints.checkpoint_file import CheckpointFile, TensorEntry
from tests.pipelines.diffusion.checkpoints.forged import (
    Call,
    Storage,
    archive,
    edited,
    flipped,
    fuzz,
    fuzzers,
    pickled,
    refused,
    safetensors,
    survives,
    tensor,
    tiny_weights,
    two_directories,
)
from tests.signals import IS_ROOT

Save = Callable[[dict[str, Tensor], Path], None]

HUGE = 1 << 40
FLOATS = st.sampled_from([torch.float64, torch.float32, torch.float16, torch.bfloat16])


def save_archive(weights: dict[str, Tensor], path: Path) -> None:
    torch.save(weights, path.with_suffix(".pth"))


def save_legacy(weights: dict[str, Tensor], path: Path) -> None:
    torch.save(weights, path.with_suffix(".pth"), _use_new_zipfile_serialization=False)


def save_safetensors(weights: dict[str, Tensor], path: Path) -> None:
    save_file(weights, path.with_suffix(".safetensors"))


kinds = pytest.mark.parametrize("save_as", [save_archive, save_legacy, save_safetensors])


def written(weights: dict[str, Tensor], folder: Path, save_as: Save) -> Path:
    save_as(weights, folder / "weights")
    (path,) = folder.glob("weights.*")
    return path


@kinds
@pytest.mark.parametrize(
    "dtype",
    [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.uint8, torch.bool],
)
def test_entries_and_tensors_are_what_was_saved(tmp_path: Path, save_as: Save, dtype: torch.dtype) -> None:
    weights = {
        "a.matrix": torch.arange(6).reshape(2, 3).to(dtype),
        "a.scalar": torch.tensor(3).to(dtype),
        "b.nothing": torch.zeros(0, 4).to(dtype),
    }
    file = CheckpointFile.open(written(weights, tmp_path, save_as))
    assert file.entries == {name: TensorEntry(tuple(value.shape), dtype) for name, value in weights.items()}
    assert sum(entry.nbytes for entry in file.entries.values()) == 7 * dtype.itemsize
    for name, value in file.stream(["b.nothing", "a.scalar", "a.matrix"]):
        assert value.dtype == dtype
        assert torch.equal(value, weights[name])


@kinds
def test_only_what_is_asked_for_is_given_in_that_order(tmp_path: Path, save_as: Save) -> None:
    file = CheckpointFile.open(written({name: torch.ones(2) for name in "abcd"}, tmp_path, save_as))
    assert [name for name, _ in file.stream(["d", "b"])] == ["d", "b"]
    assert list(file.stream([])) == []


@kinds
def test_mapping_anew_changes_nothing(tmp_path: Path, save_as: Save, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = {str(index): torch.full((8,), float(index)) for index in range(20)}
    file = CheckpointFile.open(written(weights, tmp_path, save_as))
    monkeypatch.setattr(checkpoint_file, "_BYTES_PER_MAPPING", 100)
    streamed = {name: value.clone() for name, value in file.stream(weights)}
    assert list(streamed) == list(weights)
    assert all(torch.equal(streamed[name], value) for name, value in weights.items())


def test_state_dicts_and_parameters_are_read_as_plain_tensors(tmp_path: Path) -> None:
    module = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    for content in (module.state_dict(), OrderedDict(module.named_parameters())):
        torch.save(content, tmp_path / "a.pth")
        file = CheckpointFile.open(tmp_path / "a.pth")
        assert list(file.entries) == list(content)
        for name, value in file.stream(file.entries):
            assert type(value) is Tensor
            assert not value.requires_grad
            assert torch.equal(value, content[name])


def test_views_and_shared_storages_are_read(tmp_path: Path) -> None:
    base = torch.arange(12.0)
    weights = {
        "all": base,
        "middle": base[3:7],
        "turned": base.reshape(3, 4).t(),
        "repeated": base[5:6].expand(4),
        "again": base,
    }
    torch.save(weights, tmp_path / "a.pth")
    file = CheckpointFile.open(tmp_path / "a.pth")
    for name, value in file.stream(weights):
        assert torch.equal(value, weights[name])
        assert file.entries[name].shape == weights[name].shape


def test_an_early_end_of_reading_closes_the_file(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(3), "b": torch.zeros(3)}, tmp_path / "a.pth")
    file = CheckpointFile.open(tmp_path / "a.pth")
    stream = file.stream(["a", "b"])
    next(stream)
    stream.close()  # type: ignore[attr-defined]
    (tmp_path / "a.pth").unlink()


@pytest.mark.parametrize("name", ["a.pth", "a.bin", "a.safetensors"])
def test_a_file_that_is_not_there(tmp_path: Path, name: str) -> None:
    with pytest.raises(MissingWeightsError, match=f"{name} is not there"):
        CheckpointFile.open(tmp_path / name)


@pytest.mark.parametrize("name", ["a.pth", "a.safetensors"])
def test_a_file_that_goes_away_or_changes_while_it_is_read(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    save_as = save_safetensors if path.suffix == ".safetensors" else save_archive
    save_as({"a": torch.zeros(3)}, path)
    file = CheckpointFile.open(path)
    save_as({"b": torch.zeros(3)}, path)
    with pytest.raises(WeightsError, match=name):
        list(file.stream(["a"]))
    path.unlink()
    with pytest.raises(MissingWeightsError, match=f"{name} is not there"):
        list(file.stream(["a"]))


@pytest.mark.parametrize("name", ["a.pth", "a.safetensors"])
def test_a_folder_in_place_of_a_file(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    refused(tmp_path / name)


@pytest.mark.parametrize("name", ["a.pth", "a.safetensors"])
def test_an_empty_file(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    refused(tmp_path / name)


@pytest.mark.skipif(IS_ROOT, reason="root may read everything")
@pytest.mark.parametrize("name", ["a.pth", "a.safetensors"])
def test_a_file_that_may_not_be_read(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch(mode=0o000)
    assert "permissions" in refused(tmp_path / name)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ([torch.zeros(1)], "list, not named tensors"),
        (torch.zeros(1), "a tensor, not named tensors"),
        (None, "NoneType, not named tensors"),
        ({"epoch": 3}, "'epoch', something of type int"),
        ({"a": torch.zeros(1), "state_dict": {"a": torch.zeros(1)}}, "'state_dict', a dict: only"),
        ({"optimizer": OrderedDict()}, "'optimizer', a dict"),
        ({7: torch.zeros(1)}, "7, a tensor"),
        ({("a",): torch.zeros(1)}, "('a',), a tensor"),
        ({"a": torch.Size([1])}, "torch.Size"),
        ({"a": torch.zeros(2).to_sparse()}, "_rebuild_sparse_tensor"),
        ({"a": torch.zeros(2, device="meta")}, "_rebuild_meta_tensor_no_storage"),
        ({"a": torch.zeros(2).to(torch.float8_e4m3fn)}, "_rebuild_tensor_v3"),
        (nn.Linear(1, 1), "Linear"),
        ({"\x1b[2J": torch.zeros(1)}, r"'\x1b[2J'"),
        ({"two\nlines": torch.zeros(1)}, r"two\nlines"),
        ({"a" * 10_000: torch.zeros(1)}, "aaa"),
    ],
)
@pytest.mark.parametrize("new", [True, False])
def test_what_is_no_dict_of_tensors_is_named(tmp_path: Path, content: object, said: str, new: bool) -> None:
    torch.save(content, tmp_path / "a.pth", _use_new_zipfile_serialization=new)
    assert said in refused(tmp_path / "a.pth")


@pytest.mark.filterwarnings("ignore:.*quantize.*:UserWarning")
def test_quantized_tensors_are_not_read(tmp_path: Path) -> None:
    torch.save({"a": torch.quantize_per_tensor(torch.zeros(2), 1.0, 0, torch.qint8)}, tmp_path / "a.pth")
    assert "_rebuild_qtensor" in refused(tmp_path / "a.pth")


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
def test_code_in_a_pickle_never_runs(tmp_path: Path, protocol: int) -> None:
    ran = tmp_path / "ran"
    forbidden: list[tuple[Callable[..., Any], tuple[object, ...]]] = [
        (os.system, (f"touch {ran}",)),
        (eval, (f"open({str(ran)!r}, 'w')",)),
        (open, (str(ran), "w")),
        (exec, (f"open({str(ran)!r}, 'w')",)),
        (torch.hub.load, ("some/where", "model")),
    ]
    path = tmp_path / "a.pth"
    for function, arguments in forbidden:
        call = Call(function, *arguments)
        for content in (call, {"a": call}, {call: torch.zeros(1).numpy()}, {"a": {"b": [call]}}):
            held = pickle.dumps(content, protocol)
            archive(path, held)
            refused(path)
            path.write_bytes(held)
            refused(path)
            path.write_bytes(pickle.dumps(0x1950A86A20F9469CFC6C, 2) + pickle.dumps(1001, 2) + held)
            refused(path)
    assert not ran.exists()


def stored(numel: object = 4, key: object = "0", kind: object = torch.FloatStorage) -> Storage:
    return Storage(kind, key, numel)


ASKING_TOO_MUCH: list[object] = [
    Call(bytearray, HUGE),
    Call(torch.Tensor, HUGE),
    Call(torch.FloatTensor, HUGE),
    Call(torch.UntypedStorage, HUGE),
    Call(torch._utils._rebuild_tensor, stored(), 0, (HUGE,), (1,)),
    Call(torch._utils._rebuild_parameter, None, False, {}),
    Call(OrderedDict, HUGE),
    tensor(stored(HUGE), 0, (HUGE,), (1,)),
    tensor(stored(), 0, (HUGE,), (1,)),
    tensor(stored(), 0, (5,), (1,)),
    tensor(stored(), 3, (2,), (1,)),
    tensor(stored(), HUGE, (), ()),
    tensor(stored(), -1, (2,), (1,)),
    tensor(stored(), 0, (-1,), (1,)),
    tensor(stored(), 3, (2,), (-1,)),
    tensor(stored(), 0, (2, 2), (1,)),
    tensor(stored(), 0.5, (2,), (1,)),
    tensor(stored(), 0, [2], [1]),
    tensor(stored(-1), 0, (), ()),
    tensor(stored(key="1"), 0, (), ()),
    tensor(stored(key=0), 0, (), ()),
    tensor(stored(kind=torch.UntypedStorage), 0, (), ()),
    tensor(stored(kind=torch.QInt8Storage), 0, (), ()),
    tensor(stored(kind=OrderedDict), 0, (), ()),
    tensor(stored(), 0, (2,), (1,), hooks={"hook": 1}),
    Call(torch._utils._rebuild_tensor_v2, stored(), 0, (2,), (1,), False, {}, {"neg": True}),
    Call(
        torch._utils._rebuild_tensor_v2,
        stored(),
        0,
        (2,),
        (1,),
        False,
        {},
        state=(stored(), 0, (HUGE,), (1,)),
    ),
    Call(torch._utils._rebuild_parameter, tensor(stored(), 0, (2,), (1,)), False, {"hook": 1}),
]


@pytest.mark.parametrize("held", ASKING_TOO_MUCH, ids=range(len(ASKING_TOO_MUCH)))
def test_a_tensor_that_is_not_as_it_is_stored_is_refused_unmade(tmp_path: Path, held: object) -> None:
    path = archive(tmp_path / "a.pth", pickled({"a": held}), {"0": bytes(16)})
    said = refused(path)
    assert "alloc" not in said
    assert "Memory" not in said


def test_a_sound_archive_made_the_same_way_is_read(tmp_path: Path) -> None:
    path = archive(tmp_path / "a.pth", pickled({"a": tensor(stored(), 1, (3,), (1,))}), {"0": bytes(16)})
    ((_, value),) = CheckpointFile.open(path).stream(["a"])
    assert torch.equal(value, torch.zeros(3))


def test_a_legacy_file_that_says_more_than_it_holds(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    torch.save({"a": torch.zeros(100)}, path, _use_new_zipfile_serialization=False)
    content = path.read_bytes()
    path.write_bytes(content.replace(b"Kd", b"J\xff\xff\xff\x7f"))  # the number 100, as pickles write it
    assert "holds less than it says" in refused(path)
    path.write_bytes(content[:-200])
    assert survives(path)


@pytest.mark.parametrize("opcode", [pickle.BINBYTES8, pickle.BINUNICODE8, pickle.BYTEARRAY8, pickle.FRAME])
def test_a_pickle_that_announces_more_bytes_than_there_are(tmp_path: Path, opcode: bytes) -> None:
    announced = pickle.PROTO + b"\x02" + opcode + b"\0\0\0\0\0\0\0\x01" + pickle.STOP
    path = archive(tmp_path / "a.pth", announced)
    assert "Memory" not in refused(path)
    path.write_bytes(announced)
    assert "Memory" not in refused(path)


def test_compressed_archives_are_refused_before_they_are_unpacked(tmp_path: Path) -> None:
    content = pickled({"a" * (64 << 20): 1})
    path = archive(tmp_path / "a.pth", content, compression=zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 1 << 20
    assert "compressed" in refused(path)


def test_a_second_list_of_records_is_refused(tmp_path: Path) -> None:
    path = two_directories(tmp_path / "a.pth", pickled({"a" * (1 << 20): 1}))
    with zipfile.ZipFile(path) as file:
        assert {record.compress_type for record in file.infolist()} == {zipfile.ZIP_STORED}
    assert "does not end as they do" in refused(path)


@pytest.mark.parametrize("place", [0, -22, -42, -98], ids=["front", "end", "locator", "end64"])
def test_bytes_around_the_list_of_records_are_refused(tmp_path: Path, place: int) -> None:
    torch.save({"a": torch.zeros(1)}, tmp_path / "a.pth")
    content = (tmp_path / "a.pth").read_bytes()
    assert content[-98:-94] == b"PK\x06\x06"  # torch writes both kinds of end
    place %= len(content)
    # In front, something that looks like the beginning of a record.
    (tmp_path / "a.pth").write_bytes(content[:place] + content[:60] + content[place:])
    refused(tmp_path / "a.pth")


@pytest.mark.filterwarnings("ignore:Duplicate name:UserWarning")
def test_archives_that_hold_a_record_twice_are_refused(tmp_path: Path) -> None:
    path = archive(tmp_path / "a.pth", pickled({}))
    with zipfile.ZipFile(path, "a") as file:
        file.writestr("forged/data.pkl", pickled({"a": 1}))
    assert "twice" in refused(path)


def test_errors_quote_no_control_characters(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(1)}, tmp_path / "a.pth")
    content = (tmp_path / "a.pth").read_bytes()
    (tmp_path / "a.pth").write_bytes(content.replace(b"little", b"li\x1b[1m"))
    file = CheckpointFile.open(tmp_path / "a.pth")
    with pytest.raises(WeightsError, match=r"a\.pth is damaged .*li\?\[1m") as caught:
        list(file.stream(["a"]))
    assert str(caught.value).isprintable()


def test_other_archives_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("readme.txt", "no weights here")
    refused(path)
    with tarfile.open(path, "w") as tar:
        tar.add(__file__, "storages")
    refused(path)


@pytest.mark.parametrize("kind", ["C64", "U16", "U32", "U64", "F8_E4M3", "F8_E5M2"])
def test_safetensors_of_other_kinds_are_named(tmp_path: Path, kind: str) -> None:
    size = {"C64": 8, "U16": 2, "U32": 4, "U64": 8}.get(kind, 1)
    header = {"entry": {"dtype": kind, "shape": [1], "data_offsets": [0, size]}}
    assert f"entry is stored as {kind}" in refused(
        safetensors(tmp_path / "a.safetensors", header, bytes(size))
    )


def described(
    shape: object = (2,), begin: object = 0, end: object = 8, dtype: object = "F32"
) -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"[" * 100_000,
        b'{"a": ' * 100_000,
        b"\xff\xfe",
        {"a": 1},
        {"a": {}},
        {"a": described(dtype="F31")},
        {"a": described(shape=[3])},
        {"a": described(shape=[-2])},
        {"a": described(shape=[HUGE, HUGE])},
        {"a": described(shape=[HUGE, HUGE, 0], end=0)},
        {"a": described(begin=8, end=0)},
        {"a": described(begin=-8)},
        {"a": described(end=HUGE)},
        {"a": described(end=2**64 - 1)},
        {"a": described(shape=[HUGE], end=4 * HUGE)},
        {"a": described(shape=[1], end=4)},
        {"a": described(), "b": described()},
        {"a": described(), "b": described(shape=[1], begin=4)},
        {"a": described(), "__metadata__": 3},
        {"a\x1b": described()},
        {"a" * 1000: described()},
    ],
    ids=range(25),
)
def test_safetensors_headers_that_are_wrong(tmp_path: Path, header: object) -> None:
    refused(safetensors(tmp_path / "a.safetensors", header, bytes(8)))


@pytest.mark.parametrize("length", [0, 1, 7, 63, 65, 1 << 20, 100_000_001, HUGE, 2**63, 2**64 - 1])
def test_safetensors_headers_of_a_wrong_length(tmp_path: Path, length: int) -> None:
    refused(safetensors(tmp_path / "a.safetensors", {"a": described()}, bytes(8), length))


def test_a_safetensors_header_that_says_the_same_twice_is_harmless(tmp_path: Path) -> None:
    entry = b'"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}'
    file = CheckpointFile.open(
        safetensors(tmp_path / "a.safetensors", b"{" + entry + b"," + entry + b"}", bytes(8))
    )
    assert file.entries == {"a": TensorEntry((2,), torch.float32)}


def test_a_shape_beyond_what_torch_can_count_is_named(tmp_path: Path) -> None:
    header = {"a": described(shape=[0, 2**63], end=0)}
    file = CheckpointFile.open(safetensors(tmp_path / "a.safetensors", header))
    assert file.entries["a"].nbytes == 0
    with pytest.raises(WeightsError, match=r"a\.safetensors"):
        list(file.stream(["a"]))


# What follows throws thousands of damaged files at the loader, from opening to filled network.


def content_of(folder: Path, save_as: Save) -> tuple[Path, bytes]:
    path = written(tiny_weights(), folder, save_as)
    assert survives(path) == ""
    return path, path.read_bytes()


@fuzzers
@kinds
def test_a_file_cut_off_anywhere_is_refused(tmp_path: Path, save_as: Save, examples: int) -> None:
    path, content = content_of(tmp_path, save_as)

    def check(length: int) -> None:
        path.write_bytes(content[:length])
        assert survives(path)

    fuzz(examples, check, st.integers(0, len(content) - 1))


@fuzzers
@kinds
def test_turned_bits_do_no_harm(tmp_path: Path, save_as: Save, examples: int) -> None:
    path, content = content_of(tmp_path, save_as)

    def check(damaged: bytes) -> None:
        path.write_bytes(damaged)
        survives(path)

    fuzz(examples, check, flipped(content))


@fuzzers
@kinds
def test_replaced_stretches_do_no_harm(tmp_path: Path, save_as: Save, examples: int) -> None:
    path, content = content_of(tmp_path, save_as)

    def check(damaged: bytes) -> None:
        path.write_bytes(damaged)
        survives(path)

    fuzz(examples, check, edited(content))


@fuzzers
@pytest.mark.parametrize("name", ["a.pth", "a.safetensors"])
def test_arbitrary_bytes_are_refused(tmp_path: Path, name: str, examples: int) -> None:
    starts = st.sampled_from(
        [
            b"",
            b"PK\x03\x04",
            b"PK\x05\x06",
            b"\x80\x02",
            pickle.dumps(0x1950A86A20F9469CFC6C, 2),
            b"\x08" + bytes(7),
        ]
    )

    def check(start: bytes, rest: bytes) -> None:
        (tmp_path / name).write_bytes(start + rest)
        assert survives(tmp_path / name)

    fuzz(examples, check, starts, st.binary(max_size=300))


@fuzzers
def test_edited_pickles_in_sound_archives_do_no_harm(tmp_path: Path, examples: int) -> None:
    torch.save(tiny_weights(), tmp_path / "sound.pth")
    with zipfile.ZipFile(tmp_path / "sound.pth") as file:
        records = {record.partition("/")[2]: file.read(record) for record in file.namelist()}
    storages = {
        name.removeprefix("data/"): held for name, held in records.items() if name.startswith("data/")
    }
    content = records["data.pkl"]
    assert survives(archive(tmp_path / "a.pth", content, storages)) == ""

    def check(damaged: bytes) -> None:
        survives(archive(tmp_path / "a.pth", damaged, storages))

    fuzz(examples, check, edited(content) | flipped(content))


NUMBERS = (
    st.integers(0, 6)
    | st.integers(-3, 40)
    | st.sampled_from([HUGE, 2**31, 2**32, 2**62, 2**63 - 1, 2**63, 2**64, -(2**63)])
    | st.floats()
    | st.booleans()
    | st.none()
)
STORAGES = st.builds(
    Storage,
    st.sampled_from(
        [torch.FloatStorage, torch.HalfStorage, torch.LongStorage, torch.BoolStorage, torch.Tensor]
    ),
    st.sampled_from(["0", "1", "2", "", "../0", 0, None]),
    NUMBERS,
)
SHAPES = st.lists(NUMBERS, max_size=4).map(tuple)
TENSORS = st.builds(tensor, STORAGES, NUMBERS, SHAPES, SHAPES)
OBJECTS = st.recursive(
    TENSORS | NUMBERS | st.text(max_size=5) | st.binary(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


@fuzzers
def test_described_tensors_of_any_kind_are_read_as_described_or_refused(
    tmp_path: Path, examples: int
) -> None:
    path = tmp_path / "a.pth"

    def check(held: object, sizes: list[int]) -> None:
        archive(path, pickled(held), {str(key): bytes(size) for key, size in enumerate(sizes)})
        survives(path)
        with suppress(WeightsError):
            file = CheckpointFile.open(path)
            for name, value in file.stream(file.entries):
                assert TensorEntry(tuple(value.shape), value.dtype) == file.entries[name]
                assert value.untyped_storage().nbytes() <= max(sizes)

    names = st.sampled_from(["linear.weight", "linear.bias", "other"])
    fuzz(
        examples,
        check,
        st.dictionaries(names, TENSORS, max_size=3) | st.dictionaries(names | NUMBERS, OBJECTS) | OBJECTS,
        st.lists(st.integers(0, 64), min_size=1, max_size=3),
    )


@fuzzers
def test_safetensors_headers_of_any_kind_do_no_harm(tmp_path: Path, examples: int) -> None:
    path = tmp_path / "a.safetensors"
    counts = st.integers(0, 6) | st.integers(-2, 2**64) | st.floats() | st.none() | st.text(max_size=2)
    shapes = st.lists(counts, max_size=4) | counts
    entries = st.fixed_dictionaries(
        {
            "dtype": st.sampled_from(
                ["F32", "F16", "BF16", "I64", "BOOL", "F4", "F8_E8M0", "C64", "none", 3]
            ),
            "shape": shapes,
            "data_offsets": st.tuples(counts, counts) | shapes,
        }
    )
    headers = st.dictionaries(st.sampled_from(["linear.weight", "linear.bias", "__metadata__"]), entries)

    def check(header: object, data: bytes) -> None:
        assert survives(safetensors(path, header, data))

    fuzz(examples, check, headers, st.binary(max_size=48))


@fuzzers
def test_values_of_any_kind_are_loaded_or_named(tmp_path: Path, examples: int) -> None:
    path = tmp_path / "a.safetensors"
    weights = tiny_weights()
    names = st.sampled_from([name for name, value in weights.items() if value.is_floating_point()])

    def check(name: str, dtype: torch.dtype, value: float) -> None:
        changed = weights[name].to(dtype, copy=True)
        changed.view(-1)[-1] = torch.tensor(value, dtype=torch.float64).to(dtype)
        path.write_bytes(save({**weights, name: changed}))
        said = survives(path)
        finite = bool(changed.to(torch.float32).isfinite().all())
        assert finite == (said == "")
        assert finite or name in said

    fuzz(examples, check, names, FLOATS, st.floats(width=64))
