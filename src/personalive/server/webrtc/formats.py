"""Media formats in offers: which can be received, which can be sent, and how they are described to aiortc."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from personalive.server.webrtc.decoders import DECODABLE_CODECS
from personalive.server.webrtc.sdp import MediaSection

_STATIC_PAYLOAD_TYPES = {"0": "PCMU/8000", "8": "PCMA/8000", "9": "G722/8000"}
_AUDIO_CODECS = frozenset({("opus", 48_000), ("pcmu", 8_000), ("pcma", 8_000), ("g722", 8_000)})
_VIDEO_CLOCK = 90_000
_H264_NORMALIZED = "level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f"
_H264_PROFILES = frozenset({0x42, 0x4D, 0x64, 0x6E, 0x7A, 0xF4, 0x2C})
"""Baseline, Main, High, High 10, High 4:2:2, High 4:4:4 and CAVLC 4:4:4, which FFmpeg decodes."""
_H264_EXTENDED, _CONSTRAINT_BASELINE = 0x58, 0xC0
_DYNAMIC_PAYLOAD_TYPES = frozenset({*range(35, 64), *range(96, 128)})
"""Payload types that may be assigned to any format where RTP and RTCP share a port (RFC 5761)."""
_HEVC = frozenset({"H265", "HEVC"})
_DISPLAY_NAMES = {"H264": "H.264", "H265": "HEVC (H.265)", "HEVC": "HEVC (H.265)"}


@dataclass(frozen=True, slots=True)
class PayloadFormat:
    """A payload type of a section: `name` as offered, `clock` in Hz, `parameters` as the text of its `a=fmtp`."""

    kind: str
    payload_type: int
    name: str
    clock: int
    channels: int
    parameters: str | None
    feedback: tuple[str, ...]

    @property
    def codec(self) -> str:
        """The format's name in capitals."""
        return self.name.upper()

    def get_parameter(self, name: str) -> str | None:
        """Return a parameter's value, None where it is not set."""
        for part in (self.parameters or "").split(";"):
            key, _, value = part.partition("=")
            if key.strip().lower() == name:
                return value.strip()
        return None

    @property
    def is_receivable(self) -> bool:
        """Whether the server can depacketize and decode frames of this format."""
        if self.payload_type not in _DYNAMIC_PAYLOAD_TYPES and self.kind == "video":
            return False
        if self.kind == "audio":
            return (self.name.lower(), self.clock) in _AUDIO_CODECS and self._has_valid_payload_type
        return (
            self.clock == _VIDEO_CLOCK
            and self.codec in DECODABLE_CODECS
            and (self.codec != "H264" or self._is_h264_supported)
        )

    @property
    def is_sendable(self) -> bool:
        """Whether the server can encode this format: VP8, or H.264 with packetization-mode=1."""
        return self.is_receivable and (
            self.codec == "VP8" or (self.codec == "H264" and self._is_packetization_supported == "1")
        )

    @property
    def _has_valid_payload_type(self) -> bool:
        static = _STATIC_PAYLOAD_TYPES.get(str(self.payload_type))
        return (
            self.payload_type in _DYNAMIC_PAYLOAD_TYPES
            if static is None
            else static.lower() == self._rtpmap.lower()
        )

    @property
    def _is_packetization_supported(self) -> str:
        return self.get_parameter("packetization-mode") or "0"

    @property
    def _is_h264_supported(self) -> bool:
        """Whether FFmpeg decodes the profile, and the packetization mode is supported."""
        if self._is_packetization_supported not in {"0", "1"}:
            return False
        given = self.get_parameter("profile-level-id")
        if given is None:
            return True
        if not re.fullmatch(r"[0-9a-fA-F]{6}", given):
            return False
        profile, constraints = int(given[:2], 16), int(given[2:4], 16)
        if profile == _H264_EXTENDED:
            return constraints & _CONSTRAINT_BASELINE != 0
        return profile in _H264_PROFILES

    @property
    def _rtpmap(self) -> str:
        return f"{self.name}/{self.clock}" + ("/2" if self.channels == 2 else "")

    def to_sdp_lines(self) -> list[str]:
        """Return the format's SDP lines for aiortc: one H.264 profile for all, and no unknown parameters."""
        told = [f"a=rtpmap:{self.payload_type} {self._rtpmap}"]
        if self.codec == "H264":
            told.append(f"a=fmtp:{self.payload_type} {_H264_NORMALIZED}")
        return told + [f"a=rtcp-fb:{self.payload_type} {value}" for value in self.feedback]

    def __str__(self) -> str:
        """Return the format's name for messages."""
        name = _DISPLAY_NAMES.get(self.codec, self.name)
        if self.codec == "H264" and not self.is_receivable:
            return f"{name} ({self.parameters})" if self.parameters else name
        return name


def parse_formats(section: MediaSection) -> list[PayloadFormat]:
    """Return a section's formats in their order, without invalid ones and those for repair (RTX, RED, FEC)."""
    maps = _map_by_payload_type(section, "rtpmap")
    parameters = _map_by_payload_type(section, "fmtp")
    found: dict[int, PayloadFormat] = {}
    for text in section.formats:
        named = maps.get(text) or _STATIC_PAYLOAD_TYPES.get(text)
        words = re.fullmatch(r"([\w.+-]+)/(\d{1,7})(?:/(\d{1,2}))?", named or "")
        if words is None or not text.isdecimal() or int(text) > 127 or int(text) in found:
            continue
        if words[1].lower() in {"rtx", "red", "ulpfec", "flexfec-03", "telephone-event", "cn"}:
            continue
        found[int(text)] = PayloadFormat(
            section.kind,
            int(text),
            words[1],
            int(words[2]),
            int(words[3] or 1),
            parameters.get(text),
            tuple(_parse_feedback(section, text)),
        )
    return list(found.values())


def find_rtx_formats(section: MediaSection, formats: Iterable[PayloadFormat]) -> list[tuple[int, list[str]]]:
    """Return the RTX formats that belong to `formats`, as payload types with their SDP lines."""
    maps, parameters = _map_by_payload_type(section, "rtpmap"), _map_by_payload_type(section, "fmtp")
    known = {str(one.payload_type) for one in formats}
    found = []
    for text in section.formats:
        named, given = maps.get(text, ""), parameters.get(text, "")
        of = re.match(r"apt=(\d{1,3})(?:;|$)", given.replace(" ", ""))
        if named.lower() == "rtx/90000" and of is not None and of[1] in known and text not in known:
            found.append((int(text), [f"a=rtpmap:{text} rtx/90000", f"a=fmtp:{text} apt={of[1]}"]))
    return found


def describe_accepted_formats() -> str:
    """Return the video formats that are accepted, as a part of a sentence."""
    names = ["H.264", *(name for name in ("VP8", "VP9", "AV1") if name in DECODABLE_CODECS)]
    return f"{', '.join(names[:-1])} and {names[-1]}"


def describe_remedy(offered: Iterable[PayloadFormat]) -> str:
    """Return what the user of a broadcaster must change so that the video can be accepted."""
    if any(one.codec == "H264" for one in offered):
        return "In OBS, Settings > Output > Streaming: set the video encoder's profile to high, main or baseline."
    hevc = any(one.codec in _HEVC for one in offered)
    instead = " instead of HEVC" if hevc else ""
    return (
        f"In OBS, Settings > Output > Streaming: choose an H.264 video encoder{instead} "
        "(x264, or NVENC, QuickSync, AMD or Apple H.264)."
    )


def _map_by_payload_type(section: MediaSection, name: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for value in section.attributes.get(name, ()):
        number, _, rest = value.partition(" ")
        found.setdefault(number, rest.strip())
    return found


def _parse_feedback(section: MediaSection, payload_type: str) -> list[str]:
    pairs = (value.partition(" ") for value in section.attributes.get("rtcp-fb", ()))
    return [rest.strip() for number, _, rest in pairs if number in {"*", payload_type} and rest.strip()]
