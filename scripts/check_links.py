"""Check that what the documentation links to is there: files, anchors, pictures, and paths that the code mentions.

    python scripts/check_links.py          # prints what is dead, and exits 1 if anything is

The network is not used: addresses of other sites are not followed. A picture in docs/images that no page shows
counts as lost.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

from markdown_it import MarkdownIt
from markdown_it.token import Token

ROOT = Path(__file__).resolve().parent.parent
IMAGES = "docs/images"
SOURCES = ("src", "tests", "scripts", "benchmarks", "integrations", ".ci", "docs")
SUFFIXES = {".py", ".md", ".toml", ".yaml", ".yml", ".js", ".html", ".css", ".example", ""}
MENTION = re.compile(r"(?<![\w/.-])docs/[\w./-]*\w\.(?:md|jpg|png|webp|gif|svg)(#[\w-]+)?")
ELSEWHERE = re.compile(r"[a-z][a-z0-9+.-]*:|//")


@dataclass
class Page:
    """What a page links to and what else it says, with the line of each, and the anchors that it has."""

    links: list[tuple[int, str]] = field(default_factory=list)
    texts: list[tuple[int, str]] = field(default_factory=list)
    anchors: set[str] = field(default_factory=set)

    def add_heading(self, text: str) -> None:
        """Add the anchor that GitHub gives a heading: a number is appended to one that is there already."""
        slug = re.sub(r"[^\w\- ]", "", text.strip().lower()).replace(" ", "-")
        number, anchor = 0, slug
        while anchor in self.anchors:
            number += 1
            anchor = f"{slug}-{number}"
        self.anchors.add(anchor)


class _Tags(HTMLParser):
    """Collect links, pictures and anchors of HTML within a page."""

    def __init__(self, page: Page, line: int) -> None:
        super().__init__()
        self.page, self.line = page, line

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if value and name in {"href", "src"}:
                self.page.links.append((self.line, value))
            elif value and (name == "id" or (name == "name" and tag == "a")):
                self.page.anchors.add(value)


def parse(text: str) -> Page:
    """Return the links and anchors of a page in GitHub's Markdown."""
    page = Page()
    tokens = MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(text)
    for number, token in enumerate(tokens):
        line = (token.map or [0])[0] + 1
        if token.type == "heading_open":
            page.add_heading(plain(tokens[number + 1]))
        elif token.type == "html_block":
            _Tags(page, line).feed(token.content)
        elif token.type in {"fence", "code_block"}:
            page.texts += enumerate(token.content.splitlines(), start=line + 1)
        for inner in token.children or []:
            if inner.type == "html_inline":
                _Tags(page, line).feed(inner.content)
            elif inner.type in {"text", "code_inline"}:
                page.texts.append((line, inner.content))
            elif target := inner.attrs.get("href") or inner.attrs.get("src"):
                page.links.append((line, str(target)))
    return page


def plain(inline: Token) -> str:
    """Return what is read of a heading, without marks and addresses."""
    return "".join(each.content for each in inline.children or [] if each.type in {"text", "code_inline"})


def is_there(path: Path, root: Path) -> bool:
    """Return whether a path below `root` exists, spelled as on disk: some systems take other cases for the same."""
    try:
        parts = path.relative_to(root).parts
    except ValueError:
        return False
    folder = root
    for part in parts:
        if not folder.is_dir() or part not in {each.name for each in folder.iterdir()}:
            return False
        folder /= part
    return True


def pages(root: Path) -> dict[Path, Page]:
    found = [*root.glob("*.md")]
    for folder in SOURCES:
        found += (root / folder).rglob("*.md")
    return {path: parse(path.read_text(encoding="utf-8")) for path in sorted(found)}


def resolve(link: str, path: Path, root: Path) -> tuple[Path, str]:
    """Return the file that a link of the page at `path` leads to, and the anchor within it."""
    target, _, anchor = link.partition("#")
    target = unquote(target)
    if not target:
        return path, anchor
    joined = root / target.lstrip("/") if target.startswith("/") else path.parent / target
    parts: list[str] = []
    for part in joined.parts:
        if part == "..":
            parts.pop()
        elif part != ".":
            parts.append(part)
    return Path(*parts), anchor


def fault_of(target: Path, anchor: str, root: Path, known: dict[Path, Page]) -> str | None:
    """Return why nobody arrives at an anchor ("" for none) of a file, or None where one does."""
    if not is_there(target, root):
        return "there is no such file in the repository"
    if anchor and target in known and anchor not in known[target].anchors:
        return f"{target.relative_to(root)} has no heading of this anchor"
    return None


def dead_links(root: Path) -> Iterator[str]:
    """Give a sentence for each link that leads nowhere, and for each picture that is lost."""
    known = pages(root)
    shown = set()
    for path, page in known.items():
        for line, link in page.links:
            if ELSEWHERE.match(link):
                continue
            target, anchor = resolve(link, path, root)
            shown.add(target)
            if fault := fault_of(target, unquote(anchor), root, known):
                yield f"{path.relative_to(root)}:{line}: {link}: {fault}"
    for picture in sorted((root / IMAGES).glob("*")):
        if picture not in shown:
            yield f"{picture.relative_to(root)}: no page shows this picture"
    yield from dead_mentions(root, known)


def dead_mentions(root: Path, known: dict[Path, Page]) -> Iterator[str]:
    """Give a sentence for each path in docs/ that a file names without a link, and that is not there."""
    files = [path for path in root.glob("*") if path.is_file()]
    for folder in SOURCES:
        files += (path for path in (root / folder).rglob("*") if path.is_file())
    for path in sorted(files):
        if path.suffix not in SUFFIXES:
            continue
        for number, line in texts_of(path, known):
            for match in MENTION.finditer(line):
                target, anchor = resolve("/" + match[0], path, root)
                if fault := fault_of(target, anchor, root, known):
                    yield f"{path.relative_to(root)}:{number}: {match[0]}: {fault}"


def texts_of(path: Path, known: dict[Path, Page]) -> list[tuple[int, str]]:
    """Return what a file says line by line: all of it, or of a page what is neither link nor picture."""
    if path in known:
        return known[path].texts
    try:
        return list(enumerate(path.read_text(encoding="utf-8").splitlines(), start=1))
    except UnicodeDecodeError:
        return []


def main() -> int:
    argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0]).parse_args()
    dead = list(dead_links(ROOT))
    for sentence in dead:
        print(sentence, file=sys.stderr)
    return int(bool(dead))


if __name__ == "__main__":
    sys.exit(main())
