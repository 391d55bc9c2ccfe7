from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from personalive.errors import InputError
from personalive.server.websocket.media_message import (
    HEADER_BYTES,
    MAX_TIMESTAMP,
    MediaKind,
    MediaMessage,
    parse_media_message,
)

TIMESTAMPS = st.integers(0, MAX_TIMESTAMP)
FRAMES = st.builds(
    MediaMessage,
    st.sampled_from([MediaKind.VIDEO, MediaKind.AUDIO]),
    TIMESTAMPS,
    st.binary(min_size=1, max_size=200),
    st.booleans(),
)
SIGNALS = st.builds(
    MediaMessage, st.sampled_from([MediaKind.ACKNOWLEDGEMENT, MediaKind.KEYFRAME_REQUEST]), TIMESTAMPS
)


@given(FRAMES | SIGNALS)
def test_what_is_packed_is_parsed(message: MediaMessage) -> None:
    packed = message.pack()
    assert len(packed) == HEADER_BYTES + len(message.payload)
    assert parse_media_message(packed) == message


def test_the_header_is_what_the_reference_says() -> None:
    packed = MediaMessage(MediaKind.VIDEO, 0x01020304050607, b"frame", is_keyframe=True).pack()
    assert packed == b"\x01\x01\x00\x00" + bytes([0, 1, 2, 3, 4, 5, 6, 7]) + b"frame"


@given(FRAMES, st.data())
def test_truncated_headers_are_refused(message: MediaMessage, data: st.DataObject) -> None:
    length = data.draw(st.integers(0, HEADER_BYTES - 1))
    with pytest.raises(InputError, match="12 bytes or more"):
        parse_media_message(message.pack()[:length])


@given(st.binary(max_size=64))
def test_any_bytes_are_parsed_or_refused(data: bytes) -> None:
    try:
        message = parse_media_message(data)
    except InputError:
        return
    assert message.pack() == data


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"\x00" + bytes(11), "kind 0"),
        (b"\x05" + bytes(11), "kind 5"),
        (b"\x01\x02" + bytes(11), "unknown flags"),
        (b"\x01\x00\x00\x01" + bytes(9), "unknown flags"),
        (b"\x01\x00\x00\x00\xff" + bytes(8), "timestamp"),
        (b"\x01" + bytes(11), "has no frame"),
        (b"\x02" + bytes(11), "has no packet"),
        (b"\x03" + bytes(12), "header only"),
        (b"\x04" + bytes(12), "header only"),
    ],
)
def test_a_refusal_says_why(data: bytes, why: str) -> None:
    with pytest.raises(InputError, match=why):
        parse_media_message(data)
