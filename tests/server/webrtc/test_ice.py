from __future__ import annotations

import base64
import hashlib
import hmac

import aioice.ice
from aiortc import RTCIceServer
from aiortc.rtcicetransport import connection_kwargs
from pydantic import SecretStr

from personalive.server.settings import Settings
from personalive.server.webrtc.ice import make_ice_servers

TURN = ("turn:turn.example.com:3478", "turns:turn.example.com:5349")


def test_none_are_set() -> None:
    assert make_ice_servers(Settings(), 0) == []


def test_stun_needs_no_credentials() -> None:
    assert make_ice_servers(Settings(stun_urls=("stun:stun.example.com:3478",)), 0) == [
        {"urls": ["stun:stun.example.com:3478"]}
    ]


def test_fixed_credentials() -> None:
    settings = Settings(turn_urls=TURN, turn_username="me", turn_password=SecretStr("pass"))
    assert make_ice_servers(settings, 0) == [{"urls": list(TURN), "username": "me", "credential": "pass"}]


def test_credentials_that_end_are_made_for_each_request() -> None:
    settings = Settings(turn_urls=TURN, turn_secret=SecretStr("north"), turn_ttl_s=600)
    (first,), (later,) = (
        make_ice_servers(settings, 1_700_000_000.9),
        make_ice_servers(settings, 1_700_000_060),
    )
    assert first["username"] == "1700000600:personalive"
    # What a TURN server computes: base64(HMAC-SHA1(secret, username)).
    digest = hmac.new(b"north", first["username"].encode(), hashlib.sha1).digest()
    assert base64.b64decode(first["credential"]) == digest
    assert later["username"] == "1700000660:personalive"
    assert later["credential"] != first["credential"]


def test_the_name_within_can_be_chosen() -> None:
    settings = Settings(turn_urls=TURN, turn_secret=SecretStr("north"), turn_username="studio")
    assert make_ice_servers(settings, 0)[0]["username"] == "3600:studio"


def test_our_own_connections_understand_them() -> None:
    settings = Settings(
        stun_urls=("stun:stun.example.com:3478",), turn_urls=TURN, turn_secret=SecretStr("north")
    )
    servers = [RTCIceServer(**server) for server in make_ice_servers(settings, 0)]
    known = connection_kwargs(servers)
    assert known["stun_server"] == ("stun.example.com", 3478)
    assert known["turn_server"] == ("turn.example.com", 3478)
    assert known["turn_username"] == "3600:personalive"
    aioice.ice.Connection(ice_controlling=True, **known)
