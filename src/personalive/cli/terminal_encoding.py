"""Output on terminals that lack some characters: prints simpler ones instead, and never a traceback."""

from __future__ import annotations

import codecs
import sys
import unicodedata

_ERROR_HANDLER = "personalive.plainly"
_ASCII_STAND_INS = str.maketrans(
    {
        "×": "x", "…": "...", "–": "-", "—": "-", "−": "-", "·": "-", "•": "*", "→": "->", "←": "<-", "≈": "~",
        "≤": "<=", "≥": ">=", "±": "+-", "“": '"', "”": '"', "„": '"', "‘": "'", "’": "'", "µ": "u", "°": " deg",
        "│": "|", "─": "-", "┃": "|", "━": "-", "█": "#", "╸": "-", "╺": "-",
        **dict.fromkeys("╭╮╰╯┌┐└┘├┤┬┴┼┏┓┗┛", "+"),
    }
)  # fmt: skip


def tolerate_unencodable() -> None:
    """Make stdout and stderr replace characters that their encoding lacks, and undecodable bytes of file names."""
    codecs.register_error(_ERROR_HANDLER, _replace_unencodable)
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)  # None without a console, or one that was replaced
        if reconfigure is not None:
            reconfigure(errors=_ERROR_HANDLER)


def _replace_unencodable(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end]
    return "".join(map(_to_ascii, text)), error.end


def _to_ascii(character: str) -> str:
    """Return ASCII for a character: a known replacement, its letter without marks, or a question mark."""
    known = character.translate(_ASCII_STAND_INS)
    if known.isascii():
        return known
    letters = unicodedata.normalize("NFKD", character).encode("ascii", "ignore").decode()
    return letters or "?"
