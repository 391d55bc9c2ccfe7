"""Consent to send (RFC 7675): a peer that answers late is still there.

A peer is gone when it has answered no check for 30 seconds. The ICE library gives each check half a second, so
behind a mobile link whose buffers are full, or with a browser on a busy machine, it closes a connection that works.
"""

from __future__ import annotations

import functools
from typing import Any

from aioice import ice, stun

RETRANSMISSIONS = 3
"""Checks are sent again after 0.5, 1.5 and 3.5 seconds, and end after 7.5 without an answer to any."""
FAILURES = 3
"""Checks in a row that may fail: with the 4 to 6 seconds between them, 35 to 41 seconds without an answer."""


def accept_late_answers() -> None:
    """Let every ICE connection of this process wait longer for the answers to its checks.

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
        # Only checks of consent are sent once; those that look for a way are sent again as they are.
        if options.get("retransmissions") == 0:
            options["retransmissions"] = RETRANSMISSIONS
        return await send(self, *args, **options)

    ice.StunProtocol.request = request  # type: ignore[method-assign]
