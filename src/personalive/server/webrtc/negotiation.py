"""Choose the sections of an offer to accept, write them for aiortc, and write its answer in the offer's form.

aiortc refuses a whole offer because of one section that it cannot use, matches H.264 by profile, and needs lines
that SDP allows to be omitted. So each section is checked here: usable ones are passed to aiortc, the others are
answered with port 0 (RFC 9429, RFC 8843).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from personalive.server.errors import BadRequestError
from personalive.server.webrtc.formats import (
    PayloadFormat,
    describe_accepted_formats,
    describe_remedy,
    find_rtx_formats,
    parse_formats,
)
from personalive.server.webrtc.sdp import MediaSection, parse_sdp, split_sections
from personalive.server.webrtc.sdp_transport import TransportAttributes

_DIRECTIONS = ("sendrecv", "sendonly", "recvonly", "inactive")
_SENDING_DIRECTIONS, _RECEIVING_DIRECTIONS = (
    frozenset({"sendonly", "sendrecv"}),
    frozenset({"recvonly", "sendrecv"}),
)
_SUPPORTED_EXTENSIONS = frozenset(
    {
        "urn:ietf:params:rtp-hdrext:sdes:mid",
        "urn:ietf:params:rtp-hdrext:ssrc-audio-level",
        "http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time",
    }
)
_ANSWERED_PARAMETERS = {
    "H264": ("level-asymmetry-allowed", "packetization-mode", "profile-level-id"),
    "VP9": ("profile-id",),
    "AV1": ("profile", "level-idx", "tier"),
}
_SCTP_PORT, _MESSAGE_BYTES = "5000", "65536"
_KIND_IS_USED = "one of its kind is used"
NO_VIDEO_SENT = "The offer sends no video: add the track that is to drive the reference."
NO_VIDEO_RECEIVED = "The offer receives no video: add a transceiver that does."


@dataclass(slots=True)
class _AcceptedSection:
    """A section that is accepted, with the mid that it has for aiortc."""

    section: MediaSection
    mid: str
    direction: str
    formats: list[PayloadFormat] = field(default_factory=list)


class Negotiation:
    """The negotiation of an offer: `sdp` is the offer for aiortc, `build_answer` makes the client's answer."""

    def __init__(self, text: str, *, receive: bool, send: bool) -> None:
        """Parse an offer, to `receive` its video, to `send` it video, or both.

        Raises `BadRequestError` where that is not possible; it says what was offered, what is accepted and what to
        do.
        """
        self._offer = parse_sdp(text)
        self._transports = TransportAttributes(self._offer)
        self._require_unique_mids()
        self.notes: list[str] = []
        """The reasons for which sections were left out."""
        self._accepted: list[_AcceptedSection] = []
        sent = self._choose_video(_RECEIVING_DIRECTIONS, sendable=True) if send else None
        taken = self._choose_video(_SENDING_DIRECTIONS, sendable=sent is not None) if receive else None
        for part in (taken, sent):
            if part is not None and all(part.section is not other.section for other in self._accepted):
                self._accepted.append(part)
        self.received_mid = None if taken is None else taken.mid
        self.sent_mid = None if sent is None else sent.mid
        self.sent_audio_mid: str | None = None
        self._add_audio(taken, send=send)
        self._add_data(taken)
        self._accepted.sort(key=lambda part: part.section.index)
        self.simulcast_layers = 1 if taken is None else _count_simulcast_layers(taken.section)
        """How many simulcast layers the client offers. The answer names none, so it should send only one."""
        self.sdp = self._build_offer()

    # -- choosing sections

    def _require_unique_mids(self) -> None:
        counts = Counter(section.mid for section in self._offer.sections if section.mid is not None)
        twice = next((mid for mid, count in counts.items() if count > 1), None)
        if twice is not None:
            raise BadRequestError(
                f"The offer's SDP is malformed: two sections have the name a=mid:{twice[:40]}."
            )

    def _choose_video(self, directions: frozenset[str], *, sendable: bool) -> _AcceptedSection:
        """Return the first usable video section with one of these directions.

        Raises `BadRequestError` where there is none.
        """
        receiving = directions is _RECEIVING_DIRECTIONS
        objections: list[str] = []
        for section in self._offer.sections:
            if (
                section.kind != "video"
                or not self._transports.is_active(section)
                or self._direction(section) not in directions
            ):
                continue
            formats = [one for one in parse_formats(section) if one.is_receivable]
            sendables = [one for one in formats if one.is_sendable]
            if receiving:
                formats = sendables
            elif sendable and self._direction(section) == "sendrecv":
                formats = sendables or formats
            objection = self._transports.find_objection(section) or (
                None if formats else _explain_no_format(section, receiving=receiving)
            )
            if objection is None:
                return self._accept(section, formats)
            objections.append(objection)
        if objections:
            raise BadRequestError(objections[0])
        raise BadRequestError(NO_VIDEO_RECEIVED if receiving else NO_VIDEO_SENT)

    def _add_audio(self, taken: _AcceptedSection | None, *, send: bool) -> None:
        """Accept the first usable section of sound, and another one for sound to `send` if the first cannot be."""
        accepted = False
        for section in self._offer.sections:
            if section.kind != "audio":
                continue
            why = self._find_rejection(section, taken)
            formats = [one for one in parse_formats(section) if one.is_receivable]
            # The library sends the first format.
            sendable = [one for one in formats if one.codec == "OPUS"]
            wanted = (
                send and self.sent_audio_mid is None and self._direction(section) in _RECEIVING_DIRECTIONS
            )
            sends = bool(wanted and sendable and why is None)
            if why is None and accepted and not sends:
                why = _KIND_IS_USED
            if why is not None:
                self._note_rejection(section, why)
                continue
            part = self._accept(section, sendable if sends else formats)
            self._accepted.append(part)
            accepted = True
            if sends:
                self.sent_audio_mid = part.mid

    def _add_data(self, taken: _AcceptedSection | None) -> None:
        """Accept the first usable data channel; the others, and what is left of the offer, are left out."""
        accepted = False
        used = {part.section.index for part in self._accepted}
        for section in self._offer.sections:
            if section.index in used or section.kind == "audio":
                continue
            why = self._find_rejection(section, taken)
            if why is None and (accepted or section.kind != "application"):
                why = _KIND_IS_USED
            if why is not None:
                self._note_rejection(section, why)
                continue
            accepted = True
            self._accepted.append(self._accept(section, []))

    def _note_rejection(self, section: MediaSection, why: str) -> None:
        self.notes.append(f"{section.kind} section {section.index}: {why}")

    def _find_rejection(self, section: MediaSection, taken: _AcceptedSection | None) -> str | None:
        """Return why a section is answered with port 0, None where it can be accepted."""
        if not self._transports.is_active(section):
            return "it is switched off"
        objection = self._transports.find_objection(section)
        return (
            _audio_objection(section, taken) if objection is None and section.kind == "audio" else objection
        )

    def _accept(self, section: MediaSection, formats: list[PayloadFormat]) -> _AcceptedSection:
        named = section.mid is not None and re.fullmatch(r"[!#-~]{1,256}", section.mid) is not None
        mid = section.mid if named and section.mid is not None else f"section-{section.index}"
        return _AcceptedSection(section, mid, self._direction(section), formats)

    def _direction(self, section: MediaSection) -> str:
        for attributes in (section.attributes, self._offer.attributes):
            for name in _DIRECTIONS:
                if name in attributes:
                    return name
        return _DIRECTIONS[0]

    # -- the offer for aiortc

    @property
    def _bundle(self) -> list[str]:
        """The mids of the accepted sections that share a transport."""
        taken = {part.mid for part in self._accepted if part.section.mid is not None}
        return [mid for mid in dict.fromkeys(self._offer.bundle) if mid in taken]

    @property
    def ice_usernames(self) -> frozenset[str]:
        """The client's ICE user names."""
        sections = (section.attributes for section in self._offer.sections)
        return frozenset(
            name
            for attributes in (self._offer.attributes, *sections)
            for name in attributes.get("ice-ufrag", ())
        )

    def resolve_mid(self, mid: str | None, index: int | None) -> str | None:
        """Return the mid of aiortc's section that a candidate is for, None where that section was left out.

        The client gives its section's mid or index; if it gives neither, it has one transport.
        """
        offered = self._offer.sections
        section = next((each for each in offered if mid is not None and each.mid == mid), None)
        if section is None and (index or 0) < len(offered):
            section = offered[index or 0]
        if section is not None and section.mid in self._offer.bundle:
            return next(iter(self._bundle), None)
        return next((part.mid for part in self._accepted if part.section is section), None)

    def _build_offer(self) -> str:
        lines = ["v=0", "o=- 0 0 IN IP4 0.0.0.0", "s=-", "t=0 0"]
        if "ice-lite" in self._offer.attributes:
            lines.append("a=ice-lite")
        if self._bundle:
            lines.append(f"a=group:BUNDLE {' '.join(self._bundle)}")
        lines.append("a=msid-semantic:WMS *")
        for part in self._accepted:
            lines += self._section_lines(part)
        return "\r\n".join(lines) + "\r\n"

    def _section_lines(self, part: _AcceptedSection) -> list[str]:
        section = part.section
        lines = [
            f"a=mid:{part.mid}",
            *self._transports.to_sdp_lines(section, first=part.mid in self._bundle[:1]),
        ]
        if section.kind == "application":
            return [*_application_head(section), *lines, *_application_lines(section)]
        fixed = find_rtx_formats(section, part.formats) if section.kind == "video" else []
        numbers = [one.payload_type for one in part.formats] + [number for number, _ in fixed]
        head = f"m={section.kind} 9 UDP/TLS/RTP/SAVPF {' '.join(map(str, numbers))}"
        lines += [f"a={part.direction}", "a=rtcp-mux", *_extension_lines(section), *_source_lines(section)]
        for one in part.formats:
            lines += one.to_sdp_lines()
        return [head, "c=IN IP4 0.0.0.0", *lines, *(line for _, given in fixed for line in given)]

    # -- the answer for the client

    def build_answer(self, answer: str) -> str:
        """Return the answer for the client: all its sections, in its order and with its mids."""
        session, *answered = split_sections(answer)
        by_index = {
            part.section.index: (part, lines) for part, lines in zip(self._accepted, answered, strict=True)
        }
        group = f"a=group:BUNDLE {' '.join(self._bundle)}" if self._bundle else None
        out = [line for line in session if not line.startswith("a=group:")]
        if group is not None:
            out.insert(next((at for at, line in enumerate(out) if line.startswith("a=")), len(out)), group)
        for section in self._offer.sections:
            found = by_index.get(section.index)
            out += _reject_section(section) if found is None else _answer_section(*found)
        return "\r\n".join(out) + "\r\n"


def _explain_no_format(section: MediaSection, *, receiving: bool) -> str:
    offered = parse_formats(section)
    if receiving:
        return (
            f"The offer receives video as {_list_formats(offered)} only; this server sends VP8 and H.264 "
            "(packetization-mode=1): offer one of them too."
        )
    return (
        f"The offer's video is {_list_formats(offered)}; this server takes {describe_accepted_formats()}. "
        f"{describe_remedy(offered)}"
    )


def _audio_objection(section: MediaSection, taken: _AcceptedSection | None) -> str | None:
    """Return why the section's sound cannot be accepted beside the accepted video, or None."""
    offered = parse_formats(section)
    usable = {one.payload_type for one in offered if one.is_receivable}
    if not usable:
        return f"sound as {_list_formats(offered)} is not taken"
    if taken is not None and usable & {one.payload_type for one in taken.formats}:
        return "it has a payload type of the video's"
    return None


def _list_formats(formats: Iterable[PayloadFormat]) -> str:
    names = list(dict.fromkeys(str(one)[:120] for one in formats))[:6]
    return ", ".join(names) or "of no format that has a name"


def _count_simulcast_layers(section: MediaSection) -> int:
    """Return how many layers a simulcast section sends, 1 where it is not simulcast."""
    given = section.get_first("simulcast") or ""
    found = re.search(r"\bsend (\S+)", given)
    return 1 if found is None else len(found[1].split(";"))


def _extension_lines(section: MediaSection) -> list[str]:
    found = (re.fullmatch(r"(\d{1,3})(?:/\w+)? (\S+)", v) for v in section.attributes.get("extmap", ()))
    return [
        f"a=extmap:{one[1]} {one[2]}" for one in found if one is not None and one[2] in _SUPPORTED_EXTENSIONS
    ]


def _source_lines(section: MediaSection) -> list[str]:
    """Return the SDP lines that name a section's RTP streams, by which RTX packets are matched to their stream."""
    if _count_simulcast_layers(section) > 1:
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


def _application_head(section: MediaSection) -> list[str]:
    legacy = section.protocol == "DTLS/SCTP" and section.formats and section.formats[0].isdecimal()
    head = f"DTLS/SCTP {section.formats[0]}" if legacy else "UDP/DTLS/SCTP webrtc-datachannel"
    return [f"m=application 9 {head}", "c=IN IP4 0.0.0.0"]


def _application_lines(section: MediaSection) -> list[str]:
    port, size = section.get_first("sctp-port") or "", section.get_first("max-message-size") or ""
    lines = [f"a=max-message-size:{size if size.isdecimal() and len(size) < 10 else _MESSAGE_BYTES}"]
    if section.protocol == "DTLS/SCTP":
        maps = section.attributes.get("sctpmap", ())
        return lines + [f"a=sctpmap:{value}" for value in maps if re.fullmatch(r"\d{1,5} \S.*", value)]
    return [*lines, f"a=sctp-port:{port if port.isdecimal() and len(port) < 6 else _SCTP_PORT}"]


def _answer_section(part: _AcceptedSection, lines: list[str]) -> list[str]:
    """Return aiortc's answer to a section, with the offer's protocol, names and parameters."""
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
            for name in _ANSWERED_PARAMETERS.get(one.codec, ())
            if (value := one.get_parameter(name)) is not None
        ]
        at = next(
            (at for at, line in enumerate(out) if line.startswith(f"a=rtpmap:{one.payload_type} ")), None
        )
        if kept and at is not None:
            out.insert(at + 1, own + ";".join(kept))
    return out


def _reject_section(section: MediaSection) -> list[str]:
    head = f"m={section.kind} 0 {section.protocol} {' '.join(section.formats) or '0'}"
    mid = [] if section.mid is None else [f"a=mid:{section.mid}"]
    return [head, "c=IN IP4 0.0.0.0", *mid, "a=inactive"]
