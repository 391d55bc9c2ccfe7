"""Decode VP9 and AV1 from RTP, which aiortc does not support, by RFC 9628 and AV1's RTP specification.

aiortc joins what `depayload` returns for the packets of a frame, and passes the result to a decoder. Both formats
need to know where each packet ends, so each packet is prefixed with its length.
"""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Callable, Iterator
from fractions import Fraction
from functools import cache
from typing import Any, cast

import av
from aiortc import rtcrtpreceiver, rtp
from aiortc.codecs import CODECS
from aiortc.codecs.base import Decoder
from aiortc.jitterbuffer import JitterFrame
from aiortc.rtcrtpparameters import RTCRtcpFeedback, RTCRtpCodecParameters
from av.frame import Frame

_CLOCK_RATE = 90_000
_TIME_BASE = Fraction(1, _CLOCK_RATE)
_DECODER_NAMES = {"VP9": ("vp9", "libvpx-vp9"), "AV1": ("libdav1d", "libaom-av1")}
"""FFmpeg decoders by codec. FFmpeg's own AV1 decoder is left out, since it needs hardware."""
_FEEDBACK = (("nack", None), ("nack", "pli"), ("goog-remb", None))
_LENGTH_PREFIX = struct.Struct("!I")
_OBU_EXTENSION, _OBU_HAS_SIZE = 0x04, 0x02
_TEMPORAL_DELIMITER, _TILE_LIST = 2, 8


def _is_available(name: str) -> str | None:
    for decoder in _DECODER_NAMES[name]:
        with contextlib.suppress(Exception):  # the class of the error depends on PyAV's version
            av.codec.Codec(decoder, "r")
            return decoder
    return None


_AVAILABLE_DECODERS = {
    name: decoder for name in _DECODER_NAMES if (decoder := _is_available(name)) is not None
}
DECODABLE_CODECS = frozenset({"H264", "VP8", *_AVAILABLE_DECODERS})
"""The video codecs that can be decoded here, by their names in offers."""


@cache
def register_decoders() -> None:
    """Add VP9, AV1 and payload types below 64 to aiortc; browsers use those since 96 to 127 do not suffice."""
    rtp.DYNAMIC_PAYLOAD_TYPES = cast(range, frozenset({*range(35, 64), *range(96, 128)}))
    for number, name in enumerate(_AVAILABLE_DECODERS):
        feedback = [RTCRtcpFeedback(type=kind, parameter=parameter) for kind, parameter in _FEEDBACK]
        CODECS["video"].append(
            RTCRtpCodecParameters(
                mimeType=f"video/{name}",
                clockRate=_CLOCK_RATE,
                payloadType=35 + number,
                rtcpFeedback=feedback,
            )
        )
    module: Any = rtcrtpreceiver
    known_depayload, known_decoder = module.depayload, module.get_decoder

    def depayload(codec: RTCRtpCodecParameters, payload: bytes) -> bytes:
        own = _DEPAYLOADERS.get(codec.name.upper())
        return cast(bytes, known_depayload(codec, payload)) if own is None else own(payload)

    def get_decoder(codec: RTCRtpCodecParameters) -> Decoder:
        own = _ASSEMBLERS.get(codec.name.upper())
        if own is None:
            return cast(Decoder, known_decoder(codec))
        return PacketDecoder(_AVAILABLE_DECODERS[codec.name.upper()], own)

    module.depayload, module.get_decoder = depayload, get_decoder


class PacketDecoder(Decoder):
    """A decoder of frames given as packets, each prefixed with its length."""

    def __init__(self, decoder: str, assemble: Callable[[list[bytes]], bytes]) -> None:
        self._codec = cast(av.VideoCodecContext, av.CodecContext.create(decoder, "r"))
        # Decoding with a thread for each frame would delay frames.
        self._codec.thread_type = "SLICE"
        if decoder == "libdav1d":
            self._codec.options = {"max_frame_delay": "1"}
        self._assemble = assemble

    def decode(self, encoded_frame: JitterFrame) -> list[Frame]:
        """Decode the frame, or return nothing for a damaged one.

        Raises `av.FFmpegError`, after which aiortc asks for a key frame.
        """
        try:
            data = self._assemble(list(_split_packets(encoded_frame.data)))
        except (ValueError, IndexError, struct.error):
            return []
        packet = av.Packet(data)
        packet.pts, packet.time_base = encoded_frame.timestamp, _TIME_BASE
        # If a picture has several layers, the last one is the largest.
        return [cast(Frame, frame) for frame in self._codec.decode(packet)[-1:]]


def extract_vp9_payload(payload: bytes) -> bytes:
    """Return a packet's length, spatial layer and data. Raises `ValueError` where its descriptor is cut off."""
    try:
        layer, begin = _parse_vp9_descriptor(payload)
    except IndexError:
        raise ValueError("the VP9 descriptor is cut off") from None
    return _prefix_length(bytes([layer]) + payload[begin:])


def _parse_vp9_descriptor(payload: bytes) -> tuple[int, int]:
    """Return the spatial layer, and the offset at which the frame's data begins."""
    flags, at, layer = payload[0], 1, 0
    flexible = flags & 0x10
    if flags & 0x80:  # picture id
        at += 2 if payload[at] & 0x80 else 1
    if flags & 0x20:  # layer indices
        layer = payload[at] >> 1 & 7
        at += 1 if flexible else 2
    if flexible and flags & 0x40:  # reference indices, three at most
        for _ in range(3):
            at += 1
            if not payload[at - 1] & 1:
                break
    if flags & 0x02:  # scalability structure
        at = _skip_vp9_structure(payload, at)
    if at > len(payload):
        raise IndexError
    return layer, at


def _skip_vp9_structure(payload: bytes, at: int) -> int:
    flags = payload[at]
    at += 1
    if flags & 0x10:  # a size for each layer
        at += 4 * ((flags >> 5) + 1)
    if flags & 0x08:  # a picture group
        count = payload[at]
        at += 1
        for _ in range(count):
            at += 1 + (payload[at] >> 2 & 3)
    return at


def assemble_vp9_frame(packets: list[bytes]) -> bytes:
    """Return the frame of these packets; with several spatial layers, a superframe (VP9's annex B)."""
    layers: dict[int, bytearray] = {}
    for packet in packets:
        layers.setdefault(packet[0], bytearray()).extend(packet[1:])
    frames = [bytes(layers[layer]) for layer in sorted(layers) if layers[layer]]
    if len(frames) < 2:
        return b"".join(frames)
    marker = bytes([0b110 << 5 | 3 << 3 | len(frames) - 1])
    sizes = b"".join(struct.pack("<I", len(frame)) for frame in frames)
    return b"".join(frames) + marker + sizes + marker


def assemble_av1_frame(packets: list[bytes]) -> bytes:
    """Return the temporal unit of these packets, each OBU with its size. Raises `ValueError` if it is damaged."""
    units: list[bytearray] = []
    open_unit = False
    for packet in packets:
        continues, goes_on = bool(packet[0] & 0x80), bool(packet[0] & 0x40)
        elements = list(_split_av1_elements(packet))
        if continues and not open_unit:
            raise ValueError("the beginning of an OBU is missing")
        for number, element in enumerate(elements):
            if number == 0 and continues:
                units[-1] += element
            else:
                units.append(bytearray(element))
        open_unit = goes_on
    if open_unit:
        raise ValueError("the end of an OBU is missing")
    return bytes([_TEMPORAL_DELIMITER << 3 | _OBU_HAS_SIZE, 0]) + b"".join(map(_add_obu_size, units))


def _split_av1_elements(packet: bytes) -> Iterator[bytes]:
    count, at, number = packet[0] >> 4 & 3, 1, 0
    while at < len(packet):
        number += 1
        length = len(packet) - at
        if number != count:
            length, at = _read_leb128(packet, at)
        if at + length > len(packet):
            raise ValueError("an OBU is cut off")
        yield packet[at : at + length]
        at += length


def _add_obu_size(unit: bytearray) -> bytes:
    if not unit or (unit[0] >> 3 & 15) in {_TEMPORAL_DELIMITER, _TILE_LIST}:
        return b""
    if unit[0] & _OBU_HAS_SIZE:
        return bytes(unit)
    begin = 2 if unit[0] & _OBU_EXTENSION else 1
    head = bytes([unit[0] | _OBU_HAS_SIZE]) + bytes(unit[1:begin])
    return head + _encode_leb128(len(unit) - begin) + bytes(unit[begin:])


def _read_leb128(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 35, 7):
        value |= (data[at] & 0x7F) << shift
        at += 1
        if not data[at - 1] & 0x80:
            return value, at
    raise ValueError("a length is too long")


def _encode_leb128(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _prefix_length(packet: bytes) -> bytes:
    return _LENGTH_PREFIX.pack(len(packet)) + packet


def _split_packets(data: bytes) -> Iterator[bytes]:
    at = 0
    while at < len(data):
        (length,) = _LENGTH_PREFIX.unpack_from(data, at)
        at += _LENGTH_PREFIX.size
        yield data[at : at + length]
        at += length


_DEPAYLOADERS = {"VP9": extract_vp9_payload, "AV1": _prefix_length}
_ASSEMBLERS = {"VP9": assemble_vp9_frame, "AV1": assemble_av1_frame}
