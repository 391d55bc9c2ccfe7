"""The data channel `parameters`: a client's wishes in, the session's messages out, one JSON object each."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from aiortc import RTCDataChannel
from aiortc.exceptions import InvalidStateError

from personalive.errors import InputError, PersonaLiveError
from personalive.server.sessions.session import Message, Stream

LABEL = "parameters"
_LARGEST = 16 * 1024
_WAITING = 32
"""Messages of a client that may wait for their turn: more is a client gone wild."""

SwitchReference = Callable[[Stream, str], Awaitable[None]]


class Channel:
    """Serves one data channel until it closes. Its messages are worked off in order."""

    def __init__(self, channel: RTCDataChannel, stream: Stream, switch: SwitchReference) -> None:
        self._channel = channel
        self._stream = stream
        self._switch = switch
        self._waiting: asyncio.Queue[str | bytes] = asyncio.Queue(_WAITING)
        self._task = asyncio.get_running_loop().create_task(self._work(), name="channel")
        self._forget = stream.listen(self._send)
        channel.on("message", self._on_message)
        channel.on("close", self.close)

    def close(self) -> None:
        """Listen no more."""
        self._forget()
        self._task.cancel()

    def _on_message(self, message: str | bytes) -> None:
        try:
            self._waiting.put_nowait(message)
        except asyncio.QueueFull:
            self._complain("Too many messages at once: this one was dropped.")

    async def _work(self) -> None:
        while True:
            message = await self._waiting.get()
            try:
                await self._obey(_parsed(message))
            except PersonaLiveError as error:
                self._complain(str(error))

    async def _obey(self, wishes: dict[str, Any]) -> None:
        stream = self._stream
        done: dict[str, Any] = {}
        fields = type(stream.session.parameters).model_fields
        parameters = {name: value for name, value in wishes.items() if name in fields}
        if "paused" in wishes:
            done["paused"] = _boolean(wishes, "paused")
            await stream.pause(done["paused"])
        if "reset_cache" in wishes and _boolean(wishes, "reset_cache"):
            await stream.reset()
            done["reset_cache"] = True
        if "reference_id" in wishes:
            await self._switch(stream, text_of(wishes, "reference_id"))
            done["reference_id"] = stream.reference_id
        if parameters:
            checked = await stream.update(parameters)
            done |= checked.model_dump(mode="json", include=set(parameters))
        if done:
            stream.tell({"type": "parameters_updated", **done})
        unknown = sorted(set(wishes) - set(fields) - {"paused", "reset_cache", "reference_id"})
        if unknown:
            known = ", ".join(["paused", "reset_cache", "reference_id", *fields])
            names = ", ".join(name[:40] for name in unknown[:8])
            self._complain(f"Unknown: {names}. Known: {known}.")

    def _complain(self, message: str) -> None:
        self._send({"type": "error", "message": message})

    def _send(self, message: Message) -> None:
        # A channel that is closing, or whose client reads nothing any more, must not hold anything up.
        if self._channel.readyState == "open" and self._channel.bufferedAmount < _LARGEST * 4:
            with contextlib.suppress(InvalidStateError, ConnectionError):
                self._channel.send(json.dumps(message))


def text_of(wishes: Mapping[str, object], name: str) -> str:
    """What is wished by that name. Raises `InputError` for all but text: it may be nested thousandfold."""
    wish = wishes[name]
    if not isinstance(wish, str):
        raise InputError(f"{name} is text.")
    return wish


def _boolean(wishes: dict[str, Any], name: str) -> bool:
    if not isinstance(wishes[name], bool):
        raise InputError(f"{name} is true or false.")
    return bool(wishes[name])


def _parsed(message: str | bytes) -> dict[str, Any]:
    """Raises `InputError` for anything but a JSON object of moderate size."""
    if len(message) > _LARGEST:
        raise InputError(f"A message may have {_LARGEST} bytes, not {len(message)}.")
    try:
        wishes = json.loads(message)
    except (ValueError, RecursionError):
        raise InputError("A message must be a JSON object.") from None
    if not isinstance(wishes, dict):
        raise InputError("A message must be a JSON object.")
    return wishes
