"""Offers of every shape: sections, formats in any order, lines that may be missing."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from hypothesis import strategies as st

FINGERPRINT = "sha-256 " + ":".join(["AA"] * 32)
TRANSPORT = ("a=ice-ufrag:abcd", "a=ice-pwd:abcdefghijklmnopqrstuvwx", f"a=fingerprint:{FINGERPRINT}")
PROFILES = (
    "42e01f",
    "42001f",
    "42c01f",
    "4d001f",
    "640c1f",
    "640028",
    "6e0028",
    "7a0028",
    "f4001f",
    "42E034",
)
UNKNOWN_VIDEO = ("H265", "H266", "MPV", "theora", "raw", "x-none")
UNKNOWN_SOUND = ("MPEG4-GENERIC", "L16", "AC3", "speex", "iLBC", "AMR-WB")

Kind = Literal["audio", "video", "application"]


@dataclass(frozen=True)
class Coding:
    """A format: `taken` says whether it can be received, `sent` whether the server can send it."""

    name: str
    clock: int
    fmtp: str | None = None
    taken: bool = True
    sent: bool = False


@dataclass
class Part:
    """A media section."""

    kind: Kind
    codings: list[tuple[int, Coding]] = field(default_factory=list)
    direction: str | None = "sendonly"
    port: int = 9
    muxed: bool = True
    mid: str | None = None
    extra: list[str] = field(default_factory=list)

    @property
    def sends(self) -> bool:
        return self.direction in {None, "sendrecv", "sendonly"}

    @property
    def receives(self) -> bool:
        return self.direction in {None, "sendrecv", "recvonly"}

    def lines(self) -> list[str]:
        if self.kind == "application":
            head = f"m=application {self.port} UDP/DTLS/SCTP webrtc-datachannel"
            return [head, *self._named(), "a=sctp-port:5000"]
        numbers = " ".join(str(number) for number, _ in self.codings)
        lines = [f"m={self.kind} {self.port} UDP/TLS/RTP/SAVPF {numbers}", *self._named()]
        lines += [] if self.direction is None else [f"a={self.direction}"]
        lines += ["a=rtcp-mux"] if self.muxed else []
        for number, coding in self.codings:
            channels = "/2" if coding.name == "opus" else ""
            lines.append(f"a=rtpmap:{number} {coding.name}/{coding.clock}{channels}")
            lines += [] if coding.fmtp is None else [f"a=fmtp:{number} {coding.fmtp}"]
        return lines

    def _named(self) -> list[str]:
        return ["c=IN IP4 0.0.0.0", *([] if self.mid is None else [f"a=mid:{self.mid}"]), *self.extra]


@dataclass
class Offer:
    """A whole offer; `bundled` sections share a transport, those with a mid can."""

    parts: list[Part]
    bundled: bool = True
    setup: str | None = "actpass"
    ending: str = "\r\n"

    def text(self) -> str:
        lines = ["v=0", "o=rtc 1 0 IN IP4 127.0.0.1", "s=-", "t=0 0"]
        mids = [part.mid for part in self.parts if part.mid is not None]
        if self.bundled and mids:
            lines.append("a=group:BUNDLE " + " ".join(mids))
        lines += [*TRANSPORT, *([] if self.setup is None else [f"a=setup:{self.setup}"])]
        for part in self.parts:
            lines += part.lines()
        return self.ending.join(lines) + self.ending


@st.composite
def h264(draw: st.DrawFn) -> Coding:
    """H.264 of any profile that FFmpeg decodes, its parameters in any order, each there or not."""
    mode = draw(st.sampled_from([None, "0", "1", "2"]))
    given = [] if mode is None else [f"packetization-mode={mode}"]
    if draw(st.booleans()):
        given.append(f"profile-level-id={draw(st.sampled_from(PROFILES))}")
    given += draw(st.lists(st.sampled_from(["level-asymmetry-allowed=1", "max-mbps=108000"]), unique=True))
    text = draw(st.sampled_from([";", "; "])).join(draw(st.permutations(given)))
    return Coding("H264", 90_000, text or None, taken=mode != "2", sent=mode == "1")


def video_codings() -> st.SearchStrategy[Coding]:
    unknown = st.sampled_from(UNKNOWN_VIDEO).map(lambda name: Coding(name, 90_000, taken=False))
    known = [
        Coding("VP8", 90_000, sent=True),
        Coding("VP9", 90_000, "profile-id=0"),
        Coding("AV1", 90_000, "profile=0"),
    ]
    return st.one_of(h264(), st.sampled_from(known), unknown)


def sound_codings() -> st.SearchStrategy[Coding]:
    unknown = st.sampled_from(UNKNOWN_SOUND).map(lambda name: Coding(name, 48_000, taken=False))
    return st.one_of(st.just(Coding("opus", 48_000, "minptime=10;useinbandfec=1")), unknown)


@st.composite
def offers(draw: st.DrawFn) -> Offer:
    """Up to four sections, payload types of their own in each, in any order."""
    numbers = draw(st.permutations([*range(35, 64), *range(96, 128)]))
    parts = []
    named = draw(st.booleans())
    for index in range(draw(st.integers(1, 4))):
        kind: Kind = draw(st.sampled_from(["video", "video", "audio", "application"]))
        codings = {"video": video_codings(), "audio": sound_codings()}.get(kind)
        chosen = [] if codings is None else draw(st.lists(codings, min_size=1, max_size=4))
        own, numbers = numbers[: len(chosen)], numbers[len(chosen) :]
        parts.append(
            Part(
                kind,
                list(zip(own, chosen, strict=True)),
                direction=draw(st.sampled_from([None, "sendrecv", "sendonly", "recvonly", "inactive"])),
                port=draw(st.sampled_from([9, 9, 9, 0])),
                muxed=draw(st.sampled_from([True, True, True, False])),
                mid=draw(st.sampled_from(["0", "video", "a1"])) + str(index) if named else None,
            )
        )
    setups = [None, "actpass", "active", "passive"]
    return Offer(
        parts, draw(st.booleans()), draw(st.sampled_from(setups)), draw(st.sampled_from(["\r\n", "\n"]))
    )
