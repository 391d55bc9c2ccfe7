"""File names made from other names: short enough, and allowed, on every system."""

from __future__ import annotations

import re

_RESERVED = re.compile(
    r"(CON|PRN|AUX|NUL|CONIN\$|CONOUT\$|(COM|LPT)[0-9¹²³])\s*(\..*)?", re.IGNORECASE | re.DOTALL
)
_FORBIDDEN = re.compile(r'[<>:"/\\|?*\x00-\x1f]')


def shorten(name: str, max_bytes: int, *, keep_end: bool = False) -> str:
    """Return the beginning, or the end, of a name that takes at most `max_bytes` bytes, cut between characters.

    Systems count bytes (Linux) or units of UTF-16 (Windows, macOS), of which there are never more than bytes.
    """
    while _byte_length(name) > max_bytes:
        excess = max((_byte_length(name) - max_bytes) // 4, 1)  # no character takes more than four
        name = name[excess:] if keep_end else name[:-excess]
    return name


def _byte_length(name: str) -> int:
    # Undecodable bytes of a name, which Python keeps as surrogates, count as three, so never too few.
    return len(name.encode("utf-8", "surrogatepass"))


def windows_name_error(name: str) -> str | None:
    """Return why Windows does not accept this name, or None if it does."""
    if _RESERVED.fullmatch(name):
        return "Windows reserves that name for a device"
    if found := _FORBIDDEN.search(name):
        return f"Windows does not allow {found[0]!r} in names"
    if name.endswith((".", " ")) and name not in {".", ".."}:
        return "Windows removes dots and spaces at the end of names"
    return None


def make_portable(name: str) -> str:
    """Return the name in a form that every system accepts; most names stay as they are."""
    name = _FORBIDDEN.sub("_", name).rstrip(". ") or "_"
    return f"_{name}" if _RESERVED.fullmatch(name) else name
