"""Limits on the size of an SDP offer or fragment, checked before it is parsed.

The WebRTC library's parser runs on the event loop, searches all codecs for each line about one, and makes a
transport for each media section. So an SDP that no browser sends could block the server for minutes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from personalive.server.errors import BadRequestError

MAX_SDP_CHARACTERS = 64_000
"""Characters of an SDP. Browsers' offers have 5,000 to 20,000."""
MAX_CANDIDATES = 50
"""ICE candidates of a session, and of one request: packets are sent to each for half a minute."""

_MAX_LINES = 1200
_MAX_LINE_CHARACTERS = 2000
_MAX_SECTIONS = 6
_MAX_ATTRIBUTES_PER_SECTION = {
    "rtpmap": 96,
    "fmtp": 96,
    "rtcp-fb": 240,
    "ssrc": 96,
    "ssrc-group": 32,
    "extmap": 64,
}
"""Lines of each attribute in a media section. Payload types have seven bits, and browsers use up to fifty."""
_MAX_PAYLOAD_TYPES = 128
_MAX_OTHER_ATTRIBUTES = 128
"""Lines of any other attribute in a media section."""
_MAX_CODEC_LOOKUPS = 32_000
"""Lines about codecs times codecs, summed over all sections."""


def check_sdp(sdp: str) -> None:
    """Raise `BadRequestError` for an SDP, or a fragment, that is larger than any client needs."""
    _require_at_most(len(sdp), MAX_SDP_CHARACTERS, "characters")
    # Split as the parser does, which also takes Unicode's further line ends.
    lines = sdp.splitlines()
    _require_at_most(len(lines), _MAX_LINES, "lines")
    _require_at_most(max(map(len, lines), default=0), _MAX_LINE_CHARACTERS, "characters in a line")
    begins = [number for number, line in enumerate(lines) if line.startswith("m=")]
    _require_at_most(len(begins), _MAX_SECTIONS, "media sections")
    lookups = sum(
        _count_codec_lookups(lines[begin:end])
        for begin, end in zip([0, *begins], [*begins, len(lines)], strict=True)
    )
    _require_at_most(lookups, _MAX_CODEC_LOOKUPS, "lines about codecs, times codecs")


def check_candidates(count: int) -> None:
    """Raise `BadRequestError` for more candidates in one body than a session takes."""
    if count > MAX_CANDIDATES:
        raise BadRequestError(
            f"The request has {count} candidates, and a session takes at most {MAX_CANDIDATES}."
        )


def _count_codec_lookups(section: list[str]) -> int:
    """Return how often the parser compares codecs. Raises `BadRequestError` where a section has too many lines."""
    if section and section[0].startswith("m="):
        _require_at_most(len(section[0].split()) - 3, _MAX_PAYLOAD_TYPES, "payload types in a media section")
    counts = Counter(_count_attributes(section))
    for name, count in counts.items():
        # Candidates are removed before parsing, and counted separately.
        if name != "candidate":
            most = _MAX_ATTRIBUTES_PER_SECTION.get(name, _MAX_OTHER_ATTRIBUTES)
            _require_at_most(count, most, f"lines of a={name[:40]} in a media section")
    return counts["rtpmap"] * (counts["fmtp"] + counts["rtcp-fb"])


def _count_attributes(section: Iterable[str]) -> Iterable[str]:
    return (line[2:].partition(":")[0] for line in section if line.startswith("a="))


def _require_at_most(count: int, limit: int, what: str) -> None:
    if count > limit:
        raise BadRequestError(
            f"The SDP is too large: it has {count} {what}, and at most {limit} are accepted."
        )
