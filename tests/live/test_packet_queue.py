from __future__ import annotations

import threading
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from personalive.live.packet_queue import PacketQueue


@dataclass(frozen=True)
class Numbered:
    number: int
    is_keyframe: bool


def drained(queue: PacketQueue[Numbered]) -> list[Numbered]:
    queue.end()
    found = []
    while (packet := queue.get()) is not None:
        found.append(packet)
    return found


@given(st.lists(st.booleans(), min_size=1, max_size=400))
def test_what_waits_can_be_decoded_and_ends_with_the_newest(keyframes: list[bool]) -> None:
    """The decoder takes nothing meanwhile: a whole stream waits, or a part of it from a keyframe on."""
    queue: PacketQueue[Numbered] = PacketQueue(intra_only=False)
    most = 0
    for number, keyframe in enumerate(keyframes):
        queue.put(Numbered(number, keyframe))
        most = max(most, len(queue))
    kept = drained(queue)
    assert most <= 151
    assert queue.dropped == len(keyframes) - len(kept)
    numbers = [packet.number for packet in kept]
    assert numbers == list(range(numbers[0], len(keyframes))) if numbers else queue.dropped > 150
    assert not kept or kept[0].number == 0 or kept[0].is_keyframe


@given(st.integers(1, 100))
def test_without_references_only_the_newest_waits(count: int) -> None:
    queue: PacketQueue[Numbered] = PacketQueue(intra_only=True)
    for number in range(count):
        queue.put(Numbered(number, True))
    assert [packet.number for packet in drained(queue)] == [count - 1]


def test_decoding_goes_on_at_a_keyframe_after_all_was_dropped() -> None:
    queue: PacketQueue[Numbered] = PacketQueue(intra_only=False)
    for number in range(200):
        queue.put(Numbered(number, False))
    assert len(queue) == 0
    queue.put(Numbered(200, True))
    queue.put(Numbered(201, False))
    assert [packet.number for packet in drained(queue)] == [200, 201]


def test_a_reader_that_waits_gets_the_packet_then_the_error() -> None:
    queue: PacketQueue[Numbered] = PacketQueue(intra_only=False)

    def feed() -> None:
        queue.put(Numbered(0, True))
        queue.end(OSError("unplugged"))

    thread = threading.Timer(0.05, feed)
    thread.start()
    assert queue.get() == Numbered(0, True)
    with pytest.raises(OSError, match="unplugged"):
        queue.get()
    thread.join()
