from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch

from personalive.pipelines.diffusion.kernels import choice_cache
from personalive.pipelines.diffusion.kernels.choice_cache import (
    KernelChoice,
    KernelChoiceCache,
    hash_versions,
)

SOME = KernelChoice("fused", {"fused": 0.5, "pytorch": 0.75})


def test_what_is_kept_is_there_at_the_next_start(tmp_path: Path) -> None:
    first = KernelChoiceCache(tmp_path)
    first["norm 2×3"] = SOME
    first.set_unsaved("norm 4×5", SOME)
    again = KernelChoiceCache(tmp_path)
    assert dict(again) == {"norm 2×3": SOME}
    del first["norm 2×3"]
    assert list(first) == ["norm 4×5"]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "3",
        '{"a": 3}',
        '{"a": {"form": "b"}}',
        '{"a": {"form": "b", "ms": {"c": "d"}}}',
        "\udcff",
    ],
)
def test_a_file_that_cannot_be_read_is_as_good_as_none_and_is_mended(tmp_path: Path, text: str) -> None:
    path = KernelChoiceCache(tmp_path).path
    assert path is not None
    path.write_bytes(text.encode(errors="surrogateescape"))
    mended = KernelChoiceCache(tmp_path)
    assert not mended
    mended["a"] = SOME
    assert dict(KernelChoiceCache(tmp_path)) == {"a": SOME}
    assert [each.name for each in tmp_path.iterdir()] == [path.name]


def test_other_versions_do_not_share_what_was_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = KernelChoiceCache(tmp_path)
    before["a"] = SOME
    hash_versions.cache_clear()
    monkeypatch.setattr(torch, "__version__", "99.0")
    assert not KernelChoiceCache(tmp_path)
    monkeypatch.undo()
    hash_versions.cache_clear()
    assert KernelChoiceCache(tmp_path)


def test_other_sources_do_not_either(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = hash_versions()
    (tmp_path / "norm.py").write_text("# another kernel")
    monkeypatch.setattr(choice_cache, "__file__", str(tmp_path / "choices.py"))
    hash_versions.cache_clear()
    assert hash_versions() != own
    monkeypatch.undo()
    hash_versions.cache_clear()


def test_where_nothing_can_be_written_choices_last_as_long_as_the_process(tmp_path: Path) -> None:
    own = KernelChoiceCache(tmp_path / "missing")
    own["a"] = SOME
    assert own["a"] == SOME
    assert own.path is None
    assert not (tmp_path / "missing").exists()
    own["b"] = SOME
    assert len(own) == 2


@pytest.mark.skipif(os.name != "posix", reason="needs links")
def test_the_file_is_replaced_whole(tmp_path: Path) -> None:
    own = KernelChoiceCache(tmp_path)
    own["a"] = SOME
    assert own.path is not None
    held = tmp_path / "held"
    held.hardlink_to(own.path)
    own["b"] = SOME
    assert list(json.loads(held.read_text())) == ["a"]
    assert list(json.loads(own.path.read_text())) == ["a", "b"]
