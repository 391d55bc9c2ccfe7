"""Hand this machine's settings of pip to an image's build: a pip.conf, and volumes for the files it names.

python3 .ci/pip_settings.py PIP_CONF    writes that file, and prints buildah's arguments, one a line.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

# What pip may have to know to find packages; anything else is about the machine.
_PLACES = {"index-url", "extra-index-url", "no-index", "find-links", "constraint"}
_CONNECTION = {"trusted-host", "cert", "proxy", "timeout", "default-timeout"}
_LEAST_WEIGHT_FIRST = ("global", "user", "site", "install", ":env:")


def settings() -> dict[str, str]:
    """Return pip's settings by name, those that weigh more over those that weigh less."""
    command = [sys.executable, "-m", "pip", "config", "list"]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    found: dict[str, dict[str, str]] = {}
    for line in lines:
        name, _, value = line.partition("=")
        section, _, option = name.rpartition(".")
        found.setdefault(section, {})[option] = ast.literal_eval(value)
    merged: dict[str, str] = {}
    for section in _LEAST_WEIGHT_FIRST:
        merged |= found.get(section, {})
    return {name: value for name, value in merged.items() if name in _PLACES | _CONNECTION}


def local_paths(found: dict[str, str]) -> list[Path]:
    """Return the files and folders of this machine that the settings name, each once.

    The pages of an index link to files beside it, so that the folder around it is taken.
    """
    paths: dict[Path, None] = {}
    for name, value in found.items():
        for word in value.split():
            path = Path(word.removeprefix("file://"))
            if path.is_absolute() and path.exists():
                paths[path.parent if name.endswith("index-url") else path] = None
    return list(paths)


def main(conf: Path) -> None:
    """Write `conf`, and print the volumes."""
    found = settings()
    lines = [f"{name} = " + "\n    ".join(value.split()) for name, value in found.items()]
    conf.write_text("\n".join(["[global]", "quiet = 2", *lines, ""]), encoding="utf-8")
    for path in local_paths(found):
        print("--volume", f"{path}:{path}:ro", sep="\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
