"""GIF output with a palette per frame, in constant memory."""

from __future__ import annotations

import contextlib
import os
from fractions import Fraction
from pathlib import Path
from typing import cast

import av
import numpy as np
import PIL.Image

from personalive.media import gif_metadata, xmp
from personalive.media.atomic_writer import VideoWriter
from personalive.media.output import OutputFile, translate_write_errors
from personalive.media.provenance import Provenance
from personalive.media.types import Image

# Browsers show frames of less than 2/100 s for 10/100 s.
_MAX_RATE = 50


class GifWriter(VideoWriter):
    """A writer of frames of one size to a looping GIF; see `open_writer`. At most 50 per second are kept."""

    def __init__(
        self, path: Path, *, size: tuple[int, int], rate: Fraction, provenance: Provenance, overwrite: bool
    ) -> None:
        super().__init__(path, size)
        self._rate = rate
        self._shown_rate = min(rate, Fraction(_MAX_RATE))
        self._provenance = provenance
        self._last_tick = -1
        if rate > _MAX_RATE:
            self.warnings.append(f"GIF shows at most {_MAX_RATE} frames per second: the others are left out.")
        self._output = OutputFile(path, overwrite=overwrite)
        with translate_write_errors(path, self._output.discard):
            self._start()

    def _add(self, image: Image) -> None:
        tick = int(self._count * self._shown_rate / self._rate)
        if tick == self._last_tick:
            return
        self._last_tick = tick
        frame = _quantize_palette(image)
        frame.pts = tick
        frame.time_base = 1 / self._shown_rate
        self._container.mux(self._stream.encode(frame))

    def _complete(self) -> None:
        self._container.mux(self._stream.encode(None))
        self._container.close()
        packet = xmp.build_packet(self._provenance.metadata())
        gif_metadata.append_metadata(self._output.partial, self._provenance.comment, packet)
        self._output.commit()

    def _discard(self) -> None:
        self._output.discard()
        with contextlib.suppress(Exception):
            self._container.close()

    def _start(self) -> None:
        width, height = self._size
        self._container = av.open("file:" + os.fspath(self._output.partial), "w", format="gif")
        stream = self._container.add_stream("gif", rate=self._shown_rate)
        stream.width, stream.height, stream.pix_fmt = width, height, "pal8"
        self._stream = stream


def _quantize_palette(image: Image) -> av.VideoFrame:
    """Reduce a picture to its best 256 colours.

    Pillow's octree with dithering is both closer to the original and many times faster on portraits than
    FFmpeg's palettegen and paletteuse.
    """
    picture = PIL.Image.fromarray(image)
    if picture.getcolors(256) is not None:
        # Pictures with few colours, such as grey ones, keep them all; the octree would merge some.
        drawn = picture.quantize(256, method=PIL.Image.Quantize.MEDIANCUT)
    else:
        chosen = picture.quantize(256, method=PIL.Image.Quantize.FASTOCTREE)
        drawn = picture.quantize(palette=chosen, dither=PIL.Image.Dither.FLOYDSTEINBERG)
    colours = np.frombuffer(bytes(drawn.getpalette("RGB") or b""), np.uint8).reshape(-1, 3)
    palette = np.zeros((256, 4), np.uint8)
    palette[:, 0] = 255
    palette[: len(colours), 1:] = colours
    # PyAV's stubs leave out that pal8 takes indices and an ARGB palette.
    pair = cast(Image, (np.array(drawn, np.uint8), palette))
    return av.VideoFrame.from_ndarray(pair, format="pal8")
