from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from personalive.server.sessions.audio_delay import BLOCK_SAMPLES, SAMPLE_RATE, Samples
from personalive.server.websocket.audio_codecs import (
    MAX_PACKET_BYTES,
    OPUS_DELAY_US,
    OpusDecoder,
    OpusEncoder,
    ReceivedAudio,
    UndecodableAudioError,
    check_audio_codecs,
)

BLOCK_US = 20_000


def tone(index: int) -> Samples:
    places = np.arange(index * BLOCK_SAMPLES, (index + 1) * BLOCK_SAMPLES)
    return np.repeat(
        (8000 * np.sin(2 * np.pi * 300 * places / SAMPLE_RATE)).astype(np.int16)[:, None], 2, axis=1
    )


def packets(count: int) -> list[bytes]:
    encoder = OpusEncoder()
    return [encoder.encode(tone(index)) for index in range(count)]


def decode(decoder: OpusDecoder, packet: bytes, timestamp: int) -> ReceivedAudio:
    received = decoder.decode(packet, timestamp)
    assert received is not None
    return received


def test_opus_is_there() -> None:
    assert check_audio_codecs() == ("opus",)


def test_each_block_is_a_packet_and_comes_out_as_late_as_is_said() -> None:
    encoder, decoder = OpusEncoder(), OpusDecoder()
    blocks = [np.zeros((BLOCK_SAMPLES, 2), np.int16) for _ in range(20)]
    blocks[10:] = [tone(index) for index in range(10)]
    heard = [
        decode(decoder, encoder.encode(block), index * BLOCK_US).frame.to_ndarray().reshape(-1, 2)
        for index, block in enumerate(blocks)
    ]
    assert {len(block) for block in heard} == {BLOCK_SAMPLES}
    level = np.abs(np.concatenate(heard)[:, 0].astype(int))
    late = int(np.argmax(level > 1500)) - 10 * BLOCK_SAMPLES - SAMPLE_RATE * OPUS_DELAY_US / 1e6
    assert abs(late) < 0.003 * SAMPLE_RATE


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(-4000, 4000), min_size=5, max_size=30), st.integers(0, 2**52))
def test_sound_without_gaps_is_continuous_however_its_timestamps_jitter(
    jitter: list[int], begin: int
) -> None:
    decoder, packet = OpusDecoder(), packets(1)[0]
    received = [
        decode(decoder, packet, max(begin + 5000 + k * BLOCK_US + by, 0)) for k, by in enumerate(jitter)
    ]
    positions = [one.frame.pts or 0 for one in received]
    assert np.all(np.diff(positions) == BLOCK_SAMPLES)
    for k, one in enumerate(received):
        assert abs(one.source_time - (begin + 5000 + k * BLOCK_US) / 1e6) < 0.0081


@settings(max_examples=20, deadline=None)
@given(st.integers(11_000, 10**9), st.floats(-200e-6, 200e-6))
def test_a_gap_stays_one_and_another_clock_is_followed(gap: int, drift: float) -> None:
    decoder, packet = OpusDecoder(), packets(1)[0]
    timestamps = [10**6 + round(k * BLOCK_US * (1 + drift)) for k in range(400)]
    before = [decode(decoder, packet, timestamp) for timestamp in timestamps][-1]
    assert abs(before.source_time - timestamps[-1] / 1e6) < 0.001
    later = timestamps[-1] + BLOCK_US + gap
    after = decode(decoder, packet, later)
    assert before.frame.pts is not None
    assert after.frame.pts is not None
    missing = (after.frame.pts - before.frame.pts - BLOCK_SAMPLES) / SAMPLE_RATE
    assert missing == pytest.approx(gap / 1e6, abs=0.001)
    assert after.source_time == pytest.approx(later / 1e6, abs=0.001)


def test_one_damaged_packet_is_left_out_and_more_are_refused() -> None:
    decoder = OpusDecoder()
    first, second = packets(2)
    assert decoder.decode(first, 0) is not None
    for round_ in range(3):
        assert decoder.decode(b"\x03" * 3, 1 + 3 * round_) is None
        assert decoder.decode(b"", 2 + 3 * round_) is None
        assert decoder.decode(second, 3 + 3 * round_) is not None
    assert decoder.decode(b"\x03", 100) is None
    assert decoder.decode(b"\x03", 101) is None
    with pytest.raises(UndecodableAudioError, match="cannot be decoded"):
        decoder.decode(b"\x03", 102)


def test_a_packet_that_is_too_large_is_refused() -> None:
    with pytest.raises(UndecodableAudioError, match="may have 8192 bytes, not 8193"):
        OpusDecoder().decode(bytes(MAX_PACKET_BYTES + 1), 0)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.binary(max_size=1500), max_size=20))
def test_any_bytes_are_sound_or_refused(pieces: list[bytes]) -> None:
    decoder = OpusDecoder()
    for index, piece in enumerate(pieces):
        try:
            received = decoder.decode(piece, 1000 * index)
        except UndecodableAudioError:
            return
        if received is not None:
            assert 0 < received.frame.samples <= 0.12 * SAMPLE_RATE
            assert (received.frame.sample_rate, received.frame.layout.nb_channels) == (SAMPLE_RATE, 2)
