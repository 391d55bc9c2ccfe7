"""Links that lead nowhere are found, each with a sentence; those that lead somewhere are let pass."""

from __future__ import annotations

from pathlib import Path

import pytest
from scripts.check_links import ROOT, dead_links, parse


def write(root: Path, pages: dict[str, str]) -> list[str]:
    """Write files of these texts, and return what is said of them."""
    for name, text in pages.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return list(dead_links(root))


DOCS = "docs"
"""Apart from the rest, so that the paths here are not taken for mentions of pages."""

ALIVE = {
    "README.md": f"# Top\n\n[a]({DOCS}/a.md) [a](/{DOCS}/a.md#two-words) [up](#top)\n"
    f"<img src='{DOCS}/images/p.png'>",
    f"{DOCS}/a.md": "# Two words\n\n[home](../README.md) [site](https://example.com/nonesuch) <me@example.com>",
    f"{DOCS}/images/p.png": "",
    "src/code.py": f"# {DOCS}/a.md#two-words has more; http://localhost/docs/nonesuch.md is a server's.",
}


def test_links_that_lead_somewhere_are_let_pass(tmp_path: Path) -> None:
    assert write(tmp_path, ALIVE) == []


@pytest.mark.parametrize(
    ("page", "text"),
    [
        ("README.md", f"[a]({DOCS}/b.md)"),
        ("README.md", f"[a][there]\n\n[there]: {DOCS}/b.md"),
        ("README.md", f"![p]({DOCS}/images/P.png)"),
        ("README.md", f"<a href='{DOCS}/b.md'>b</a>"),
        ("README.md", f"text <img src='{DOCS}/images/q.png'>"),
        ("README.md", f"| a |\n|---|\n| [a]({DOCS}/b.md) |"),
        (f"{DOCS}/a.md", "# One\n\n[two](#two)"),
        (f"{DOCS}/a.md", "# One\n\n[two](../README.md#one)"),
        (f"{DOCS}/a.md", "[outside](../../elsewhere.md)"),
        (f"{DOCS}/a.md", "[case](../readme.md)"),
        ("src/code.py", f"# see {DOCS}/b.md"),
        ("src/code.py", f"# see {DOCS}/a.md#three-words"),
        (f"{DOCS}/images/q.png", ""),
    ],
)
def test_what_is_dead_is_named(tmp_path: Path, page: str, text: str) -> None:
    before = ALIVE.get(page, "") + "\n\n" if page.endswith(".md") else ""
    (sentence,) = write(tmp_path, ALIVE | {page: before + text})
    assert sentence.startswith(page)


def test_links_in_code_are_text(tmp_path: Path) -> None:
    text = ALIVE[f"{DOCS}/a.md"] + "\n\n`[a](b.md)`\n\n```\n[a](b.md)\n# Three\n```\n"
    assert write(tmp_path, ALIVE | {f"{DOCS}/a.md": text}) == []


@pytest.mark.parametrize(
    ("heading", "anchor"),
    [
        ("Where it goes, and *why*", "where-it-goes-and-why"),
        ("`personalive batch` – many", "personalive-batch--many"),
        ("A [link](b.md)", "a-link"),
        ("GET /api/v1/sessions/{session_id}", "get-apiv1sessionssession_id"),
        ("Grüße", "grüße"),
    ],
)
def test_anchors_are_githubs(heading: str, anchor: str) -> None:
    assert parse(f"# {heading}\n\n# {heading}\n").anchors == {anchor, f"{anchor}-1"}


def test_the_documentation_has_no_dead_link() -> None:
    assert list(dead_links(ROOT)) == []
