from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field

from personalive.errors import InputError
from personalive.pipelines.base import RunParameters
from personalive.pipelines.parameters import build_parameters
from personalive.server.sessions.session import Message
from personalive.server.webrtc.data_channel import DataChannel


class Parameters(RunParameters):
    expression: float = Field(1.0, ge=0.0, le=3.0)
    seed: int = 0


class FakeChannel:
    """A data channel whose other side is this test."""

    def __init__(self) -> None:
        self.readyState, self.bufferedAmount = "open", 0
        self.handlers: dict[str, Callable[..., Any]] = {}
        self.sent: list[Message] = []

    def on(self, event: str, handler: Callable[..., Any]) -> None:
        self.handlers[event] = handler

    def send(self, text: str) -> None:
        self.sent.append(json.loads(text))


class OneSession:
    parameters = Parameters()


class OneStream:
    """What a channel uses of a stream, and what was done to it."""

    def __init__(self) -> None:
        self.pipeline_session, self.done, self.reference_id = OneSession(), list[object](), "first"
        self.listener: Callable[[Message], None] = lambda message: None

    def add_message_listener(self, listener: Callable[[Message], None]) -> Callable[[], None]:
        self.listener = listener
        return lambda: None

    def send_message(self, message: Message) -> None:
        self.listener(message)

    async def set_paused(self, paused: bool) -> None:
        self.done.append(("pause", paused))

    async def reset(self) -> None:
        self.done.append("reset")

    async def update_parameters(self, given: dict[str, object]) -> Parameters:
        checked = build_parameters(Parameters, {**self.pipeline_session.parameters.model_dump(), **given})
        self.done.append(checked)
        return checked


async def switch(stream: Any, reference_id: str) -> None:
    if reference_id == "unknown":
        raise InputError("There is no reference unknown.")
    stream.reference_id = reference_id


def said(*messages: str | bytes) -> tuple[list[Message], OneStream]:
    async def talk() -> tuple[list[Message], OneStream]:
        fake, stream = FakeChannel(), OneStream()
        channel = DataChannel(fake, stream, switch)  # type: ignore[arg-type]
        for message in messages:
            fake.handlers["message"](message)
            for _ in range(5):
                await asyncio.sleep(0)
        channel.close()
        return fake.sent, stream

    return asyncio.run(talk())


def test_wishes_are_fulfilled_and_confirmed() -> None:
    answers, stream = said(
        '{"paused": true, "reset_cache": true, "expression": 1.5}', '{"reference_id": "b"}'
    )
    assert stream.done == [("pause", True), "reset", Parameters(expression=1.5)]
    assert answers == [
        {"type": "parameters_updated", "paused": True, "reset_cache": True, "expression": 1.5},
        {"type": "parameters_updated", "reference_id": "b"},
    ]


@pytest.mark.parametrize(
    ("message", "answer"),
    [
        ("{", "must be a JSON object"),
        ("[1]", "must be a JSON object"),
        ("[" * 10_000, "must be a JSON object"),
        (b"\xff\xfe\x00", "must be a JSON object"),
        ('{"a": "' + "x" * 20_000 + '"}', "at most 16384 bytes"),
        ('{"paused": 1}', "paused must be true or false"),
        ('{"expression": 9}', "expression = 9"),
        ('{"expression": "big"}', "expression = 'big'"),
        ('{"reference_id": "unknown"}', "no reference unknown"),
        ('{"reference_id": ' + "[" * 900 + "]" * 900 + "}", "reference_id must be text"),
        (
            '{"colour": 1}',
            "Unknown: colour. Known: paused, audio, reset_cache, reference_id, expression, seed",
        ),
    ],
)
def test_what_cannot_be_is_answered(message: str | bytes, answer: str) -> None:
    answers, stream = said(message, '{"paused": false}')
    assert answers[0]["type"] == "error"
    assert answer in answers[0]["message"]
    # And the channel goes on.
    assert answers[1] == {"type": "parameters_updated", "paused": False}
    assert stream.done == [("pause", False)]


@given(st.text(max_size=200) | st.binary(max_size=200) | st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=5),
    lambda inner: st.dictionaries(st.sampled_from(["paused", "reset_cache", "expression", "seed", "x"]), inner),
    max_leaves=10,
).map(json.dumps))  # fmt: skip
def test_nothing_breaks_it(message: str | bytes) -> None:
    answers, _ = said(message, '{"seed": 7}')
    assert answers[-1] == {"type": "parameters_updated", "seed": 7}


def test_a_flood_is_dropped_not_kept() -> None:
    async def talk() -> list[Message]:
        fake = FakeChannel()
        channel = DataChannel(fake, OneStream(), switch)  # type: ignore[arg-type]
        for _ in range(1000):
            fake.handlers["message"]('{"paused": true}')
        await asyncio.sleep(0.05)
        channel.close()
        return fake.sent

    answers = asyncio.run(talk())
    assert sum(answer["type"] == "error" for answer in answers) > 900
    assert 1 <= sum(answer["type"] == "parameters_updated" for answer in answers) <= 40
