from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from personalive.errors import InputError, OutputExistsError, WeightsError
from personalive.pipelines.diffusion.checkpoints import layout
from personalive.pipelines.diffusion.checkpoints.atomic_dir import atomic_dir
from personalive.pipelines.diffusion.checkpoints.convert import convert
from personalive.pipelines.diffusion.checkpoints.loader import build_components, prepare_networks
from personalive.pipelines.diffusion.checkpoints.model_config import read_model_config
from personalive.pipelines.diffusion.checkpoints.network_specs import list_networks
from tests.pipelines.diffusion.checkpoints.sets import as_kept, edit, stored
from tests.pipelines.diffusion.checkpoints.test_random_weights import files, small_disk

PICKLED = {".pth", ".bin", ".pt", ".pkl", ".ckpt"}


def original(root: Path) -> dict[str, dict[str, Tensor]]:
    """Per network, the entries of a set as it was made."""
    return {
        network.name: {
            name: value for path in network.find_files(root) for name, value in stored(path).items()
        }
        for network in list_networks(root)
    }


def written(root: Path) -> dict[str, dict[str, Tensor]]:
    """Per network, the entries of a converted set, which keeps each in one file."""
    return {
        network.name: load_file(root / network.converted_file.folder / network.converted_file.names[0])
        for network in list_networks(root)
    }


def listing(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture(scope="module")
def converted(small_set: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return convert(small_set, tmp_path_factory.mktemp("converted") / "deep" / "set")


def test_a_converted_set_holds_the_same_numbers_in_the_same_types(small_set: Path, converted: Path) -> None:
    before, after = original(small_set), written(converted)
    assert before.keys() == after.keys()
    for name, entries in before.items():
        assert entries.keys() == after[name].keys()
        for entry, value in entries.items():
            assert after[name][entry].dtype == value.dtype
            assert torch.equal(after[name][entry], value)


def test_a_converted_set_has_no_pickles_and_one_file_a_network(small_set: Path, converted: Path) -> None:
    names = files(converted)
    assert not {Path(name).suffix for name in names} & PICKLED
    assert sum(name.endswith(".safetensors") for name in names) == 8
    assert {name for name in names if name.endswith(".json")} == {
        name for name in files(small_set) if name.endswith(".json")
    }
    assert read_model_config(converted) == read_model_config(small_set)
    assert listing(converted.parent) == ["set"]


def test_a_converted_set_is_open_to_whom_the_umask_lets(small_set: Path, tmp_path: Path) -> None:
    umask = os.umask(0o027)
    try:
        out = convert(small_set, tmp_path / "out")
    finally:
        os.umask(umask)
    assert out.stat().st_mode & 0o777 == 0o750
    modes = {path.stat().st_mode & 0o777 for path in out.rglob("*.safetensors")}
    assert modes == {0o640}


def test_leftovers_of_others_are_neither_in_the_way_nor_removed(tmp_path: Path) -> None:
    leftover = tmp_path / f".set.partial-{os.getpid()}"
    leftover.mkdir()
    with atomic_dir(tmp_path / "set") as partial:
        (partial / "file").touch()
    assert listing(tmp_path) == [leftover.name, "set"]
    assert listing(tmp_path / "set") == ["file"]


def test_a_converted_set_loads(converted: Path) -> None:
    networks = build_components(prepare_networks(converted)).networks()
    for name, entries in written(converted).items():
        stored_as = {network.name: network.restore_name for network in list_networks(converted)}[name]
        state = {stored_as(entry): value for entry, value in networks[name].state_dict().items()}
        assert state.keys() == entries.keys()
        assert all(torch.equal(state[entry], value) for entry, value in entries.items())


@pytest.mark.slow
def test_another_type_is_taken_by_all_but_what_computes_in_float32(small_set: Path, tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []
    out = convert(
        small_set, tmp_path / "half", dtype=torch.float16, progress=lambda *report: told.append(report)
    )
    before = original(small_set)
    for name, entries in written(out).items():
        for entry, value in entries.items():
            expected = as_kept(before[name][entry], name, entry, torch.float16)
            assert value.dtype == expected.dtype
            assert torch.equal(value, expected)
    done = [count for _, count, _ in told]
    assert done == sorted(set(done))
    assert {total for _, _, total in told} == {done[-1]}


@pytest.mark.slow
def test_a_set_of_another_type_keeps_it(small_set: Path, tmp_path: Path) -> None:
    half = convert(small_set, tmp_path / "half", dtype=torch.float16)
    before, after = written(half), written(convert(half, tmp_path / "again"))
    for name, entries in before.items():
        assert {entry: value.dtype for entry, value in after[name].items()} == {
            entry: value.dtype for entry, value in entries.items()
        }


def test_weights_are_written_whatever_their_types_and_layouts(own_set: Path, tmp_path: Path) -> None:
    def mix(entries: dict[str, Tensor]) -> None:
        for index, (name, value) in enumerate(entries.items()):
            entries[name] = value.to((torch.float16, torch.bfloat16)[index % 2])

    def halve(entries: dict[str, Tensor]) -> None:
        halved = {name: value.bfloat16() for name, value in entries.items()}
        entries.clear()
        entries.update({"model.bn1.num_batches_tracked": torch.tensor(7), **halved})  # a whole number first

    def turn(entries: dict[str, Tensor]) -> None:
        for name, value in entries.items():
            entries[name] = value.to(memory_format=torch.channels_last) if value.ndim == 4 else value

    edit(own_set, layout.POSE_GUIDER, mix)
    edit(own_set, layout.MOTION_ENCODER, halve)
    edit(own_set, layout.VAE, turn)
    before, after = original(own_set), written(convert(own_set, tmp_path / "out"))
    for name, entries in before.items():
        for entry, value in entries.items():
            if entry in after[name]:
                assert torch.equal(after[name][entry], value.to(after[name][entry].dtype))
    assert {value.dtype for value in after["pose_guider"].values()} == {torch.float32}
    assert {value.dtype for value in after["motion_encoder"].values()} == {torch.bfloat16}
    assert "model.bn1.num_batches_tracked" not in after["motion_encoder"]


def test_an_existing_place_is_left_alone(small_set: Path, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for name in ("folder", "file", "link"):
        with pytest.raises(OutputExistsError, match=f"{name} exists already: give a new folder"):
            convert(small_set, tmp_path / name)
    assert listing(tmp_path) == ["file", "folder", "link"]
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_a_stop_midway_leaves_nothing(small_set: Path, tmp_path: Path, error: type[BaseException]) -> None:
    def stop(name: str, done: int, total: int) -> None:
        assert done <= total
        if name == "denoising_unet":
            assert listing(tmp_path) == ["new"]
            raise error

    with pytest.raises(error):
        convert(small_set, tmp_path / "new" / "set", progress=stop)
    assert listing(tmp_path) == []


@pytest.mark.slow
def test_an_unsound_set_leaves_nothing(own_set: Path, tmp_path: Path) -> None:
    path = edit(own_set, layout.VAE, lambda entries: entries["encoder.conv_in.bias"].fill_(float("nan")))
    with pytest.raises(WeightsError) as caught:
        convert(own_set, tmp_path / "out")
    assert str(caught.value) == f"{path}: encoder.conv_in.bias holds values that are not finite."
    assert listing(tmp_path) == ["set"]


def test_a_full_disk_is_an_error_and_leaves_nothing(small_set: Path, tmp_path: Path) -> None:
    with small_disk(100_000), pytest.raises(InputError, match=r"new/set cannot be written: .*File too large"):
        convert(small_set, tmp_path / "new" / "set")
    assert listing(tmp_path) == []


def test_a_place_that_cannot_be_written_is_an_error(small_set: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot be written: Not a directory"):
        convert(small_set, tmp_path / "file" / "set")
