from __future__ import annotations

import re
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from personalive.serving.page import INDEX, assets, index


def test_the_page_has_its_files_and_no_script_within() -> None:
    found = assets()
    text = index("1.2.3", "The preview pipeline is loaded.").decode()
    assert "1.2.3" in text
    assert "The preview pipeline is loaded." in text
    assert '"/docs"' in text
    assert not re.search(r"<script(?![^>]*\ssrc=)", text)
    assert "style=" not in text
    for name in re.findall(r'"/assets/([^"]+)"', text):
        assert name in found
    assert found[INDEX].type == "text/html; charset=utf-8"
    assert found["page.css"].type == "text/css; charset=utf-8"
    assert found["icon.svg"].type.startswith("image/svg+xml")


def test_what_it_says_is_text_not_html() -> None:
    assert b"<img" not in index("1", '<img src=x onerror="alert(1)">')


@pytest.mark.parametrize(
    "name", ["", ".", "..", "/", "../settings.py", "./page.css", "/page.css", "page.css/", "PAGE.CSS"]
)
def test_only_exact_names_are_files(name: str) -> None:
    assert name not in assets()


@given(st.text())
def test_no_other_name_is_a_file(name: str) -> None:
    assert name not in assets() or re.fullmatch(r"[\w-]+(/[\w-]+)*\.\w+", name)
    assert quote("../" + name) not in assets()
