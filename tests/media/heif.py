"""HEIC files for the tests: no encoder is at hand, so pictures are coded as video and put into boxes."""

from __future__ import annotations

import io
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field

import av
import numpy as np

from personalive.media import Image


def box(kind: bytes, *parts: bytes) -> bytes:
    body = b"".join(parts)
    return struct.pack(">I4s", 8 + len(body), kind) + body


def full_box(kind: bytes, *parts: bytes, version: int = 0, flags: int = 0) -> bytes:
    return box(kind, struct.pack(">I", version << 24 | flags), *parts)


def coded(image: Image) -> tuple[bytes, bytes]:
    """The decoder's configuration and the one sample of a picture in HEVC."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        options = {"x265-params": "log-level=none:keyint=1:crf=8", "preset": "ultrafast"}
        stream = container.add_stream("libx265", rate=1, options=options)
        stream.height, stream.width = image.shape[:2]
        stream.pix_fmt = "yuv420p"
        stream.codec_context.codec_tag = "hvc1"
        for frame in (av.VideoFrame.from_ndarray(image, format="rgb24"), None):
            container.mux(stream.encode(frame))
    data = buffer.getvalue()
    start = data.index(b"hvcC") - 4
    configuration = data[start : start + int.from_bytes(data[start : start + 4], "big")]
    with av.open(io.BytesIO(data), "r") as written:
        sample = bytes(next(written.demux(video=0)))
    return configuration, sample


@dataclass
class _Item:
    id: int
    kind: bytes
    payload: bytes
    properties: tuple[int, ...]
    parts: Sequence[int] = field(default_factory=tuple)


def heic(
    image: Image,
    *,
    tile: int | None = None,
    claimed: tuple[int, int] | None = None,
    turn: int = 0,
    brand: bytes = b"heic",
    repeat: int = 1,
) -> bytes:
    """A HEIC of one picture, or of square tiles as phones write it.

    `claimed` is the (width, height) that it says it has. `turn` quarter turns, counter-clockwise, are to be applied
    when it is shown. `repeat` names each tile that many times in a grid of as many times the width.
    """
    height, width = image.shape[:2]
    side = (tile, tile) if tile else (height, width)
    tiles = [
        np.ascontiguousarray(image[top : top + side[0], left : left + side[1]])
        for top in range(0, height, side[0])
        for left in range(0, width, side[1])
    ]
    samples = [coded(each) for each in tiles]
    across, down = claimed or (width * repeat, height)
    shapes = [(side[1], side[0]), (across, down)] if tile else [(across, down)]
    properties = [
        samples[0][0],
        *(full_box(b"ispe", struct.pack(">II", *shape)) for shape in shapes),
        box(b"irot", bytes([turn])),
    ]
    turned = (len(properties),) if turn else ()
    items = [_Item(index, b"hvc1", sample, (1, 2)) for index, (_, sample) in enumerate(samples, 1)]
    if tile:
        rows, columns = height // tile, width // tile * repeat
        grid = struct.pack(">BBBBII", 0, 1, rows - 1, columns - 1, across, down)
        order = [
            1 + row * (width // tile) + column % (width // tile)
            for row in range(rows)
            for column in range(columns)
        ]
        items.append(_Item(len(items) + 1, b"grid", grid, (3, *turned), order))
    else:
        items[0].properties += turned
    return _file(items, properties, brand)


def _file(items: Sequence[_Item], properties: Sequence[bytes], brand: bytes) -> bytes:
    main = items[-1]
    kind = box(b"ftyp", brand, struct.pack(">I", 0), b"mif1heic")
    entries = [
        full_box(
            b"infe", struct.pack(">HH4s", item.id, 0, item.kind), b"\0", version=2, flags=item is not main
        )
        for item in items
    ]
    associations = [
        struct.pack(">HB", item.id, len(item.properties)) + bytes(item.properties) for item in items
    ]
    parts = struct.pack(f">HH{len(main.parts)}H", main.id, len(main.parts), *main.parts)

    def meta(start: int) -> bytes:
        places, at = [], start
        for item in items:
            places.append(struct.pack(">HHHII", item.id, 0, 1, at, len(item.payload)))
            at += len(item.payload)
        return full_box(
            b"meta",
            full_box(b"hdlr", struct.pack(">I4s12s", 0, b"pict", b""), b"\0"),
            full_box(b"pitm", struct.pack(">H", main.id)),
            full_box(b"iloc", struct.pack(">HH", 0x4400, len(items)), *places),
            full_box(b"iinf", struct.pack(">H", len(items)), *entries),
            *([full_box(b"iref", box(b"dimg", parts))] if main.parts else []),
            box(
                b"iprp",
                box(b"ipco", *properties),
                full_box(b"ipma", struct.pack(">I", len(items)), *associations),
            ),
        )

    start = len(kind) + len(meta(0)) + 8
    return kind + meta(start) + box(b"mdat", *(item.payload for item in items))
