"""Offers of every shape, answered by aiortc itself: what is taken, and what is refused in words."""

from __future__ import annotations

import asyncio
import re

import pytest
from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from hypothesis import example, given, settings

from personalive.server.errors import BadRequestError
from personalive.server.webrtc import decoders
from personalive.server.webrtc.negotiation import Negotiation
from personalive.server.webrtc.sdp import MediaSection, parse_sdp
from tests.server.webrtc.offers import Coding, Offer, Part, offers

VP8 = Coding("VP8", 90_000, sent=True)
OPUS = Coding("opus", 48_000)
AAC = Coding("MPEG4-GENERIC", 48_000, taken=False)
HEVC = Coding("H265", 90_000, "level-id=93", taken=False)
decoders.register_decoders()


def answered(
    offer: Offer | str, *, take: bool = True, send: bool = False
) -> tuple[Negotiation, list[MediaSection]]:
    """What aiortc makes of it, as the client gets it."""

    async def answer() -> tuple[Negotiation, list[MediaSection]]:
        text = offer if isinstance(offer, str) else offer.text()
        negotiation = Negotiation(text, receive=take, send=send)
        connection = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        try:
            await connection.setRemoteDescription(RTCSessionDescription(negotiation.sdp, "offer"))
            await connection.setLocalDescription(await connection.createAnswer())
            return negotiation, parse_sdp(negotiation.build_answer(connection.localDescription.sdp)).sections
        finally:
            await connection.close()

    return asyncio.run(answer())


def usable(part: Part) -> bool:
    return part.port != 0 and part.muxed


def driving(offer: Offer) -> int | None:
    """Which section's video is to be taken, None where none can be."""
    for index, part in enumerate(offer.parts):
        known = any(coding.taken for _, coding in part.codings)
        if part.kind == "video" and part.sends and usable(part) and known:
            return index
    return None


def watching(offer: Offer) -> int | None:
    """Which section is to be sent video, None where none can be."""
    for index, part in enumerate(offer.parts):
        known = any(coding.sent for _, coding in part.codings)
        if part.kind == "video" and part.receives and usable(part) and known:
            return index
    return None


def check_shape(offer: Offer, sections: list[MediaSection]) -> None:
    """What holds of every answer: RFC 3264, RFC 8843."""
    assert [section.kind for section in sections] == [part.kind for part in offer.parts]
    setup = {None: "passive", "active": "passive", "passive": "active"}.get(offer.setup, "active")
    for part, section in zip(offer.parts, sections, strict=True):
        assert section.mid == part.mid
        assert section.protocol == ("UDP/DTLS/SCTP" if part.kind == "application" else "UDP/TLS/RTP/SAVPF")
        if section.port == 0:
            continue
        assert usable(part) or part.kind == "application"
        assert section.get_first("setup") == setup
        names = dict(line.split(" ", 1) for line in section.attributes.get("rtpmap", ()))
        offered = {str(number): coding for number, coding in part.codings}
        for number in section.formats if part.kind != "application" else ():
            assert offered[number].taken
            assert names[number].split("/")[0].lower() == offered[number].name.lower()
        allowed = (
            {"inactive"}
            | ({"recvonly"} if part.sends else set())
            | ({"sendonly"} if part.receives else set())
        )
        allowed |= {"sendrecv"} if part.sends and part.receives else set()
        assert part.kind == "application" or any(section.has_attribute(name) for name in allowed)


@settings(max_examples=30, deadline=None)
@given(offers())
@example(Offer([Part("audio", [(111, OPUS)], mid="0"), Part("video", [(96, VP8)], mid="1")]))
@example(Offer([Part("audio", [(111, AAC)], mid="0"), Part("video", [(45, VP8)], mid="1")]))
@example(Offer([Part("audio", [(111, OPUS)], port=0), Part("video", [(96, HEVC), (97, VP8)])], bundled=False))
def test_any_offer_of_a_camera_is_answered_or_refused_in_words(offer: Offer) -> None:
    expected = driving(offer)
    if expected is None:
        with pytest.raises(BadRequestError, match=r"^The offer"):
            Negotiation(offer.text(), receive=True, send=False)
        return
    _, sections = answered(offer)
    check_shape(offer, sections)
    live = [index for index, section in enumerate(sections) if section.kind == "video" and section.port != 0]
    assert live == [expected]
    # Every format that can be decoded is kept, in the client's order, with its own parameters.
    part, section = offer.parts[expected], sections[expected]
    taken = [(number, coding) for number, coding in part.codings if coding.taken]
    assert section.formats == tuple(str(number) for number, _ in taken)
    parameters = dict(line.split(" ", 1) for line in section.attributes.get("fmtp", ()))
    for number, coding in taken:
        for name in ("profile-level-id", "packetization-mode", "profile-id"):
            found = re.search(rf"\b{name}=(\w+)", coding.fmtp or "")
            answer = re.search(rf"\b{name}=(\w+)", parameters.get(str(number), ""))
            assert (found and found[1]) == (answer and answer[1])
    # Sound is taken where it can be, and never costs the video.
    sound = [index for index, one in enumerate(offer.parts) if one.kind == "audio" and usable(one)]
    known = [index for index in sound if any(coding.taken for _, coding in offer.parts[index].codings)]
    assert [index for index, one in enumerate(sections) if one.kind == "audio" and one.port] == known[:1]


@settings(max_examples=20, deadline=None)
@given(offers())
def test_any_offer_of_a_viewer_is_answered_or_refused_in_words(offer: Offer) -> None:
    expected = watching(offer)
    if expected is None:
        with pytest.raises(BadRequestError, match=r"^The offer"):
            Negotiation(offer.text(), receive=False, send=True)
        return
    negotiation, sections = answered(offer, take=False, send=True)
    check_shape(offer, sections)
    assert [index for index, one in enumerate(sections) if one.kind == "video" and one.port] == [expected]
    sent = tuple(str(number) for number, coding in offer.parts[expected].codings if coding.sent)
    assert sections[expected].formats == sent
    assert negotiation.sent_mid is not None


@settings(max_examples=20, deadline=None)
@given(offers())
def test_any_offer_of_the_page_is_answered_or_refused_in_words(offer: Offer) -> None:
    if driving(offer) is None or watching(offer) is None:
        with pytest.raises(BadRequestError, match=r"^The offer"):
            Negotiation(offer.text(), receive=True, send=True)
        return
    _, sections = answered(offer, take=True, send=True)
    check_shape(offer, sections)
    wanted = {driving(offer), watching(offer)}
    assert {index for index, one in enumerate(sections) if one.kind == "video" and one.port} == wanted


PCMU = Coding("PCMU", 8_000)


@pytest.mark.parametrize(
    ("sections", "accepted", "sent"),
    [
        ([("sendrecv", OPUS)], [0], 0),
        ([("recvonly", OPUS)], [0], 0),
        ([("sendonly", OPUS)], [0], None),
        ([("inactive", OPUS)], [0], None),
        ([("sendrecv", PCMU)], [0], None),
        ([("sendonly", PCMU), ("recvonly", OPUS)], [0, 1], 1),
        ([("sendrecv", OPUS), ("sendrecv", OPUS)], [0], 0),
        ([("recvonly", AAC), ("recvonly", OPUS)], [1], 1),
    ],
)
def test_sound_is_sent_as_opus_where_the_client_receives_it(
    sections: list[tuple[str, Coding]], accepted: list[int], sent: int | None
) -> None:
    parts = [Part("video", [(96, VP8)], "sendrecv", mid="v")]
    for index, (direction, coding) in enumerate(sections):
        parts.append(Part("audio", [(100 + index, coding)], direction, mid=f"a{index}"))
    negotiation, answer = answered(Offer(parts), send=True)
    assert [index for index, one in enumerate(answer[1:]) if one.port] == accepted
    assert negotiation.sent_audio_mid == (None if sent is None else f"a{sent}")
    assert Negotiation(Offer(parts).text(), receive=True, send=False).sent_audio_mid is None


def test_a_section_on_which_sound_is_sent_keeps_opus_alone() -> None:
    sound = Part("audio", [(0, PCMU), (111, OPUS)], "sendrecv", mid="a")
    offer = Offer([Part("video", [(96, VP8)], "sendrecv", mid="v"), sound])
    assert answered(offer, send=True)[1][1].formats == ("111",)
    assert answered(offer)[1][1].formats == ("0", "111")


def camera(coding: Coding, *extra: str) -> Offer:
    return Offer([Part("video", [(96, coding)], mid="0", extra=list(extra))])


@pytest.mark.parametrize(
    ("coding", "words"),
    [
        (HEVC, ["HEVC", "H.264", "VP8", "OBS", "instead of HEVC"]),
        (Coding("H264", 90_000, "packetization-mode=2"), ["packetization-mode=2", "OBS"]),
        (Coding("H264", 90_000, "profile-level-id=580028"), ["profile-level-id=580028", "OBS"]),
        (Coding("MPV", 90_000), ["MPV", "OBS"]),
    ],
)
def test_a_refusal_says_what_came_what_is_taken_and_what_to_do(coding: Coding, words: list[str]) -> None:
    with pytest.raises(BadRequestError) as refused:
        Negotiation(camera(coding).text(), receive=True, send=False)
    assert [word for word in words if word not in str(refused.value)] == []


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("a=rtcp-mux", "a=x", "rtcp-mux"),
        ("sha-256", "sha-1", "sha-256"),
        ("a=fingerprint", "a=x", "a=fingerprint"),
        ("a=ice-pwd", "a=x", "a=ice-pwd"),
        ("actpass", "holdconn", "holdconn"),
        ("UDP/TLS/RTP/SAVPF", "RTP/AVP", "RTP/AVP"),
        ("m=video 9", "m=video nine", "malformed"),
        ("m=video 9", "m=video 0", "sends no video"),
        ("a=sendonly", "a=inactive", "sends no video"),
        ("v=0", "v=1", "no SDP"),
    ],
)
def test_what_is_missing_is_named(old: str, new: str, words: str) -> None:
    text = camera(VP8).text()
    assert old in text
    with pytest.raises(BadRequestError, match=words):
        Negotiation(text.replace(old, new), receive=True, send=False)


def test_two_sections_of_one_name_are_refused() -> None:
    offer = Offer([Part("audio", [(111, OPUS)], mid="0"), Part("video", [(96, VP8)], mid="0")])
    with pytest.raises(BadRequestError, match="two sections have the name"):
        Negotiation(offer.text(), receive=True, send=False)


def test_a_bundle_whose_first_section_is_left_out_lives_in_the_next() -> None:
    sound = Part(
        "audio", [(111, AAC)], mid="0", extra=["a=candidate:1 1 udp 2130706431 192.0.2.7 9 typ host"]
    )
    offer = Offer([sound, Part("video", [(96, VP8)], mid="1")])
    negotiation, sections = answered(offer)
    assert [section.port == 0 for section in sections] == [True, False]
    # The client may tell of its addresses in the section that was left out.
    assert "192.0.2.7" in negotiation.sdp
    assert negotiation.resolve_mid("0", None) == "1"
    assert negotiation.resolve_mid(None, 0) == "1"
    assert negotiation.resolve_mid("1", 1) == "1"
    answer = negotiation.build_answer(
        "v=0\r\na=group:BUNDLE 1\r\nm=video 9 UDP/TLS/RTP/SAVPF 96\r\na=mid:1\r\n"
    )
    assert "a=group:BUNDLE 1\r\n" in answer


def test_sections_without_names_and_bundle_each_have_their_transport() -> None:
    offer = Offer([Part("audio", [(111, OPUS)]), Part("video", [(96, VP8)])], bundled=False)
    negotiation, sections = answered(offer)
    assert sections[0].get_first("candidate") != sections[1].get_first("candidate")
    assert (negotiation.resolve_mid(None, 0), negotiation.resolve_mid(None, 1)) == ("section-0", "section-1")
    assert negotiation.resolve_mid(None, 2) is None


def test_a_section_that_lives_in_its_bundle_alone_may_have_port_0() -> None:
    offer = Offer([Part("audio", [(111, OPUS)], mid="0"), Part("video", [(96, VP8)], mid="1", port=0)])
    offer.parts[1].extra.append("a=bundle-only")
    assert [section.port != 0 for section in answered(offer)[1]] == [True, True]


def test_simulcast_is_answered_with_one_layer() -> None:
    layers = [
        "a=rid:2 send",
        "a=rid:1 send",
        "a=rid:0 send",
        "a=simulcast:send 2;1;0",
        "a=ssrc-group:SIM 1 2 3",
    ]
    negotiation, sections = answered(camera(VP8, *layers))
    assert negotiation.simulcast_layers == 3
    assert sections[0].attributes.keys().isdisjoint({"simulcast", "rid"})
    assert answered(camera(VP8))[0].simulcast_layers == 1


def test_repairs_are_kept_for_what_is_taken() -> None:
    offer = Offer([Part("video", [(96, HEVC), (97, VP8)], mid="0")])
    maps = "a=rtpmap:98 rtx/90000\r\na=fmtp:98 apt=96\r\na=rtpmap:99 rtx/90000\r\na=fmtp:99 apt=97\r\n"
    text = offer.text().replace("SAVPF 96 97", "SAVPF 96 97 98 99") + maps
    assert answered(text)[1][0].formats == ("97", "99")
