"""What is printed on terminals that do not know all characters: plainer ones instead, and never a traceback."""

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
    """Let standard output and error replace what their encoding lacks, names of files that are no text among it."""
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
    """ASCII for a character: a known stand-in, its letter without marks, or a question mark."""
    known = character.translate(_ASCII_STAND_INS)
    if known.isascii():
        return known
    letters = unicodedata.normalize("NFKD", character).encode("ascii", "ignore").decode()
    return letters or "?"
