from __future__ import annotations

import json
from pathlib import Path

import pytest

from personalive.errors import MissingWeightsError, WeightsError
from personalive.pipelines.diffusion.checkpoints import layout
from personalive.pipelines.diffusion.checkpoints.shards import open_shards, resolve_shards
from tests.pipelines.diffusion.checkpoints.forged import tiny_weights
from tests.pipelines.diffusion.checkpoints.sets import split_up


@pytest.fixture
def index(tmp_path: Path) -> Path:
    return split_up(tmp_path / "model.safetensors", tiny_weights())


def test_a_file_of_its_own_stands_for_itself(tmp_path: Path) -> None:
    assert resolve_shards(tmp_path / "model.safetensors") == (tmp_path / "model.safetensors",)


def test_an_index_stands_for_what_it_lists(index: Path) -> None:
    names = [f"model-0000{part}-of-00003.safetensors" for part in (1, 2, 3)]
    assert [path.name for path in resolve_shards(index)] == names
    files = open_shards(index)
    assert [file.path.name for file in files] == names
    assert {entry for file in files for entry in file.entries} == tiny_weights().keys()


def test_an_index_is_found_where_the_file_is_not(index: Path) -> None:
    encoder = layout.IMAGE_ENCODER
    root = index.parent / "set"
    (root / encoder.folder).mkdir(parents=True)
    assert encoder.find_in(root) is None
    there = root / encoder.folder / index.name
    index.rename(there)
    assert encoder.find_in(root) == there
    (root / encoder.folder / "pytorch_model.bin").touch()
    assert encoder.find_in(root) == there  # safetensors are preferred, in one file or in several
    (root / encoder.folder / "model.safetensors").touch()
    assert encoder.find_in(root) == root / encoder.folder / "model.safetensors"


def test_a_part_that_is_missing_is_named(index: Path) -> None:
    index.with_name("model-00002-of-00003.safetensors").unlink()
    with pytest.raises(
        MissingWeightsError, match=r"model-00002-of-00003\.safetensors is not there, but .*index"
    ):
        open_shards(index)


def test_a_part_that_lacks_an_entry_is_named(index: Path) -> None:
    content = json.loads(index.read_text())
    content["weight_map"]["more.weight"] = "model-00001-of-00003.safetensors"
    index.write_text(json.dumps(content))
    with pytest.raises(
        WeightsError, match=r"model-00001-of-00003\.safetensors has no 'more\.weight', which "
    ):
        open_shards(index)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("[]", "must be a JSON object"),
        ("{}", "lists no files"),
        ('{"weight_map": []}', "lists no files"),
        ('{"weight_map": {"a": 7}}', "names 7, which is no file beside it"),
        ('{"weight_map": {"a": "../precious.safetensors"}}', "which is no file beside it"),
        ('{"weight_map": {"a": "/etc/precious"}}', "which is no file beside it"),
        ('{"weight_map": {"a": ""}}', "which is no file beside it"),
        ('{"weight_map": {"a": ".."}}', "is not there"),
        ('{"weight_map": {"a": "\\u001b.safetensors"}}', "which is no file beside it"),
        ("<html>", "is a web page"),
    ],
)
def test_an_index_that_is_none_is_named(index: Path, content: str, said: str) -> None:
    index.write_text(content)
    with pytest.raises(WeightsError, match=said) as caught:
        open_shards(index)
    assert str(caught.value).isprintable()
