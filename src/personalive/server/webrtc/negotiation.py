"""What of an offer is taken, put to aiortc in the one form that it understands, and the answer in the offer's form.

aiortc refuses a whole offer for one section that it cannot use, matches H.264 by profile, and needs everything that
SDP lets out. So each section is looked at here: those that can be used go to aiortc, the others are answered with
port 0 (RFC 9429, RFC 8843).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from personalive.server.errors import BadRequestError
from personalive.server.webrtc.formats import (
    Format,
    formats_of,
    remedy,
    repairs,
    taken_in_words,
)
from personalive.server.webrtc.sdp import Section, blocks, parse
from personalive.server.webrtc.sdp_transport import Transports

_DIRECTIONS = ("sendrecv", "sendonly", "recvonly", "inactive")
_SENDING, _RECEIVING = frozenset({"sendonly", "sendrecv"}), frozenset({"recvonly", "sendrecv"})
_EXTENSIONS = frozenset(
    {
        "urn:ietf:params:rtp-hdrext:sdes:mid",
        "urn:ietf:params:rtp-hdrext:ssrc-audio-level",
        "http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time",
    }
)
_ANSWERED = {
    "H264": ("level-asymmetry-allowed", "packetization-mode", "profile-level-id"),
    "VP9": ("profile-id",),
    "AV1": ("profile", "level-idx", "tier"),
}
_SCTP_PORT, _MESSAGE_BYTES = "5000", "65536"
NO_VIDEO_SENT = "The offer sends no video: add the track that is to drive the reference."
NO_VIDEO_RECEIVED = "The offer receives no video: add a transceiver that does."


@dataclass(slots=True)
class _Part:
    """A section that is taken, under the name that aiortc is given for it."""

    section: Section
    mid: str
    direction: str
    formats: list[Format] = field(default_factory=list)


class Negotiation:
    """An offer, looked at: `sdp` is what aiortc is to answer, `complete` makes the client's answer of that."""

    def __init__(self, text: str, *, take: bool, send: bool) -> None:
        """`take` its video, and `send` it one.

        Raises `BadRequestError`, with what came, what is taken and what to do, where that cannot be.
        """
        self._offer = parse(text)
        self._transports = Transports(self._offer)
        self._require_names()
        self.notes: list[str] = []
        """Why sections were left out."""
        self._parts: list[_Part] = []
        sent = self._video(_RECEIVING, sendable=True) if send else None
        taken = self._video(_SENDING, sendable=sent is not None) if take else None
        for part in (taken, sent):
            if part is not None and all(part.section is not other.section for other in self._parts):
                self._parts.append(part)
        self.taken_mid = None if taken is None else taken.mid
        self.sent_mid = None if sent is None else sent.mid
        self._add_others(taken)
        self._parts.sort(key=lambda part: part.section.index)
        self.layers = 1 if taken is None else _layers(taken.section)
        """How many layers of its video the client would send; without a word of them in the answer, it is one."""
        self.sdp = self._normalized()

    # -- what is taken

    def _require_names(self) -> None:
        counts = Counter(section.mid for section in self._offer.sections if section.mid is not None)
        twice = next((mid for mid, count in counts.items() if count > 1), None)
        if twice is not None:
            raise BadRequestError(
                f"The offer's SDP is malformed: two sections have the name a=mid:{twice[:40]}."
            )

    def _video(self, directions: frozenset[str], *, sendable: bool) -> _Part:
        """The first video section of these directions that can be used."""
        receiving = directions is _RECEIVING
        objections: list[str] = []
        for section in self._offer.sections:
            if (
                section.kind != "video"
                or not self._transports.alive(section)
                or self._direction(section) not in directions
            ):
                continue
            formats = [one for one in formats_of(section) if one.receivable]
            sendables = [one for one in formats if one.sendable]
            if receiving:
                formats = sendables
            elif sendable and self._direction(section) == "sendrecv":
                formats = sendables or formats
            objection = self._transports.objection(section) or (
                None if formats else _no_format(section, receiving=receiving)
            )
            if objection is None:
                return self._part(section, formats)
            objections.append(objection)
        if objections:
            raise BadRequestError(objections[0])
        raise BadRequestError(NO_VIDEO_RECEIVED if receiving else NO_VIDEO_SENT)

    def _add_others(self, taken: _Part | None) -> None:
        """The first sound section and the first data channel, where they can be used; all else is left out."""
        kinds: set[str] = set()
        used = {part.section.index for part in self._parts}
        for section in self._offer.sections:
            if section.index in used:
                continue
            why = self._left_out(section, kinds, taken)
            if why is not None:
                self.notes.append(f"{section.kind} section {section.index}: {why}")
                continue
            kinds.add(section.kind)
            sound = [one for one in formats_of(section) if one.receivable]
            self._parts.append(self._part(section, sound if section.kind == "audio" else []))

    def _left_out(self, section: Section, kinds: set[str], taken: _Part | None) -> str | None:
        """Why a section is answered with port 0, None where it is taken."""
        if not self._transports.alive(section):
            return "it is switched off"
        if section.kind not in {"audio", "application"} or section.kind in kinds:
            return "one of its kind is used"
        objection = self._transports.objection(section)
        return (
            _sound_objection(section, taken) if objection is None and section.kind == "audio" else objection
        )

    def _part(self, section: Section, formats: list[Format]) -> _Part:
        named = section.mid is not None and re.fullmatch(r"[!#-~]{1,256}", section.mid) is not None
        mid = section.mid if named and section.mid is not None else f"section-{section.index}"
        return _Part(section, mid, self._direction(section), formats)

    def _direction(self, section: Section) -> str:
        for attributes in (section.attributes, self._offer.attributes):
            for name in _DIRECTIONS:
                if name in attributes:
                    return name
        return _DIRECTIONS[0]

    # -- what aiortc is given

    @property
    def _bundle(self) -> list[str]:
        """The mids that share a transport, of those that are taken."""
        taken = {part.mid for part in self._parts if part.section.mid is not None}
        return [mid for mid in dict.fromkeys(self._offer.bundle) if mid in taken]

    @property
    def ice_usernames(self) -> frozenset[str]:
        """The user names of the client's ICE."""
        sections = (section.attributes for section in self._offer.sections)
        return frozenset(
            name
            for attributes in (self._offer.attributes, *sections)
            for name in attributes.get("ice-ufrag", ())
        )

    def mid_of(self, mid: str | None, index: int | None) -> str | None:
        """Return the section of aiortc's that a candidate is for, None where that was left out.

        The client names its section, or says which it is; where it does neither, it has one transport.
        """
        offered = self._offer.sections
        section = next((each for each in offered if mid is not None and each.mid == mid), None)
        if section is None and (index or 0) < len(offered):
            section = offered[index or 0]
        if section is not None and section.mid in self._offer.bundle:
            return next(iter(self._bundle), None)
        return next((part.mid for part in self._parts if part.section is section), None)

    def _normalized(self) -> str:
        lines = ["v=0", "o=- 0 0 IN IP4 0.0.0.0", "s=-", "t=0 0"]
        if "ice-lite" in self._offer.attributes:
            lines.append("a=ice-lite")
        if self._bundle:
            lines.append(f"a=group:BUNDLE {' '.join(self._bundle)}")
        lines.append("a=msid-semantic:WMS *")
        for part in self._parts:
            lines += self._section_lines(part)
        return "\r\n".join(lines) + "\r\n"

    def _section_lines(self, part: _Part) -> list[str]:
        section = part.section
        lines = [f"a=mid:{part.mid}", *self._transports.lines(section, first=part.mid in self._bundle[:1])]
        if section.kind == "application":
            return [*_application_head(section), *lines, *_application_lines(section)]
        fixed = repairs(section, part.formats) if section.kind == "video" else []
        numbers = [one.payload_type for one in part.formats] + [number for number, _ in fixed]
        head = f"m={section.kind} 9 UDP/TLS/RTP/SAVPF {' '.join(map(str, numbers))}"
        lines += [f"a={part.direction}", "a=rtcp-mux", *_extensions(section), *_sources(section)]
        for one in part.formats:
            lines += one.lines()
        return [head, "c=IN IP4 0.0.0.0", *lines, *(line for _, given in fixed for line in given)]

    # -- what the client is answered

    def complete(self, answer: str) -> str:
        """The client's answer: each of its sections, in its order and under its names."""
        session, *answered = blocks(answer)
        by_index = {
            part.section.index: (part, lines) for part, lines in zip(self._parts, answered, strict=True)
        }
        group = f"a=group:BUNDLE {' '.join(self._bundle)}" if self._bundle else None
        out = [line for line in session if not line.startswith("a=group:")]
        if group is not None:
            out.insert(next((at for at, line in enumerate(out) if line.startswith("a=")), len(out)), group)
        for section in self._offer.sections:
            found = by_index.get(section.index)
            out += _refused(section) if found is None else _answered(*found)
        return "\r\n".join(out) + "\r\n"


def _no_format(section: Section, *, receiving: bool) -> str:
    offered = formats_of(section)
    if receiving:
        return (
            f"The offer receives video as {_listed(offered)} only; this server sends VP8 and H.264 "
            "(packetization-mode=1): offer one of them too."
        )
    return f"The offer's video is {_listed(offered)}; this server takes {taken_in_words()}. {remedy(offered)}"


def _sound_objection(section: Section, taken: _Part | None) -> str | None:
    offered = formats_of(section)
    usable = {one.payload_type for one in offered if one.receivable}
    if not usable:
        return f"sound as {_listed(offered)} is not taken"
    if taken is not None and usable & {one.payload_type for one in taken.formats}:
        return "it has a payload type of the video's"
    return None


def _listed(formats: Iterable[Format]) -> str:
    names = list(dict.fromkeys(str(one)[:120] for one in formats))[:6]
    return ", ".join(names) or "of no format that has a name"


def _layers(section: Section) -> int:
    """How many layers a simulcast offer sends, 1 where it is none."""
    given = section.first("simulcast") or ""
    found = re.search(r"\bsend (\S+)", given)
    return 1 if found is None else len(found[1].split(";"))


def _extensions(section: Section) -> list[str]:
    found = (re.fullmatch(r"(\d{1,3})(?:/\w+)? (\S+)", v) for v in section.attributes.get("extmap", ()))
    return [f"a=extmap:{one[1]} {one[2]}" for one in found if one is not None and one[2] in _EXTENSIONS]


def _sources(section: Section) -> list[str]:
    """The names of a section's RTP streams, by which a repaired packet finds the stream that it belongs to."""
    if _layers(section) > 1:
        return []
    lines = [
        f"a=msid:{value}"
        for value in section.attributes.get("msid", ())[:1]
        if re.fullmatch(r"\S+( \S+)?", value)
    ]
    groups = section.attributes.get("ssrc-group", ())
    lines += [f"a=ssrc-group:{value}" for value in groups if re.fullmatch(r"FID \d{1,10} \d{1,10}", value)]
    sources = section.attributes.get("ssrc", ())
    return lines + [f"a=ssrc:{value}" for value in sources if re.fullmatch(r"\d{1,10} cname:.*", value)]


def _application_head(section: Section) -> list[str]:
    legacy = section.protocol == "DTLS/SCTP" and section.formats and section.formats[0].isdecimal()
    head = f"DTLS/SCTP {section.formats[0]}" if legacy else "UDP/DTLS/SCTP webrtc-datachannel"
    return [f"m=application 9 {head}", "c=IN IP4 0.0.0.0"]


def _application_lines(section: Section) -> list[str]:
    port, size = section.first("sctp-port") or "", section.first("max-message-size") or ""
    lines = [f"a=max-message-size:{size if size.isdecimal() and len(size) < 10 else _MESSAGE_BYTES}"]
    if section.protocol == "DTLS/SCTP":
        maps = section.attributes.get("sctpmap", ())
        return lines + [f"a=sctpmap:{value}" for value in maps if re.fullmatch(r"\d{1,5} \S.*", value)]
    return [*lines, f"a=sctp-port:{port if port.isdecimal() and len(port) < 6 else _SCTP_PORT}"]


def _answered(part: _Part, lines: list[str]) -> list[str]:
    """aiortc's answer to a section, with the offer's protocol, names and parameters."""
    section, out = part.section, list(lines)
    if section.kind != "application":
        out[0] = re.sub(r"^(m=\w+ \d+) \S+", rf"\1 {section.protocol}", out[0])
    if section.mid is None:
        out = [line for line in out if not line.startswith("a=mid:")]
    for one in part.formats:
        own = f"a=fmtp:{one.payload_type} "
        out = [line for line in out if not line.startswith(own)]
        kept = [
            f"{name}={value}"
            for name in _ANSWERED.get(one.codec, ())
            if (value := one.parameter(name)) is not None
        ]
        at = next(
            (at for at, line in enumerate(out) if line.startswith(f"a=rtpmap:{one.payload_type} ")), None
        )
        if kept and at is not None:
            out.insert(at + 1, own + ";".join(kept))
    return out


def _refused(section: Section) -> list[str]:
    head = f"m={section.kind} 0 {section.protocol} {' '.join(section.formats) or '0'}"
    mid = [] if section.mid is None else [f"a=mid:{section.mid}"]
    return [head, "c=IN IP4 0.0.0.0", *mid, "a=inactive"]
