"""Handshakes between two of aiortc's peers that fail, each for another reason."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from aiortc import RTCCertificate, RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from aiortc.rtcdtlstransport import generate_certificate
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from personalive.server.telemetry import logs
from personalive.server.webrtc.dtls import log_failed_handshakes, parse_alert

OTHER = ":".join(["AA"] * 32)


def failing(monkeypatch: pytest.MonkeyPatch, curve: ec.EllipticCurve, mangle: Callable[[str], str]) -> str:
    """The state that a connection comes to whose client has a certificate on this curve, and says this of it."""

    def generate(kind: type[RTCCertificate]) -> RTCCertificate:
        key = ec.generate_private_key(curve)
        return kind(key=key, cert=generate_certificate(key))

    async def act() -> str:
        client, server = (RTCPeerConnection(RTCConfiguration(iceServers=[])) for _ in range(2))
        client.createDataChannel("parameters")
        await client.setLocalDescription(await client.createOffer())
        offer = mangle(client.localDescription.sdp)
        await server.setRemoteDescription(RTCSessionDescription(offer, "offer"))
        log_failed_handshakes(server, "a-session")
        await server.setLocalDescription(await server.createAnswer())
        await client.setRemoteDescription(RTCSessionDescription(server.localDescription.sdp, "answer"))
        async with asyncio.timeout(30):
            while server.connectionState not in {"failed", "connected"}:
                await asyncio.sleep(0.01)
        state = server.connectionState
        await client.close()
        await server.close()
        return state

    with monkeypatch.context() as changed:
        changed.setattr(RTCCertificate, "generateCertificate", classmethod(generate))
        return asyncio.run(act())


def failures(caplog: pytest.LogCaptureFixture) -> list[dict[str, object]]:
    """What was logged of handshakes that failed."""
    return [vars(one)[logs._FIELDS_ATTRIBUTE] for one in caplog.records if one.getMessage() == "dtls_failed"]


def fingerprint(sdp: str) -> str:
    lines = sdp.split("\r\n")
    mark = "a=fingerprint:sha-256 "
    return "\r\n".join(mark + OTHER if line.startswith(mark) else line for line in lines)


def test_a_certificate_on_another_curve_is_named_with_its_alert(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO"):
        assert failing(monkeypatch, ec.SECP224R1(), str) == "failed"
    (told,) = failures(caplog)
    assert told["session"] == "a-session"
    assert "handshake failure" in str(told["reason"])
    assert told["alert_received"] == "handshake_failure"
    assert "prime256v1" in str(told["remedy"])


def test_another_certificate_than_the_offer_s_is_named(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO"):
        assert failing(monkeypatch, ec.SECP256R1(), fingerprint) == "failed"
    (told,) = failures(caplog)
    assert "a=fingerprint" in str(told["reason"])


def test_what_works_is_not_logged(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        assert failing(monkeypatch, ec.SECP256R1(), str) == "connected"
    assert failures(caplog) == []


def record(kind: int, body: bytes, epoch: int = 0) -> bytes:
    return bytes([kind, 254, 253]) + epoch.to_bytes(2, "big") + bytes(6) + len(body).to_bytes(2, "big") + body


def test_alerts_are_found_among_records() -> None:
    assert parse_alert(record(22, b"hello") + record(21, b"\x02\x28")) == "handshake_failure"
    assert parse_alert(record(21, b"\x02\xfa")) == "alert 250"
    assert parse_alert(record(21, b"\x02\x28", epoch=1)) is None  # encrypted
    assert parse_alert(record(22, b"\x02\x28")) is None


@given(st.binary(max_size=60))
def test_any_datagram_is_looked_through(datagram: bytes) -> None:
    found = parse_alert(datagram)
    assert found is None or datagram[0] in range(256)
