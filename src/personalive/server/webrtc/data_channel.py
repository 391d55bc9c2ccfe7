"""The channel of a session: a client's requests in, the session's messages out, one JSON object each.

It is WebRTC's data channel `parameters`, or the text messages of a WebSocket.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol

from aiortc.exceptions import InvalidStateError

from personalive.errors import InputError, PersonaLiveError
from personalive.pipelines.presets import PRESET, expand_preset
from personalive.server.sessions.session import Message, ServerSession

LABEL = "parameters"
_REQUESTS = ("paused", "audio", "reset_cache", "reference_id")
_MAX_MESSAGE_BYTES = 16 * 1024
_MAX_PENDING = 32
"""Messages of a client that may wait to be processed; further ones are dropped."""

SwitchReference = Callable[[ServerSession, str], Awaitable[None]]


class MessageChannel(Protocol):
    """What carries the messages: aiortc's `RTCDataChannel`, or what has its interface."""

    @property
    def readyState(self) -> str:  # noqa: N802 - WebRTC's name
        """Whether messages can be sent: then it is `open`."""

    @property
    def bufferedAmount(self) -> int:  # noqa: N802
        """Bytes of messages that are not sent yet."""

    def send(self, data: str) -> None:
        """Send a message, or raise `InvalidStateError` or `ConnectionError`."""

    def on(self, event: str, f: Callable[..., object]) -> object:
        """Call `f` for the events `message`, with its text or bytes, and `close`."""


class DataChannel:
    """The server's side of one channel, until it closes. Messages are processed in order."""

    def __init__(
        self, channel: MessageChannel, session: ServerSession, switch_reference: SwitchReference
    ) -> None:
        self._channel = channel
        self._session = session
        self._switch_reference = switch_reference
        self._pending: asyncio.Queue[str | bytes] = asyncio.Queue(_MAX_PENDING)
        self._task = asyncio.get_running_loop().create_task(self._process_messages(), name="channel")
        self._remove_listener = session.add_message_listener(self._send)
        channel.on("message", self._on_message)
        channel.on("close", self.close)

    def close(self) -> None:
        """Stop processing messages."""
        self._remove_listener()
        self._task.cancel()

    def _on_message(self, message: str | bytes) -> None:
        try:
            self._pending.put_nowait(message)
        except asyncio.QueueFull:
            self._send_error("Too many messages at once: this one was dropped.")

    async def _process_messages(self) -> None:
        while True:
            message = await self._pending.get()
            try:
                await self._apply(_parse_message(message))
            except PersonaLiveError as error:
                self._send_error(str(error))

    async def _apply(self, values: dict[str, Any]) -> None:
        session = self._session
        done: dict[str, Any] = {}
        model = type(session.pipeline_session.parameters)
        fields = [*model.model_fields, PRESET]
        parameters = {name: value for name, value in values.items() if name in fields}
        if "paused" in values:
            done["paused"] = read_bool(values, "paused")
            await session.set_paused(done["paused"])
        if "audio" in values:
            done["audio"] = read_bool(values, "audio")
            session.audio.set_enabled(done["audio"])
        if "reset_cache" in values and read_bool(values, "reset_cache"):
            await session.reset()
            done["reset_cache"] = True
        if "reference_id" in values:
            await self._switch_reference(session, read_text(values, "reference_id"))
            done["reference_id"] = session.reference_id
        if parameters:
            given = expand_preset(parameters, model)
            checked = await session.update_parameters(given)
            done |= checked.model_dump(mode="json", include=set(given))
        if done:
            session.send_message({"type": "parameters_updated", **done})
        unknown = sorted(set(values) - set(fields) - set(_REQUESTS))
        if unknown:
            known = ", ".join([*_REQUESTS, *fields])
            names = ", ".join(name[:40] for name in unknown[:8])
            self._send_error(f"Unknown: {names}. Known: {known}.")

    def _send_error(self, message: str) -> None:
        self._send({"type": "error", "message": message})

    def _send(self, message: Message) -> None:
        # A channel that is closing, or whose client does not read any more, must not block the session.
        if self._channel.readyState == "open" and self._channel.bufferedAmount < _MAX_MESSAGE_BYTES * 4:
            with contextlib.suppress(InvalidStateError, ConnectionError):
                self._channel.send(json.dumps(message))


def read_text(values: Mapping[str, object], name: str) -> str:
    """Return the text with that name. Raises `InputError` for other types, which may be nested very deeply."""
    wish = values[name]
    if not isinstance(wish, str):
        raise InputError(f"{name} must be text.")
    return wish


def read_bool(values: Mapping[str, object], name: str) -> bool:
    """Return the truth value with that name. Raises `InputError` for other types."""
    if not isinstance(values[name], bool):
        raise InputError(f"{name} must be true or false.")
    return bool(values[name])


def _parse_message(message: str | bytes) -> dict[str, Any]:
    """Parse a message. Raises `InputError` if it is not a JSON object of at most `_MAX_MESSAGE_BYTES`."""
    if len(message) > _MAX_MESSAGE_BYTES:
        raise InputError(f"A message may have at most {_MAX_MESSAGE_BYTES} bytes, not {len(message)}.")
    try:
        wishes = json.loads(message)
    except (ValueError, RecursionError):
        raise InputError("A message must be a JSON object.") from None
    if not isinstance(wishes, dict):
        raise InputError("A message must be a JSON object.")
    return wishes
