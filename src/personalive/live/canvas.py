"""The picture that goes out: the animated frame on a background, at one size for the whole run."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from personalive.errors import InputError
from personalive.face.crop import CropBox, ImageSize, extract_crop
from personalive.media import Image, fit_image, read_image
from personalive.media.image import fit_size

CANVAS_SIZE: ImageSize = (1280, 720)
_FEATHER = 0.1
"""Width of the blend from an animated frame to the portrait around it, as a share of the frame's shorter side."""
_BLUR_SHARE = 0.04
"""Standard deviation of the blurred background, as a share of the canvas's width."""
_BLUR_BRIGHTNESS = 0.6
_COLOUR = re.compile(r"#([0-9a-fA-F]{6})")


@dataclass(frozen=True, slots=True, eq=False)
class Background:
    """What surrounds the animated frame. `colour` is RGB, `image` uint8 RGB (height, width, 3)."""

    kind: Literal["extend", "blur", "colour", "image"]
    colour: tuple[int, int, int] = (0, 0, 0)
    image: Image | None = None


def parse_background(text: str) -> Background:
    """Return the background that `extend`, `blur`, `#rrggbb` or the path of a picture stands for.

    Raises `InputError` for another text, or a picture that cannot be read.
    """
    if text in {"extend", "blur"}:
        return Background("extend" if text == "extend" else "blur")
    if match := _COLOUR.fullmatch(text):
        red, green, blue = bytes.fromhex(match[1])
        return Background("colour", (red, green, blue))
    if text.startswith("#") or not Path(text).is_file():
        raise InputError(
            f"{text!r} is no background: use extend, blur, a colour such as #203040, or a picture's file."
        )
    return Background("image", image=read_image(Path(text)))


@dataclass(frozen=True, slots=True)
class Placement:
    """Where the animated frame lies on the canvas, in its pixels."""

    left: int
    top: int
    width: int
    height: int

    @property
    def region(self) -> tuple[slice, slice]:
        """The rows and columns that it covers."""
        return slice(self.top, self.top + self.height), slice(self.left, self.left + self.width)


def place_frame(frame: ImageSize, canvas: ImageSize) -> Placement:
    """Return the largest place in the middle of the canvas that has the frame's proportions."""
    width, height = fit_size(frame, canvas)
    return Placement((canvas[0] - width) // 2, (canvas[1] - height) // 2, width, height)


class Canvas:
    """A canvas of `size` (width, height) for one portrait. Immutable: any thread may use it."""

    def __init__(
        self,
        size: ImageSize,
        frame: ImageSize,
        background: Background,
        *,
        portrait: Image,
        box: CropBox,
    ) -> None:
        """Prepare for animated frames of `frame` (width, height), which show `box` of `portrait`."""
        self.size = size
        self._place = place = place_frame(frame, size)
        self._ground = _make_ground(background, size, place, portrait, box)
        self._ground.setflags(write=False)
        blended = background.kind == "extend" and (place.width, place.height) != size
        self._edges = _make_edges(place, size, self._ground) if blended else ()

    def compose(self, animated: Image) -> Image:
        """Return the canvas with the animated frame, uint8 RGB (h, w, 3), in its place."""
        place = self._place
        fitted = fit_image(animated, (place.width, place.height))
        if (place.width, place.height) == self.size:
            return fitted
        result = self._ground.copy()
        inside = result[place.region]
        inside[:] = fitted
        for part, share, below in self._edges:
            mixed = np.multiply(fitted[part], share, dtype=np.uint16)
            mixed += below
            mixed >>= 8
            inside[part] = mixed
        return result


def _make_ground(
    background: Background, size: ImageSize, place: Placement, portrait: Image, box: CropBox
) -> Image:
    if background.kind == "extend":
        # The canvas is a larger crop of the same portrait, on the same scale.
        across, down = box.width / place.width, box.height / place.height
        larger = CropBox(
            box.left - place.left * across, box.top - place.top * down, size[0] * across, size[1] * down
        )
        return extract_crop(portrait, larger, size)
    if background.kind == "image":
        assert background.image is not None
        return _cover(background.image, size)
    if background.kind == "blur":
        ground = cv2.GaussianBlur(
            _cover(portrait, size), (0, 0), _BLUR_SHARE * size[0], borderType=cv2.BORDER_REPLICATE
        )
        return (ground * _BLUR_BRIGHTNESS).astype(np.uint8)
    return np.full((size[1], size[0], 3), background.colour, np.uint8)


def _cover(image: Image, size: ImageSize) -> Image:
    """Return the middle of the picture at `size`, as much of it as its proportions allow."""
    return extract_crop(image, CropBox.largest((image.shape[1], image.shape[0]), size[0] / size[1]), size)


_Edge = tuple[tuple[slice, slice], NDArray[np.uint16], NDArray[np.uint16]]
"""A part of the frame, the share of the frame's pixels in it in 256ths, and what the ground adds to them."""


def _make_edges(place: Placement, size: ImageSize, ground: Image) -> tuple[_Edge, ...]:
    """Return the strips along those edges of the frame beyond which the canvas goes on."""
    width, height = place.width, place.height
    reach = max(round(_FEATHER * min(width, height)), 1)
    ramp = (np.arange(reach) + 0.5) / reach
    shares: NDArray[np.uint16] = np.rint(256 * ramp * ramp * (3 - 2 * ramp)).astype(np.uint16)
    whole = slice(None)
    # The frame is as wide as the canvas or as high, so strips of two kinds do not meet.
    if width < size[0]:
        across = shares[None, :, None]
        strips = [((whole, slice(0, reach)), across)]
        strips.append(((whole, slice(width - reach, width)), across[:, ::-1]))
    else:
        down = shares[:, None, None]
        strips = [((slice(0, reach), whole), down)]
        strips.append(((slice(height - reach, height), whole), down[::-1]))
    inside = ground[place.region]
    edges: list[_Edge] = []
    for part, share in strips:
        # At full shape, as broadcasting over three channels takes ten times as long.
        full: NDArray[np.uint16] = np.broadcast_to(share, inside[part].shape).copy()
        edges.append((part, full, np.multiply(inside[part], 256 - full, dtype=np.uint16)))
    return tuple(edges)
