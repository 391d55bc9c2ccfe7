"""The packaged web page. Its files are read once and found by exact name, so no request reads the disk."""

from __future__ import annotations

import hashlib
import html
import mimetypes
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from string import Template

INDEX_FILE, STAGE_FILE, DOCS_FILE = "index.html", "stage.html", "docs.html"
SAMPLES_PREFIX = "samples/"
"""The prefix of the package's sample portrait and driving clip."""
_API_VIEWER_FILES = ("swagger-ui-bundle.js", "swagger-ui.css")
"""The files of the API viewer, which are found below `docs/`."""
_MEDIA_TYPES = {
    ".html": "text/html",
    ".css": "text/css",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
    ".woff2": "font/woff2",
}
_TEXT_TYPES = ("text/", "image/svg")


@dataclass(frozen=True, slots=True)
class Asset:
    """A file of the page."""

    content: bytes
    type: str
    etag: str


@cache
def load_assets() -> dict[str, Asset]:
    """Return the files of the page, the samples and the API's viewer, by their paths below the assets' URL."""
    package = files("personalive")
    own = _load_folder(package / "server" / "web", "") + _load_folder(package / "samples", SAMPLES_PREFIX)
    viewer = files("fastapi_offline") / "static"
    return dict(own) | {
        f"docs/{name}": _make_asset(name, (viewer / name).read_bytes()) for name in _API_VIEWER_FILES
    }


def _load_folder(folder: Traversable, prefix: str) -> list[tuple[str, Asset]]:
    found: list[tuple[str, Asset]] = []
    for entry in sorted(folder.iterdir(), key=lambda entry: entry.name):
        if entry.is_dir():
            found += _load_folder(entry, f"{prefix}{entry.name}/")
        else:
            found.append((prefix + entry.name, _make_asset(entry.name, entry.read_bytes())))
    return found


def _make_asset(name: str, content: bytes) -> Asset:
    suffix = "." + name.rpartition(".")[2]
    kind = _MEDIA_TYPES.get(suffix) or mimetypes.guess_type(name)[0] or "application/octet-stream"
    if kind.startswith(_TEXT_TYPES):
        kind += "; charset=utf-8"
    return Asset(content, kind, f'"{hashlib.sha256(content).hexdigest()[:16]}"')


def render_index(version: str) -> bytes:
    """Return the page with the server's version filled in."""
    return (
        Template(load_assets()[INDEX_FILE].content.decode()).substitute(version=html.escape(version)).encode()
    )
