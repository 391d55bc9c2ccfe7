from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from personalive.server.errors import BadRequestError
from personalive.server.webrtc.sdp_limits import MAX_CANDIDATES, check_candidates, check_sdp
from tests.server.served import OFFER

SECTION = OFFER[OFFER.index("m=video") :]


def browser(codecs: int, sections: int) -> str:
    """As many codecs as a browser has, each with a repair format, five kinds of feedback and its parameters."""
    types = [*range(96, 96 + codecs), *range(35, 35 + codecs)]
    lines = [f"m=video 9 UDP/TLS/RTP/SAVPF {' '.join(map(str, types))}", "a=mid:0"]
    for kind in types:
        lines += [f"a=rtpmap:{kind} {'VP8' if kind > 95 else 'rtx'}/90000", f"a=fmtp:{kind} apt=96"]
        if kind > 95:
            lines += [
                f"a=rtcp-fb:{kind} {name}" for name in ("nack", "nack pli", "ccm fir", "goog-remb", "x")
            ]
    lines += [f"a=extmap:{n} urn:x" for n in range(1, 16)]
    lines += [f"a=candidate:{n} 1 udp {n} 192.0.2.{n} 9 typ host" for n in range(1, 20)]
    return OFFER + "".join(f"{line}\r\n" for line in lines) * sections


@pytest.mark.parametrize("sections", [1, 2, 3])
def test_what_browsers_offer_is_not_too_large(sections: int) -> None:
    check_sdp(browser(22, sections))


@pytest.mark.parametrize(
    ("line", "most", "name"),
    [
        ("m=video 9 UDP/TLS/RTP/SAVPF 96", 5, "media sections"),
        ("a=rtpmap:96 VP8/90000", 95, "a=rtpmap"),
        ("a=fmtp:96 x=1", 95, "a=fmtp"),
        ("a=rtcp-fb:* nack", 240, "a=rtcp-fb"),
        ("a=ssrc:1 cname:x", 96, "a=ssrc"),
        ("a=fingerprint:sha-256 AB", 128, "a=fingerprint"),
        ("a=anything", 128, "a=anything"),
        ("", 1184, "lines"),
        ("a=candidate:1 1 udp 1 192.0.2.1 9 typ host", 1184, "lines"),
        ("a=" + "x" * 1998, 31, "characters"),
        ("a=" + "x" * 1999, 0, "characters in a line"),
    ],
)
def test_what_is_too_large_is_named(line: str, most: int, name: str) -> None:
    check_sdp(OFFER + f"{line}\r\n" * most)
    for more in (most + 1, most + 2):
        with pytest.raises(BadRequestError, match=name):
            check_sdp(OFFER + f"{line}\r\n" * more)


def test_so_is_all_of_it_together() -> None:
    with pytest.raises(BadRequestError, match="characters"):
        check_sdp(OFFER + "x" * 64_000)
    with pytest.raises(BadRequestError, match="times codecs"):
        check_sdp(browser(45, 2))
    with pytest.raises(BadRequestError, match="payload types"):
        check_sdp(OFFER.replace("SAVPF 96", "SAVPF " + "96 " * 200))


def test_candidates_of_one_body_are_counted() -> None:
    check_candidates(MAX_CANDIDATES)
    with pytest.raises(BadRequestError, match=f"a session takes at most {MAX_CANDIDATES}"):
        check_candidates(MAX_CANDIDATES + 1)


@given(st.text(max_size=200))
def test_any_text_is_looked_at_without_harm(text: str) -> None:
    check_sdp(text)
    check_sdp(text * 2 + "\r\n" + text)
