from __future__ import annotations

from personalive.server.webrtc.nat import add_public_candidates

SDP = "\r\n".join(
    [
        "v=0",
        "a=candidate:1 1 udp 2130706431 10.0.0.5 50001 typ host",
        "a=candidate:2 1 udp 1694498815 198.51.100.1 50002 typ srflx raddr 10.0.0.5 rport 50001",
        "a=candidate:3 1 udp 2130706431 2001:db8::1 50003 typ host",
        "a=candidate:4 1 udp 2130706431 0b1c.local 50004 typ host",
        "a=end-of-candidates",
        "",
    ]
)


def test_private_candidates_are_offered_publicly_too() -> None:
    lines = add_public_candidates(SDP, "203.0.113.7").split("\r\n")
    assert [line for line in lines if "203.0.113.7" in line] == [
        "a=candidate:1p 1 udp 2130706430 203.0.113.7 50001 typ srflx raddr 10.0.0.5 rport 50001"
    ]
    assert [line for line in lines if "203.0.113.7" not in line] == SDP.split("\r\n")


def test_without_a_public_address_nothing_changes() -> None:
    assert add_public_candidates(SDP, None) == SDP
    assert add_public_candidates(SDP, "10.0.0.5") == SDP
