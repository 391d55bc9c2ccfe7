"""Finds how this package was installed, and the command that adds to it from any folder, for this Python.

The package's name alone must not be printed as a requirement: it is not on an index, so anybody could register it
there. The package's metadata says where it was installed from (PEP 610, https://peps.python.org/pep-0610/); where
that is not known any more, the packages of an extra are listed instead.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shlex
import subprocess
import sys
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

_NAME = "personalive"
_OPENCV = "opencv-python-headless"
_OTHER_OPENCVS = ("opencv-python", "opencv-contrib-python", "opencv-contrib-python-headless")
_CONSTRAINTS = "constraints.txt"
"""File beside a checkout's pyproject.toml, with versions that are known to work together."""


def install_command(*extras: str) -> str:
    """Return the command that adds these extras ("server", "diffusion", …) to this installation.

    Without extras, it installs the required packages.
    """
    found = find_distribution()
    source = _source_arguments(found, extras)
    return pip_command(*(source or _extra_requirements(found, extras)))


def reinstall_command() -> str | None:
    """Return the command that reinstalls this package; None where its source is not known."""
    source = _source_arguments(find_distribution(), ())
    return pip_command("--force-reinstall", "--no-deps", *source) if source else None


def import_remedy(error: ImportError) -> str:
    """Return the command that fixes a required library that is missing or cannot be imported."""
    if isinstance(error, ModuleNotFoundError) or not (error.name or "").startswith("cv2"):
        return install_command()
    # All OpenCV packages install the same module; those with windows need a desktop's libraries.
    rivals = [name for name in _OTHER_OPENCVS if find_distribution(name)]
    remove = f"{pip_command(*rivals, action='uninstall')} && " if rivals else ""
    return remove + pip_command("--force-reinstall", _OPENCV)


def pip_command(*arguments: str, action: str = "install") -> str:
    """Return the pip command with this action and arguments for the environment of this Python."""
    if importlib.util.find_spec("pip") is None:
        # Environments made by uv have no pip.
        return _quote_command(["uv", "pip", action, "--python", sys.executable, *arguments])
    return _quote_command([sys.executable, "-m", "pip", action, *arguments])


def _quote_command(words: list[str]) -> str:
    return subprocess.list2cmdline(words) if os.name == "nt" else shlex.join(words)


def find_distribution(name: str = _NAME) -> Distribution | None:
    """Return an installed package's metadata, by default this one's; None if it is not installed."""
    try:
        return distribution(name)
    except PackageNotFoundError:
        return None


def _source_arguments(found: Distribution | None, extras: tuple[str, ...]) -> list[str] | None:
    """Return pip's arguments for the package's source; None where that is not known or does not exist any more."""
    origin = _read_origin(found)
    named = f"[{','.join(extras)}]" if extras else ""
    url = str(origin.get("url", ""))
    if "vcs_info" in origin:
        kind, commit = origin["vcs_info"]["vcs"], origin["vcs_info"]["commit_id"]
        return [f"{_NAME}{named} @ {kind}+{url}@{commit}"]
    if not url.startswith("file:"):
        return [f"{_NAME}{named} @ {url}"] if url else None
    path = Path(url2pathname(urlsplit(url).path))
    if not path.exists():
        return None
    constraints = path / _CONSTRAINTS
    together = ["-c", str(constraints)] if constraints.is_file() else []
    editable = ["-e"] if origin.get("dir_info", {}).get("editable") else []
    return [*together, *editable, f"{path}{named}"]


def _read_origin(found: Distribution | None) -> dict[str, Any]:
    text = found.read_text("direct_url.json") if found is not None else None
    try:
        origin = json.loads(text or "{}")
    except ValueError:
        return {}
    return origin if isinstance(origin, dict) else {}


def _extra_requirements(found: Distribution | None, extras: tuple[str, ...]) -> list[str]:
    """Return the requirements of the extras."""
    requirements = (found.requires or []) if found is not None else []
    parts = [text.partition(";") for text in requirements]
    named = [
        requirement.strip()
        for requirement, _, marker in parts
        if _marker_applies(marker.replace("'", '"'), extras)
    ]
    return [line for requirement in named for line in _expand_own_extras(found, requirement)]


def _expand_own_extras(found: Distribution | None, requirement: str) -> list[str]:
    """Return what a requirement such as `personalive[server]` of an extra stands for, others as they are."""
    name, bracket, extras = requirement.partition("[")
    if name != _NAME or not bracket:
        return [requirement]
    return _extra_requirements(found, tuple(extra.strip() for extra in extras.rstrip("]").split(",")))


def _marker_applies(marker: str, extras: tuple[str, ...]) -> bool:
    if not extras:
        return "extra ==" not in marker
    return any(f'extra == "{extra}"' in marker for extra in extras)
