from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from personalive.server.process.message_pipe import MessagePipe, SocketStream

Ends = tuple[MessagePipe, MessagePipe]


@pytest.fixture(params=["socket", "pipes"])
def ends(request: pytest.FixtureRequest) -> Iterator[Ends]:
    """Both ways to reach a pipeline's process: a socket, and pipes where a socket is no standard stream."""
    if request.param == "socket":
        streams = [SocketStream(each) for each in socket.socketpair()]
        one, other = (MessagePipe(stream, stream) for stream in streams)
    else:
        there, back = os.pipe(), os.pipe()
        one = MessagePipe(os.fdopen(back[0], "rb"), os.fdopen(there[1], "wb"))
        other = MessagePipe(os.fdopen(there[0], "rb"), os.fdopen(back[1], "wb"))
    yield one, other
    one.close()
    other.close()


def passed(ends: Ends, message: object) -> Any:
    """What arrives; a thread sends, as a message may be larger than the pipe."""
    thread = threading.Thread(target=ends[0].send, args=(message,))
    thread.start()
    received = ends[1].receive()
    thread.join()
    return received


VALUES = st.recursive(
    st.none() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(VALUES)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_is_sent_arrives(ends: Ends, value: object) -> None:
    assert passed(ends, value) == value


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)), max_size=4))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_arrays_arrive_writable_and_empty_ones_too(ends: Ends, shapes: list[tuple[int, int]]) -> None:
    rng = np.random.default_rng(0)
    arrays = [rng.integers(0, 256, (*shape, 3), dtype=np.uint8) for shape in shapes]
    received = passed(ends, arrays)
    for sent, got in zip(arrays, received, strict=True):
        assert np.array_equal(sent, got)
        got[...] = 0


def test_a_frame_larger_than_any_pipe_and_a_view_of_one(ends: Ends) -> None:
    frame = np.random.default_rng(1).integers(0, 256, (1080, 1920, 3), dtype=np.uint8)
    assert np.array_equal(passed(ends, frame), frame)
    assert np.array_equal(passed(ends, frame[::2, 5:700]), frame[::2, 5:700])


def test_several_threads_send_whole_messages(ends: Ends) -> None:
    def send(number: int) -> None:
        for _ in range(20):
            ends[0].send((number, np.full(50_000, number, np.uint8)))

    threads = [threading.Thread(target=send, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for _ in range(80):
        number, array = ends[1].receive()
        assert (array == number).all()
    for thread in threads:
        thread.join()


def test_the_end_of_the_other_end_is_told(ends: Ends) -> None:
    ends[0].send("last")
    ends[0].close()
    assert ends[1].receive() == "last"
    with pytest.raises(EOFError, match="gone"):
        ends[1].receive()
    with pytest.raises((OSError, ValueError)):
        ends[1].send("nobody hears it")
    ends[1].close()
    with pytest.raises(EOFError, match="closed"):
        ends[1].receive()


def test_half_a_message_is_no_message(ends: Ends) -> None:
    ends[0]._outgoing.write(b"\x01\x00\x00\x00\x05")
    ends[0].close()
    with pytest.raises(EOFError):
        ends[1].receive()
