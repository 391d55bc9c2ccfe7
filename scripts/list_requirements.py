"""Print what the package and some of its extras require, a line each: for layers that hold nothing but these.

python3 scripts/list_requirements.py server,diffusion
"""

from __future__ import annotations

import argparse
import tomllib
from pathlib import Path


def list_requirements(project: Path, extras: list[str]) -> list[str]:
    """Return the requirements in `project`, a pyproject.toml, with those of the extras.

    Raises `KeyError` for an extra that it has not.
    """
    table = tomllib.loads(project.read_text(encoding="utf-8"))["project"]
    optional = table["optional-dependencies"]
    return [*table["dependencies"], *(line for extra in extras for line in optional[extra])]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("extras", help="names of extras, with commas between them")
    print("\n".join(list_requirements(Path("pyproject.toml"), parser.parse_args().extras.split(","))))
