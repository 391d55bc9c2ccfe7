from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from personalive.server.errors import BadRequestError
from personalive.server.webrtc.ice_candidates import parse_candidate, split_candidates


@pytest.mark.parametrize(
    "line",
    [
        "candidate:1 1 tcp 1 192.0.2.1 9 typ host tcptype active",
        "candidate:1 2 udp 1 192.0.2.1 9 typ host",
        "candidate:1 1 udp 1 224.0.0.251 5353 typ host",
        "candidate:1 1 udp 1 255.255.255.255 9 typ host",
        "candidate:1 1 udp 1 0.0.0.0 9 typ host",
        "candidate:1 1 udp 1 ff02::fb 9 typ host",
        "candidate:1 1 udp 1 example.com 9 typ host",
        "candidate:1 1 udp 1 192.0.2.1 0 typ host",
        "candidate:1 1 udp 1 192.0.2.1 9 typ prflx",
    ],
)
def test_candidates_of_no_use_are_left_out(line: str) -> None:
    assert parse_candidate(line) is None


@given(st.text(max_size=80) | st.from_regex(r"(candidate:)?\w+ -?\d+ udp -?\d+ \S+ -?\d+ \w+ \w+( \w+)*"))
def test_any_other_text_is_a_candidate_or_refused(text: str) -> None:
    try:
        candidate = parse_candidate(text)
    except BadRequestError:
        return
    assert candidate is None or 0 < candidate.port < 65_536


@given(st.integers(0, 5), st.integers(0, 5))
def test_candidates_are_taken_out_with_the_number_of_their_section(first: int, second: int) -> None:
    def some(count: int, section: int) -> list[str]:
        return [f"a=candidate:{n} 1 udp 1 192.0.2.{section} {1000 + n} typ host" for n in range(count)]

    rest = ["v=0", "m=audio 9 RTP/AVP 0", "m=video 9 RTP/AVP 96", "a=mid:1"]
    sdp = [
        *rest[:2],
        *some(first, 0),
        "a=candidate:nonsense",
        rest[2],
        *some(second, 1),
        "a=end-of-candidates",
        rest[3],
    ]
    text, found = split_candidates("\r\n".join(sdp) + "\r\n")
    assert text.split("\r\n")[:-1] == rest
    assert [(each.sdpMLineIndex, each.ip[-1]) for each in found] == [(0, "0")] * first + [(1, "1")] * second
