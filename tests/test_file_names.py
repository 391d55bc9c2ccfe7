from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from personalive.file_names import make_portable, shorten, windows_name_error


@given(st.text(st.characters(exclude_categories=())), st.integers(0, 60), st.booleans())
def test_a_cut_name_is_short_and_of_whole_characters(name: str, most: int, keep_end: bool) -> None:
    cut = shorten(name, most, keep_end=keep_end)
    assert len(cut.encode("utf-8", "surrogatepass")) <= most
    assert len(cut.encode("utf-16-le", "surrogatepass")) // 2 <= most
    assert name.endswith(cut) if keep_end else name.startswith(cut)
    assert cut == name or len(name.encode("utf-8", "surrogatepass")) > most


def test_nothing_is_cut_that_need_not_be() -> None:
    assert shorten("\N{GRINNING FACE}" * 5, 9) == "\N{GRINNING FACE}" * 2
    assert shorten("öaö", 4, keep_end=True) == "aö"
    undecodable = os.fsdecode(b"caf\xe9")
    assert shorten(undecodable, 180) == undecodable


@pytest.mark.parametrize(
    "name",
    ["CON", "nul.mp4", "Com1.tar.gz", "LPT¹", "a:b.mp4", "what?.mp4", "a.", "a ", 'say "x".mp4', "a\tb"],
)
def test_names_that_windows_refuses(name: str) -> None:
    assert "Windows" in (windows_name_error(name) or "")
    assert windows_name_error(make_portable(name)) is None


@pytest.mark.parametrize(
    "name", ["out.mp4", ".out.mp4.resume", "console.mp4", "COM10.mp4", "ünï côdé.webm", ".con"]
)
def test_names_that_it_takes(name: str) -> None:
    assert windows_name_error(name) is None
    assert make_portable(name) == name
