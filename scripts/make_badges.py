"""Write the badges of README from pyproject.toml, as files, so that no service has to draw them.

python scripts/make_badges.py            # writes docs/images/badge-*.svg
python scripts/make_badges.py --check    # exits 1 where one is stale
"""

from __future__ import annotations

import argparse
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "docs/images"
CHARACTER, MARGIN, HEIGHT = 6.6, 8, 20
"""Pixels: of a character at 11 px, on each side of a text, and of the whole. `textLength` holds text to it."""

BADGE = """\
<svg xmlns="http://www.w3.org/2000/svg" width="{width:g}" height="{height}" role="img" aria-label="{name}: {value}">
<title>{name}: {value}</title>
<clipPath id="r"><rect width="{width:g}" height="{height}" rx="3"/></clipPath>
<g clip-path="url(#r)">
<rect width="{left:g}" height="{height}" fill="#444"/>
<rect x="{left:g}" width="{right:g}" height="{height}" fill="{colour}"/>
</g>
<g fill="#fff" font-family="Verdana,DejaVu Sans,sans-serif" font-size="11">
<text x="{margin}" y="14" textLength="{name_width:g}">{name}</text>
<text x="{value_x:g}" y="14" textLength="{value_width:g}">{value}</text>
</g>
</svg>
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 where a badge is stale")
    check: bool = parser.parse_args().check
    stale = [
        (path, text)
        for path, text in badges().items()
        if not path.exists() or path.read_text(encoding="utf-8") != text
    ]
    for path, text in stale:
        if check:
            print(f"{path.relative_to(ROOT)} is stale: run python scripts/make_badges.py", file=sys.stderr)
        else:
            path.write_text(text, encoding="utf-8", newline="\n")
    return int(check and bool(stale))


def badges() -> dict[Path, str]:
    """Return the text of each badge by its path."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    prefix = "Programming Language :: Python :: 3."
    minors = [line.removeprefix(prefix) for line in project["classifiers"] if line.startswith(prefix)]
    versions = " | ".join(f"3.{minor}" for minor in sorted(minors, key=int))
    return {
        FOLDER / "badge-licence.svg": badge("licence", project["license"], "#2a7d4f"),
        FOLDER / "badge-python.svg": badge("Python", versions, "#2b5f9e"),
    }


def badge(name: str, value: str, colour: str) -> str:
    """Return an SVG with a name on grey and a value on a colour."""
    name_width, value_width = len(name) * CHARACTER, len(value) * CHARACTER
    left, right = name_width + 2 * MARGIN, value_width + 2 * MARGIN
    return BADGE.format(
        name=name,
        value=value,
        colour=colour,
        width=left + right,
        height=HEIGHT,
        left=left,
        right=right,
        margin=MARGIN,
        name_width=name_width,
        value_width=value_width,
        value_x=left + MARGIN,
    )


if __name__ == "__main__":
    sys.exit(main())
