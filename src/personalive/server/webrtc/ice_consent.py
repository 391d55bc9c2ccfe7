"""Consent to send (RFC 7675) with more patience for peers that answer late.

By the RFC, a peer is lost when it has answered no check for 30 seconds. The ICE library gives each check half a
second, so it closes working connections if a mobile link's buffers are full, or a browser's machine is busy.
"""

from __future__ import annotations

import functools
from typing import Any

from aioice import ice, stun

RETRANSMISSIONS = 3
"""Retransmissions of a check, after 0.5, 1.5 and 3.5 seconds; it fails after 7.5 seconds without an answer."""
FAILURES = 3
"""Failed checks in a row after which a peer is lost: 35 to 41 seconds, with the 4 to 6 seconds between checks."""


def accept_late_answers() -> None:
    """Make every ICE connection of this process wait longer for the answers to its checks.

    Calling it again is harmless.
    """
    ice.CONSENT_FAILURES = FAILURES
    send = ice.StunProtocol.request
    if hasattr(send, "__wrapped__"):
        return

    @functools.wraps(send)
    async def request(
        self: ice.StunProtocol, *args: Any, **options: Any
    ) -> tuple[stun.Message, tuple[str, int]]:
        # Only consent checks are sent once by default; connectivity checks are retransmitted anyway.
        if options.get("retransmissions") == 0:
            options["retransmissions"] = RETRANSMISSIONS
        return await send(self, *args, **options)

    ice.StunProtocol.request = request  # type: ignore[method-assign]
