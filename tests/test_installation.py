"""Commands that are printed work from any folder, and never name what anybody may register."""

from __future__ import annotations

import json
import shlex
import sys
from importlib.metadata import Distribution
from pathlib import Path

import pytest

from personalive import installation

REQUIRES = [
    "numpy>=2.0",
    "aiortc>=1.15; extra == 'server'",
    'torch>=2.11; extra == "diffusion"',
    'personalive[server]; extra == "live"',
    'pyvirtualcam>=0.12.1; extra == "live"',
]


class Installed(Distribution):
    """A copy that came from somewhere."""

    def __init__(self, origin: str | None) -> None:
        self._origin = origin

    def read_text(self, filename: str) -> str | None:
        if filename == "METADATA":
            return "Name: personalive\n" + "".join(f"Requires-Dist: {each}\n" for each in REQUIRES)
        return self._origin if filename == "direct_url.json" else None

    def locate_file(self, path: object) -> Path:
        return Path(str(path))


def came_from(origin: object, monkeypatch: pytest.MonkeyPatch) -> None:
    text = origin if isinstance(origin, str) or origin is None else json.dumps(origin)
    monkeypatch.setattr(installation, "distribution", lambda name: Installed(text))


def words(command: str | None) -> list[str]:
    assert command is not None
    return shlex.split(command)


@pytest.mark.parametrize("editable", [True, False])
def test_a_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, editable: bool) -> None:
    folder = tmp_path / "my copy"
    folder.mkdir()
    (folder / "constraints.txt").touch()
    came_from({"url": folder.as_uri(), "dir_info": {"editable": editable}}, monkeypatch)
    pip = [sys.executable, "-m", "pip", "install"]
    own = ["-c", f"{folder}/constraints.txt", *(["-e"] if editable else [])]
    assert words(installation.install_command("server", "diffusion")) == [
        *pip,
        *own,
        f"{folder}[server,diffusion]",
    ]
    assert words(installation.reinstall_command()) == [
        *pip,
        "--force-reinstall",
        "--no-deps",
        *own,
        str(folder),
    ]


def test_a_wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wheel = tmp_path / "personalive-0.1.0-py3-none-any.whl"
    wheel.touch()
    came_from({"url": wheel.as_uri(), "archive_info": {}}, monkeypatch)
    assert words(installation.install_command("server"))[4:] == [f"{wheel}[server]"]


@pytest.mark.parametrize(
    ("origin", "requirement"),
    [
        (
            {"url": "https://a.example/p.whl", "archive_info": {}},
            "personalive[server] @ https://a.example/p.whl",
        ),
        (
            {"url": "https://a.example/p", "vcs_info": {"vcs": "git", "commit_id": "abc"}},
            "personalive[server] @ git+https://a.example/p@abc",
        ),
    ],
)
def test_an_address(origin: object, requirement: str, monkeypatch: pytest.MonkeyPatch) -> None:
    came_from(origin, monkeypatch)
    assert words(installation.install_command("server"))[4:] == [requirement]


@pytest.mark.parametrize("origin", [None, "no JSON", "[]", {"url": "file:///gone/personalive.whl"}])
def test_packages_by_name_where_nobody_knows(origin: object, monkeypatch: pytest.MonkeyPatch) -> None:
    came_from(origin, monkeypatch)
    assert words(installation.install_command("server"))[4:] == ["aiortc>=1.15"]
    assert words(installation.install_command("server", "diffusion"))[4:] == ["aiortc>=1.15", "torch>=2.11"]
    assert words(installation.install_command("live"))[4:] == ["aiortc>=1.15", "pyvirtualcam>=0.12.1"]
    assert installation.reinstall_command() is None


def test_an_environment_without_pip(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert words(installation.pip_command("av")) == ["uv", "pip", "install", "--python", sys.executable, "av"]


def test_a_broken_opencv_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installation, "find_distribution", lambda name: name == "opencv-python" or None)
    broken = ImportError("libxcb.so.1: cannot open shared object file", name="cv2")
    pip = f"{shlex.quote(sys.executable)} -m pip"
    assert installation.import_remedy(broken) == (
        f"{pip} uninstall opencv-python && {pip} install --force-reinstall opencv-python-headless"
    )


def test_a_missing_library_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    came_from(None, monkeypatch)
    missing = ModuleNotFoundError("No module named 'numpy'", name="numpy")
    assert words(installation.import_remedy(missing))[4:] == ["numpy>=2.0"]
