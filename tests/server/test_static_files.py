from __future__ import annotations

import posixpath
import re
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from personalive.server.static_files import DOCS_FILE, INDEX_FILE, STAGE_FILE, load_assets, render_index


@pytest.mark.parametrize(
    "text",
    [
        render_index("1.2.3").decode(),
        *(load_assets()[name].content.decode() for name in (STAGE_FILE, DOCS_FILE)),
    ],
)
def test_the_pages_have_their_files_and_nothing_within(text: str) -> None:
    """Neither scripts nor styles stand in the page: its security policy forbids both."""
    assert not re.search(r"<script(?![^>]*\ssrc=)|<style|style=|\son\w+=", text)
    named = re.findall(r'(?:src|href)="([^"#]+)', text)
    assert all(name.startswith("/") for name in named)
    for name in named:
        if name.startswith("/assets/"):
            assert name.removeprefix("/assets/") in load_assets()


def test_modules_and_styles_name_only_files_that_are_there() -> None:
    for name, asset in load_assets().items():
        if name.endswith((".js", ".css")) and not name.startswith("docs/"):
            for named in re.findall(r"""(?:from |import |url\()["'](\S+?)["']""", asset.content.decode()):
                assert (
                    posixpath.normpath(posixpath.join("/assets", posixpath.dirname(name), named))[8:]
                    in load_assets()
                )


def test_the_page_tells_the_version() -> None:
    assert "1.2.3" in render_index("1.2.3").decode()
    assert b"<b>" not in render_index("<b>1.2.3</b>")


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        (INDEX_FILE, "text/html; charset=utf-8"),
        ("css/base.css", "text/css; charset=utf-8"),
        ("js/main.js", "text/javascript; charset=utf-8"),
        ("icon.svg", "image/svg+xml; charset=utf-8"),
        ("fonts/hanken-grotesk.woff2", "font/woff2"),
    ],
)
def test_files_have_their_types(name: str, kind: str) -> None:
    assert load_assets()[name].type == kind


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "/",
        "../settings.py",
        "./css/base.css",
        "/css/base.css",
        "css/base.css/",
        "CSS/BASE.CSS",
    ],
)
def test_only_exact_names_are_files(name: str) -> None:
    assert name not in load_assets()


@given(st.text())
def test_no_other_name_is_a_file(name: str) -> None:
    assert name not in load_assets() or re.fullmatch(r"[\w-]+(/[\w-]+)*\.\w+", name)
    assert quote("../" + name) not in load_assets()
