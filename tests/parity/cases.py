"""Which cases are checked: those in the tests' data, and those of the folder `PERSONALIVE_PARITY_DIR`.

A case is a JSON file beside the arrays it names, of kind "unet" or "stream".
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.pipelines.diffusion.figures import DATA

FOLDER = "PERSONALIVE_PARITY_DIR"


def case_files(kind: str) -> list[object]:
    """The cases of that kind, as parameters of a test."""
    extra = os.environ.get(FOLDER)
    folders = [DATA, *([Path(extra)] if extra else [])]
    found: dict[str, Path] = {}
    for folder in folders:
        for path in sorted(folder.glob("*.json")):
            facts = json.loads(path.read_text())
            if isinstance(facts, dict) and facts.get("kind") == kind:
                found.setdefault(f"{path.stem}-{facts['salt']}".rstrip("-/"), path)
    return [pytest.param(path, id=name) for name, path in found.items()]
