"""Log why a DTLS handshake failed: aiortc says only that it did."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from aiortc import RTCDtlsTransport, RTCPeerConnection
from OpenSSL import SSL

from personalive.server.telemetry import logs

_REMEDY = (
    "a client that brings its own certificate needs an ECDSA one on the curve prime256v1 (FFmpeg: -cert_file and "
    "-key_file); see docs/how-to/obs.md"
)
_FINGERPRINT_MISMATCH = (
    "the client's certificate is not that of its offer's a=fingerprint, or no SRTP profile is common"
)
_ALERT_TYPE, _RECORD_HEADER_BYTES, _UNENCRYPTED_EPOCH = 21, 13, b"\x00\x00"
_ALERTS = {
    0: "close_notify",
    10: "unexpected_message",
    20: "bad_record_mac",
    22: "record_overflow",
    40: "handshake_failure",
    42: "bad_certificate",
    43: "unsupported_certificate",
    44: "certificate_revoked",
    45: "certificate_expired",
    46: "certificate_unknown",
    47: "illegal_parameter",
    48: "unknown_ca",
    49: "access_denied",
    50: "decode_error",
    51: "decrypt_error",
    70: "protocol_version",
    71: "insufficient_security",
    80: "internal_error",
    86: "inappropriate_fallback",
    90: "user_canceled",
    109: "missing_extension",
    110: "unsupported_extension",
    116: "certificate_required",
    120: "no_application_protocol",
}
"""Names of alerts by number (RFC 8446)."""


def log_failed_handshakes(connection: RTCPeerConnection, session: str) -> None:
    """Log each failed DTLS handshake of a connection. Call it after the offer is set and before the answer is."""
    found = {transceiver.receiver.transport for transceiver in connection.getTransceivers()}
    if connection.sctp is not None:
        found.add(connection.sctp.transport)
    for transport in found:
        _watch_transport(transport, session)


def _watch_transport(transport: RTCDtlsTransport, session: str) -> None:
    alerts: dict[str, str] = {}

    def changed() -> None:
        if transport.state == "connecting":
            _observe_handshake(getattr(transport, "_ssl", None), alerts)
        elif transport.state == "failed":
            reason = alerts.get("reason") or (_FINGERPRINT_MISMATCH if transport.encrypted else None)
            if reason is None:
                return  # one of the two peers has left meanwhile
            logs.event(
                "dtls_failed",
                level=logging.WARNING,
                session=session,
                reason=reason,
                alert_received=alerts.get("received"),
                alert_sent=alerts.get("sent"),
                remedy=_REMEDY,
            )

    transport.on("statechange", changed)


def _observe_handshake(ssl: Any, record: dict[str, str]) -> None:
    """Record a handshake's first error, and the first alert received and sent."""
    if not isinstance(ssl, SSL.Connection):
        return

    def listened(
        call: Callable[..., Any], heard: Callable[[Any, tuple[Any, ...]], None]
    ) -> Callable[..., Any]:
        def through(*args: Any) -> Any:
            try:
                result = call(*args)
            except SSL.WantReadError:
                raise
            except SSL.Error as error:
                if (reason := _openssl_reason(error)) is not None:
                    record.setdefault("reason", reason)
                raise
            heard(result, args)
            return result

        return through

    def nothing(result: Any, args: tuple[Any, ...]) -> None:
        del result, args

    def sent(result: Any, args: tuple[Any, ...]) -> None:
        del args
        _note_alert(record, "sent", result)

    def received(result: Any, args: tuple[Any, ...]) -> None:
        del result
        _note_alert(record, "received", args[0])

    inner: Any = ssl
    inner.do_handshake = listened(inner.do_handshake, nothing)
    inner.recv = listened(inner.recv, nothing)
    inner.bio_read = listened(inner.bio_read, sent)
    inner.bio_write = listened(inner.bio_write, received)


def _openssl_reason(error: SSL.Error) -> str | None:
    """Return OpenSSL's reasons for the error, None where it gives none."""
    stack = error.args[0] if error.args else None
    if not isinstance(stack, list) or not stack:
        return None
    return "; ".join(str(entry[-1]) for entry in stack)


def _note_alert(record: dict[str, str], direction: str, datagram: object) -> None:
    description = (
        parse_alert(bytes(datagram)) if isinstance(datagram, bytes | bytearray | memoryview) else None
    )
    if description is not None:
        record.setdefault(direction, description)


def parse_alert(datagram: bytes) -> str | None:
    """Return the name of the first unencrypted alert in a datagram of DTLS records, None where there is none."""
    at = 0
    while at + _RECORD_HEADER_BYTES <= len(datagram):
        kind, epoch = datagram[at], datagram[at + 3 : at + 5]
        length = int.from_bytes(datagram[at + 11 : at + 13], "big")
        record = datagram[at + _RECORD_HEADER_BYTES : at + _RECORD_HEADER_BYTES + length]
        if kind == _ALERT_TYPE and epoch == _UNENCRYPTED_EPOCH and len(record) == 2:
            return _ALERTS.get(record[1], f"alert {record[1]}")
        at += _RECORD_HEADER_BYTES + length
    return None
