"""The names and the words of the source."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.test_docs import AVOIDED

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src/personalive"
FOLDERS = ("src", "tests", "benchmarks", "scripts", "integrations")
MODULES = sorted(SOURCE.rglob("*.py"))


def words_of(text: str) -> Iterator[tuple[int, str]]:
    """Return a module's strings and comments with the lines that they begin in, each without line breaks."""
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type in {tokenize.STRING, tokenize.COMMENT}:
            yield token.start[0], re.sub(r"\s+(#\s*)?", " ", token.string)


def test_no_two_public_classes_share_a_name() -> None:
    places: dict[str, list[str]] = defaultdict(list)
    for module in MODULES:
        for node in ast.parse(module.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places[node.name].append(module.relative_to(SOURCE).as_posix())
    assert len(places) > 200
    assert {name: found for name, found in places.items() if len(found) > 1} == {}


@pytest.mark.parametrize("folder", FOLDERS)
def test_docstrings_comments_and_messages_use_plain_words(folder: str) -> None:
    modules = sorted((ROOT / folder).rglob("*.py"))
    assert len(modules) > 2
    found = [
        f"{module.relative_to(ROOT)}:{line}: {match[0]!r}"
        for module in modules
        if module.name not in {"test_names.py", "test_docs.py"}  # they name the words
        for line, text in words_of(module.read_text(encoding="utf-8"))
        for match in AVOIDED.finditer(text)
    ]
    assert found == []


def test_words_are_found_over_line_breaks_in_docstrings() -> None:
    text = '"""Look at it\nanew, so\n    many times."""\n# of its\nx = 1\n'
    assert [AVOIDED.findall(words) for _, words in words_of(text)] == [["anew", "so many"], []]
