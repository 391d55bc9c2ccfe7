"""Parse an SDP text into media sections with attributes."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from personalive.server.errors import BadRequestError

Attributes = dict[str, list[str]]
"""The values of `a=` lines by name, in their order; an empty text where a line has no value."""

_LINE_END = re.compile(r"\r\n|\n|\r")
_MEDIA_LINE = re.compile(r"m=([\w-]+) (\d{1,5})(?:/\d+)? ([\w/]+)((?: [\w./+-]+)*)")


@dataclass(slots=True)
class MediaSection:
    """A media section: the parts of its `m=` line, and its attributes."""

    index: int
    kind: str
    port: int
    protocol: str
    formats: tuple[str, ...]
    attributes: Attributes = field(default_factory=dict)

    def get_first(self, name: str) -> str | None:
        """Return the first value of an attribute, None where there is no such line."""
        return next(iter(self.attributes.get(name, ())), None)

    def has_attribute(self, name: str) -> bool:
        """Return whether the section has a line with this attribute."""
        return name in self.attributes

    @property
    def mid(self) -> str | None:
        """The section's mid, None where it has none."""
        return self.get_first("mid") or None


@dataclass(slots=True)
class SessionDescription:
    """A parsed SDP text: the session's attributes and the media sections."""

    attributes: Attributes
    sections: list[MediaSection]

    def get_all(self, section: MediaSection, name: str) -> list[str]:
        """Return a section's values of an attribute, or else the session's, which hold for all sections."""
        return section.attributes.get(name) or self.attributes.get(name, [])

    @property
    def bundle(self) -> list[str]:
        """The mids of the first BUNDLE group, the tagged one first."""
        groups = (value.split() for value in self.attributes.get("group", ()))
        return next((words[1:] for words in groups if words and words[0] == "BUNDLE"), [])


def parse_sdp(text: str) -> SessionDescription:
    """Parse an SDP text with any kind of line ends. Raises `BadRequestError` where it is no SDP."""
    lines = [line.strip() for line in _LINE_END.split(text) if line.strip()]
    if not lines or lines[0] != "v=0":
        raise BadRequestError("The offer is no SDP: it does not begin with v=0.")
    description = SessionDescription({}, [])
    attributes = description.attributes
    for line in lines:
        if line.startswith("m="):
            section = _parse_media_line(len(description.sections), line)
            description.sections.append(section)
            attributes = section.attributes
        elif line.startswith("a="):
            name, _, value = line[2:].partition(":")
            attributes.setdefault(name, []).append(value.strip())
    return description


def _parse_media_line(index: int, line: str) -> MediaSection:
    found = _MEDIA_LINE.fullmatch(line)
    if found is None:
        raise BadRequestError(f"The offer's SDP is malformed: {line[:80]!r} is no media section.")
    return MediaSection(index, found[1], int(found[2]), found[3], tuple(found[4].split()))


def split_sections(text: str) -> Iterator[list[str]]:
    """Yield the lines of a well-formed SDP text: those of the session, then those of each section."""
    lines = text.splitlines()
    begins = [0, *(index for index, line in enumerate(lines) if line.startswith("m=")), len(lines)]
    for begin, end in itertools.pairwise(begins):
        yield lines[begin:end]
