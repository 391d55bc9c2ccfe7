"""An SDP text as sections with attributes: what the rules of offers and answers are about."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from personalive.server.errors import BadRequestError

Attributes = dict[str, list[str]]
"""Values of `a=` lines by name, in their order; empty text where a line has no value."""

_LINE_END = re.compile(r"\r\n|\n|\r")
_MEDIA_LINE = re.compile(r"m=([\w-]+) (\d{1,5})(?:/\d+)? ([\w/]+)((?: [\w./+-]+)*)")


@dataclass(slots=True)
class Section:
    """A media section: what its `m=` line says, and its attributes."""

    index: int
    kind: str
    port: int
    protocol: str
    formats: tuple[str, ...]
    attributes: Attributes = field(default_factory=dict)

    def first(self, name: str) -> str | None:
        """The first value of an attribute, None where there is no such line."""
        return next(iter(self.attributes.get(name, ())), None)

    def has(self, name: str) -> bool:
        """Whether there is such a line."""
        return name in self.attributes

    @property
    def mid(self) -> str | None:
        """Its name, None where it has none."""
        return self.first("mid") or None


@dataclass(slots=True)
class Description:
    """A whole SDP text."""

    attributes: Attributes
    sections: list[Section]

    def inherited(self, section: Section, name: str) -> list[str]:
        """A section's values of an attribute, else those that the session has for all sections."""
        return section.attributes.get(name) or self.attributes.get(name, [])

    def first(self, section: Section, name: str) -> str | None:
        """The first of them."""
        return next(iter(self.inherited(section, name)), None)

    @property
    def bundle(self) -> list[str]:
        """The mids of the first BUNDLE group, the tagged one first."""
        groups = (value.split() for value in self.attributes.get("group", ()))
        return next((words[1:] for words in groups if words and words[0] == "BUNDLE"), [])


def parse(text: str) -> Description:
    """Read an SDP text, whatever ends its lines. Raises `BadRequestError` for what is none."""
    lines = [line.strip() for line in _LINE_END.split(text) if line.strip()]
    if not lines or lines[0] != "v=0":
        raise BadRequestError("The offer is no SDP: it does not begin with v=0.")
    description = Description({}, [])
    attributes = description.attributes
    for line in lines:
        if line.startswith("m="):
            section = _section(len(description.sections), line)
            description.sections.append(section)
            attributes = section.attributes
        elif line.startswith("a="):
            name, _, value = line[2:].partition(":")
            attributes.setdefault(name, []).append(value.strip())
    return description


def _section(index: int, line: str) -> Section:
    found = _MEDIA_LINE.fullmatch(line)
    if found is None:
        raise BadRequestError(f"The offer's SDP is malformed: {line[:80]!r} is no media section.")
    return Section(index, found[1], int(found[2]), found[3], tuple(found[4].split()))


def blocks(text: str) -> Iterator[list[str]]:
    """The lines of a well-formed SDP text: those of the session, then those of each section."""
    lines = text.splitlines()
    begins = [0, *(index for index, line in enumerate(lines) if line.startswith("m=")), len(lines)]
    for begin, end in itertools.pairwise(begins):
        yield lines[begin:end]
