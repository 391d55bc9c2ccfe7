"""VP9 and AV1 as FFmpeg sends them by RTP: packets and frames are made by others than what takes them apart."""

from __future__ import annotations

import contextlib
import socket
import struct
from collections.abc import Callable
from fractions import Fraction
from typing import cast

import av
import numpy as np
import pytest
from aiortc.jitterbuffer import JitterFrame
from hypothesis import given, settings
from hypothesis import strategies as st

from personalive.server.webrtc import decoders

GREYS = (40, 90, 140, 190)
RTP_HEADER = 12
LIVE = {
    "libvpx-vp9": {"cpu-used": "8", "lag-in-frames": "0"},
    "libsvtav1": {"preset": "10", "svtav1-params": "pred-struct=1:lp=1"},
}
"""What makes encoders send each frame at once, as broadcasters do."""


def encoded(encoder: str, size: tuple[int, int] = (320, 240)) -> list[bytes]:
    """A few noisy frames of rising brightness, so that each takes several packets."""
    context = cast(av.VideoCodecContext, av.CodecContext.create(encoder, "w"))
    context.width, context.height, context.pix_fmt = *size, "yuv420p"
    context.time_base = Fraction(1, 25)
    context.bit_rate = 0 if encoder == "libsvtav1" else 4_000_000  # which needs a constant quality for this
    context.options = LIVE[encoder]
    noise = np.random.default_rng(3).integers(-30, 30, (size[1], size[0], 3))
    packets = []
    for index, grey in enumerate(GREYS):
        picture = (grey + np.roll(noise, index, axis=1)).clip(0, 255).astype(np.uint8)
        frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format="yuv420p")
        frame.pts = index
        packets += [bytes(packet) for packet in context.encode(frame)]
    return packets + [bytes(packet) for packet in context.encode(None)]


def by_rtp(encoder: str) -> list[list[bytes]]:
    """The RTP payloads of each frame, as FFmpeg's own packetizer makes them."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        receiver.bind(("127.0.0.1", 0))
        receiver.settimeout(1)
        receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**20)
        frames: dict[int, list[bytes]] = {}
        url = f"rtp://127.0.0.1:{receiver.getsockname()[1]}?pkt_size=600"
        with av.open(url, "w", format="rtp", options={"strict": "experimental"}) as output:
            stream = output.add_stream(encoder, rate=25)
            assert isinstance(stream, av.VideoStream)
            stream.width, stream.height, stream.pix_fmt = 320, 240, "yuv420p"
            for index, data in enumerate(encoded(encoder)):
                packet = av.Packet(data)
                packet.pts = packet.dts = index
                packet.time_base, packet.stream = Fraction(1, 25), stream
                output.mux(packet)
        try:
            while True:
                data = receiver.recv(2048)
                if not 200 <= data[1] <= 204:  # RTCP
                    frames.setdefault(struct.unpack_from("!I", data, 4)[0], []).append(data[RTP_HEADER:])
        except TimeoutError:
            pass
    return list(frames.values())


def available(encoder: str) -> bool:
    with contextlib.suppress(av.FFmpegError, ValueError):
        av.CodecContext.create(encoder, "w")
        return True
    return False


def greys(codec: str, frames: list[list[bytes]]) -> list[float]:
    """The brightness of each decoded frame."""
    depayload: Callable[[bytes], bytes] = decoders._DEPAYLOADERS[codec]
    decoder = decoders.PacketDecoder(decoders._AVAILABLE_DECODERS[codec], decoders._ASSEMBLERS[codec])
    found = []
    for index, payloads in enumerate(frames):
        joined = b"".join(depayload(payload) for payload in payloads)
        for frame in decoder.decode(JitterFrame(joined, index * 3600)):
            assert isinstance(frame, av.VideoFrame)
            found.append(float(frame.reformat(format="gray").to_ndarray().mean()))
    return found


@pytest.mark.parametrize(("codec", "encoder"), [("VP9", "libvpx-vp9"), ("AV1", "libsvtav1")])
def test_what_ffmpeg_sends_is_seen_again(codec: str, encoder: str) -> None:
    if not available(encoder) or codec not in decoders.DECODABLE_CODECS:
        pytest.skip(f"there is no encoder or decoder of {codec}")
    frames = by_rtp(encoder)
    assert len(frames) == len(GREYS)
    assert len(frames[0]) > 3
    assert greys(codec, frames) == pytest.approx(GREYS, abs=8)


def test_layers_of_vp9_become_a_superframe() -> None:
    if not available("libvpx-vp9"):
        pytest.skip("there is no VP9 encoder")
    small, large = encoded("libvpx-vp9", (160, 120)), encoded("libvpx-vp9", (320, 240))
    # Flags: layer indices, beginning and end of a frame; then the layer's number, and the picture's.
    packets = [
        decoders.extract_vp9_payload(bytes([0x2C, layer << 1, 0]) + data)[4:]
        for layer, data in enumerate((small[0], large[0]))
    ]
    decoder = decoders.PacketDecoder(decoders._AVAILABLE_DECODERS["VP9"], decoders.assemble_vp9_frame)
    joined = b"".join(struct.pack("!I", len(packet)) + packet for packet in packets)
    (frame,) = decoder.decode(JitterFrame(joined, 0))
    assert isinstance(frame, av.VideoFrame)
    assert (frame.width, frame.height) == (320, 240)


@settings(max_examples=30, deadline=None)
@given(st.sampled_from(["VP9", "AV1"]), st.lists(st.binary(min_size=1, max_size=40), min_size=1, max_size=4))
def test_nonsense_is_no_frame_and_ends_nothing(codec: str, payloads: list[bytes]) -> None:
    if codec not in decoders.DECODABLE_CODECS:
        return
    try:
        joined = b"".join(decoders._DEPAYLOADERS[codec](payload) for payload in payloads)
    except ValueError:  # aiortc leaves such a packet out
        return
    decoder = decoders.PacketDecoder(decoders._AVAILABLE_DECODERS[codec], decoders._ASSEMBLERS[codec])
    with contextlib.suppress(av.FFmpegError):  # aiortc asks for a whole picture again
        assert decoder.decode(JitterFrame(joined, 0)) == []


@given(st.integers(0, 2**28 - 1))
def test_lengths_of_obus_are_read_as_written(value: int) -> None:
    written = decoders._encode_leb128(value)
    assert decoders._read_leb128(b"\x00" + written, 1) == (value, 1 + len(written))
