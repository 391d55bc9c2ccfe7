from __future__ import annotations

import sys
from pathlib import Path

import pytest

from personalive.paths import cache_dir
from personalive.pipelines.diffusion.checkpoints import layout


def test_names_and_places_are_all_different() -> None:
    places = [(file.folder, name) for file in layout.FILES for name in file.names]
    assert len(set(places)) == len(places)
    for file in layout.FILES:
        assert file.remote
        assert not file.folder.is_absolute()
        assert ".." not in file.folder.parts
        assert all(not path.startswith("/") and ".." not in path for path in file.remote)


def test_the_first_of_its_names_is_found(tmp_path: Path) -> None:
    file = layout.POSE_GUIDER
    assert file.names == ("pose_guider.safetensors", "pose_guider.pth")
    assert file.find_in(tmp_path) is None
    folder = tmp_path / "personalive"
    (folder / "pose_guider.safetensors").mkdir(parents=True)
    (folder / "pose_guider.pth").touch()
    assert file.find_in(tmp_path) == folder / "pose_guider.pth"
    (folder / "pose_guider.safetensors").rmdir()
    (folder / "pose_guider.safetensors").touch()
    assert file.find_in(tmp_path) == folder / "pose_guider.safetensors"


@pytest.mark.parametrize(
    ("platform", "variables", "expected"),
    [
        ("linux", {}, "~/.cache/personalive"),
        ("linux", {"XDG_CACHE_HOME": "/big/cache"}, "/big/cache/personalive"),
        ("linux", {"XDG_CACHE_HOME": ""}, "~/.cache/personalive"),
        ("darwin", {"XDG_CACHE_HOME": "/big/cache"}, "~/Library/Caches/personalive"),
        ("win32", {}, "~/AppData/Local/personalive"),
        ("win32", {"LOCALAPPDATA": "/data"}, "/data/personalive"),
        ("linux", {"PERSONALIVE_HOME": "/weights"}, "/weights"),
        ("darwin", {"PERSONALIVE_HOME": "~/weights"}, "~/weights"),
    ],
)
def test_the_default_place(
    monkeypatch: pytest.MonkeyPatch, platform: str, variables: dict[str, str], expected: str
) -> None:
    for name in ("PERSONALIVE_HOME", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "platform", platform)
    assert cache_dir() == Path(expected).expanduser()
    assert layout.default_weights_dir() == Path(expected).expanduser() / "pretrained_weights"


def test_the_folder_around_a_set_stands_for_it(tmp_path: Path) -> None:
    assert layout.resolve_weights_dir(tmp_path) == tmp_path
    inner = tmp_path / "pretrained_weights"
    inner.mkdir()
    assert layout.resolve_weights_dir(tmp_path) == inner
    assert layout.resolve_weights_dir(inner) == inner
    (tmp_path / "personalive").mkdir()
    assert layout.resolve_weights_dir(tmp_path) == tmp_path
