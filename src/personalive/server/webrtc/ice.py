"""The STUN and TURN servers, in the form of a browser's `RTCPeerConnection` configuration.

Credentials that expire have the form that TURN servers with a shared secret expect (draft-uberti-behave-turn-rest):
the user name begins with the time at which it expires, and the password is its HMAC-SHA1 in base64.
"""

from __future__ import annotations

import base64
import hmac
from typing import Any

from personalive.server.settings import Settings

_DEFAULT_USER = "personalive"


def make_ice_servers(settings: Settings, unix_time: float) -> list[dict[str, Any]]:
    """Return the servers for a request made at `unix_time` (seconds since 1970); empty if none are set."""
    servers: list[dict[str, Any]] = []
    if settings.stun_urls:
        servers.append({"urls": list(settings.stun_urls)})
    if settings.turn_urls:
        username, credential = _make_credentials(settings, unix_time)
        servers.append({"urls": list(settings.turn_urls), "username": username, "credential": credential})
    return servers


def _make_credentials(settings: Settings, now: float) -> tuple[str, str]:
    name = settings.turn_username or _DEFAULT_USER
    if settings.turn_secret is None:
        password = settings.turn_password
        return name, "" if password is None else password.get_secret_value()
    name = f"{int(now) + settings.turn_ttl_s}:{name}"
    digest = hmac.digest(settings.turn_secret.get_secret_value().encode(), name.encode(), "sha1")
    return name, base64.b64encode(digest).decode()
