from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from personalive.errors import InputError, OutputExistsError
from personalive.pipelines.diffusion.checkpoints import layout
from personalive.pipelines.diffusion.checkpoints.model_config import read_model_config
from personalive.pipelines.diffusion.checkpoints.network_specs import NETWORKS
from personalive.pipelines.diffusion.checkpoints.random_weights import (
    VARIANTS,
    random_state_dict,
    write_random_weights,
)
from personalive.pipelines.diffusion.networks.motion_extractor import MotionExtractor
from tests.pipelines.diffusion.checkpoints.sets import stored


def files(root: Path) -> set[str]:
    return {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()}


@contextmanager
def small_disk(nbytes: int) -> Iterator[None]:
    """No file can become larger than that."""
    if sys.platform == "win32":
        pytest.skip("Windows sets no such limit")
    import resource

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (nbytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_set_is_laid_out_as_the_released_one(small_set: Path) -> None:
    published = {str(file.folder / file.names[-1]) for file in layout.FILES if file.folder.name != "unet"}
    assert files(small_set) == {*published, layout.MODEL_CONFIG}
    assert read_model_config(small_set) == VARIANTS["small"].sizes
    assert not list(small_set.parent.glob(".*"))


def test_the_denoising_unet_is_divided_as_it_is_released(small_set: Path) -> None:
    rest = stored(small_set / "personalive" / "denoising_unet.pth")
    temporal = stored(small_set / "personalive" / "temporal_module.pth")
    assert temporal
    assert all(".temporal_modules." in name for name in temporal)
    assert not any(".temporal_modules." in name for name in rest)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_same_seed_makes_the_same_set(small_set: Path, tmp_path: Path, dtype: torch.dtype) -> None:
    told: list[str] = []
    again = write_random_weights(tmp_path / "new" / "again", seed=1, dtype=dtype, progress=told.append)
    assert files(again) == files(small_set)
    weights = [name for name in sorted(files(again)) if not name.endswith(".json")]
    assert sorted(told) == weights
    for name in weights:
        before, after = stored(small_set / name), stored(again / name)
        assert before.keys() == after.keys()
        constants = {"pe", "idx_tensor"}
        for entry, value in before.items():
            kept = not value.is_floating_point() or entry.rpartition(".")[2] in constants
            assert torch.equal(after[entry], value if kept else value.to(dtype))


def test_weights_depend_on_seed_network_and_entry_alone(small_set: Path) -> None:
    network = next(network for network in NETWORKS if network.name == "pose_guider")
    module = network.build(small_set, VARIANTS["small"].sizes)
    weights = random_state_dict("pose_guider", module, seed=1)
    torch.manual_seed(5)
    released = stored(small_set / "personalive" / "pose_guider.pth")
    assert all(torch.equal(value, released[name]) for name, value in weights.items())
    for other in (
        random_state_dict("pose_guider", module, seed=-2),
        random_state_dict("other", module, seed=1),
    ):
        assert other.keys() == weights.keys()
        assert not any(torch.equal(other[name], value) for name, value in weights.items())
    assert not torch.equal(weights["blocks.0.bias"], weights["conv_in.bias"])


def test_a_folder_that_holds_anything_is_refused(tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for name in ("full", "full/file", "link"):
        with pytest.raises(OutputExistsError, match=f"{name} is not empty: give a new folder"):
            write_random_weights(tmp_path / name)
    assert files(tmp_path) == {"full/file"}


def test_an_empty_folder_is_filled_be_it_this_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    write_random_weights(Path())
    assert "model.json" in files(tmp_path / "here")
    assert [path.name for path in tmp_path.iterdir()] == ["here"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
@pytest.mark.parametrize("existing", [True, False])
def test_a_failure_midway_leaves_nothing(tmp_path: Path, error: type[BaseException], existing: bool) -> None:
    if existing:
        (tmp_path / "set").mkdir()

    def stop(name: str) -> None:
        if "denoising" in name:
            raise error

    with pytest.raises(error):
        write_random_weights(tmp_path / "set", progress=stop)
    assert [path.name for path in tmp_path.iterdir()] == (["set"] if existing else [])
    assert not files(tmp_path)


def test_a_full_disk_is_an_error_and_leaves_nothing(tmp_path: Path) -> None:
    with small_disk(100_000), pytest.raises(InputError, match=r"set cannot be written: .* is the disk full"):
        write_random_weights(tmp_path / "new" / "set")
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot be written: Not a directory"):
        write_random_weights(tmp_path / "file" / "set")


def test_the_motion_extractor_keeps_keypoints_in_the_picture(small_set: Path) -> None:
    weights = stored(small_set / "personalive" / "motion_extractor.pth")
    extractor = MotionExtractor(VARIANTS["small"].sizes.motion_extractor).requires_grad_(False)
    extractor.load_state_dict(weights)
    motion = extractor(torch.rand(2, 3, 256, 256, generator=torch.Generator().manual_seed(0)))
    assert motion.keypoints.abs().max() < 1
    assert all(part.isfinite().all() for part in motion)
