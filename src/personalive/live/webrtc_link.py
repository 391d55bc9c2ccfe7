"""A client's WebRTC connection by WHIP (RFC 9725) or WHEP: an offer by HTTP POST, its answer, an end by DELETE."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from http.client import HTTPMessage
from typing import IO
from urllib.parse import urljoin

from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription

from personalive.errors import InputError
from personalive.server.webrtc import decoders
from personalive.server.webrtc.ice_consent import accept_late_answers
from personalive.server.webrtc.jitter_buffer import use_low_latency_jitter_buffer

TOKEN_VARIABLE = "PERSONALIVE_BEARER_TOKEN"
"""The environment variable with the token that WHIP and WHEP servers ask for."""
_HTTP_TIMEOUT_S = 10.0
_CONNECT_TIMEOUT_S = 10.0
_MAX_REDIRECTS = 3
_MAX_ANSWER_BYTES = 1 << 18
_REDIRECTS = {301, 302, 307, 308}


class LinkError(InputError):
    """A WHIP or WHEP server that refuses or cannot be reached; the message says what to do."""


@dataclass(frozen=True, slots=True)
class LinkAnswer:
    """A server's answer to an offer, and the address of what was created; None where it named none."""

    sdp: str
    resource: str | None


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Leaves redirects to us: urllib would turn the POST into a GET."""

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: HTTPMessage,
        newurl: str,
    ) -> None:
        del req, fp, code, msg, headers, newurl


_http = urllib.request.build_opener(_NoRedirect)


def post_offer(url: str, sdp: str, token: str | None = None) -> LinkAnswer:
    """Post an offer and return the answer. Raises `LinkError`. It waits for the network."""
    for _ in range(_MAX_REDIRECTS + 1):
        headers = {"Content-Type": "application/sdp", "Accept": "application/sdp"} | _authorization(token)
        request = urllib.request.Request(url, sdp.encode(), headers, method="POST")
        try:
            with _http.open(request, timeout=_HTTP_TIMEOUT_S) as response:
                body = response.read(_MAX_ANSWER_BYTES).decode(errors="replace")
                location = response.headers.get("Location")
                return LinkAnswer(body, None if location is None else urljoin(url, location))
        except urllib.error.HTTPError as error:
            with error:
                target = error.headers.get("Location")
                if error.code in _REDIRECTS and target is not None:
                    url = urljoin(url, target)
                    continue
                raise LinkError(_explain_refusal(url, error)) from error
        except (OSError, ValueError) as error:
            reason = getattr(error, "reason", None) or error
            raise LinkError(
                f"{url} cannot be reached ({reason}): check the address and the network."
            ) from error
    raise LinkError(f"{url} redirects again and again: check the address.")


def _authorization(token: str | None) -> dict[str, str]:
    return {} if token is None else {"Authorization": f"Bearer {token}"}


def _explain_refusal(url: str, error: urllib.error.HTTPError) -> str:
    if error.code in {401, 403}:
        return f"{url} wants a token, or another one: set {TOKEN_VARIABLE} in the environment."
    if error.code in {404, 405}:
        return f"{url} takes no offers (HTTP {error.code}): check the path of the address."
    body = error.read(_MAX_ANSWER_BYTES).decode(errors="replace")
    with contextlib.suppress(ValueError, TypeError, KeyError):
        body = str(json.loads(body)["detail"])
    return f"{url} refuses the offer (HTTP {error.code}): {' '.join(body.split())[:300] or error.reason}."


def delete_resource(url: str, token: str | None = None) -> None:
    """End what an offer created. A server that does not answer will notice that the connection is gone."""
    request = urllib.request.Request(url, headers=_authorization(token), method="DELETE")
    with contextlib.suppress(OSError, ValueError), _http.open(request, timeout=_HTTP_TIMEOUT_S):
        pass


class WebRtcLink:
    """One connection to a WHIP or WHEP server. Use it on the event loop only; `lost` is set when it breaks."""

    def __init__(self, url: str, prepare: Callable[[RTCPeerConnection], None]) -> None:
        """Connect to `url` once `open` is called; `prepare` adds to the connection what the offer is about."""
        self._url = url
        self._token = os.environ.get(TOKEN_VARIABLE) or None
        self._prepare = prepare
        self._connection: RTCPeerConnection | None = None
        self._resource: str | None = None
        self._connected = asyncio.Event()
        self.lost = asyncio.Event()

    async def open(self) -> None:
        """Connect. Raises `LinkError` where the server refuses, or media do not get through."""
        decoders.register_decoders()
        accept_late_answers()
        self._connection = connection = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        connection.on("connectionstatechange", self._on_state)
        self._prepare(connection)
        await connection.setLocalDescription(await connection.createOffer())
        answer = await asyncio.to_thread(post_offer, self._url, connection.localDescription.sdp, self._token)
        self._resource = answer.resource
        try:
            use_low_latency_jitter_buffer(connection)
            await connection.setRemoteDescription(RTCSessionDescription(answer.sdp, "answer"))
        except Exception as error:  # the parser raises errors of many classes
            raise LinkError(f"{self._url} answered with something that is no usable SDP.") from error
        try:
            await asyncio.wait_for(self._connected.wait(), _CONNECT_TIMEOUT_S)
        except TimeoutError:
            raise LinkError(
                f"{self._url} accepted the offer, but no media connection came about within "
                f"{_CONNECT_TIMEOUT_S:g} s: a firewall blocks UDP, perhaps."
            ) from None

    def _on_state(self) -> None:
        assert self._connection is not None
        if self._connection.connectionState == "connected":
            self._connected.set()
        elif self._connection.connectionState in {"failed", "closed"}:
            self.lost.set()

    async def close(self) -> None:
        """End it, and tell the server. It may be called twice."""
        resource, self._resource = self._resource, None
        if resource is not None:
            await asyncio.to_thread(delete_resource, resource, self._token)
        if self._connection is not None:
            with contextlib.suppress(Exception):  # half-open connections fail to close, but end nevertheless
                await self._connection.close()
