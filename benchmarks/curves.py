"""Small multiples of a figure over time, as a PNG."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import PIL.Image
import PIL.ImageDraw
import PIL.ImageFont

WIDTH, HEIGHT, MARGIN, COLUMNS = 420, 220, 40, 3
_INK, _LINE, _BOUND, _GRID = "#222222", "#1f6feb", "#d1495b", "#dddddd"


@dataclass(frozen=True)
class Curve:
    """Seconds since the beginning and a value; `bound` is drawn across, where there is one.

    Values are shown times `scale`, in `unit`: by default seconds as milliseconds.
    """

    title: str
    points: Sequence[tuple[float, float]]
    bound: float | None = None
    scale: float = 1000.0
    unit: str = "ms"


def draw(path: Path, curves: Sequence[Curve]) -> None:
    """Write them, each with its own axis that begins at zero."""
    rows = math.ceil(len(curves) / COLUMNS)
    sheet = PIL.Image.new("RGB", (WIDTH * min(len(curves), COLUMNS), HEIGHT * rows), "white")
    for index, curve in enumerate(curves):
        row, column = divmod(index, COLUMNS)
        sheet.paste(_panel(curve), (column * WIDTH, row * HEIGHT))
    sheet.save(path)


def _panel(curve: Curve) -> PIL.Image.Image:
    panel = PIL.Image.new("RGB", (WIDTH, HEIGHT), "white")
    pen, font = PIL.ImageDraw.Draw(panel), PIL.ImageFont.load_default(13)
    longest = max((time for time, _ in curve.points), default=1.0) or 1.0
    highest = 1.15 * max([value for _, value in curve.points] + [curve.bound or 0.0])

    def place(time: float, value: float) -> tuple[float, float]:
        across, up = time / longest, value / highest
        return 1.4 * MARGIN + across * (WIDTH - 2 * MARGIN), HEIGHT - MARGIN - up * (HEIGHT - 2 * MARGIN)

    pen.text((1.4 * MARGIN, 10), curve.title, fill=_INK, font=font)
    step = _round(highest / 4)
    for tick in range(int(highest / step) + 1):
        value = tick * step
        pen.line([place(0, value), place(longest, value)], fill=_GRID)
        pen.text((6, place(0, value)[1] - 8), f"{curve.scale * value:.0f}", fill=_INK, font=font)
    pen.text((WIDTH - 2 * MARGIN, HEIGHT - MARGIN + 8), f"{longest:.0f} s", fill=_INK, font=font)
    pen.text((6, 10), curve.unit, fill=_INK, font=font)
    if curve.bound is not None:
        pen.line([place(0, curve.bound), place(longest, curve.bound)], fill=_BOUND)
    pen.line([place(*point) for point in curve.points], fill=_LINE, width=2)
    return panel


def _round(value: float) -> float:
    """Return a little less, with one digit that counts: 1, 2 or 5."""
    power = 10.0 ** math.floor(math.log10(value))
    return next(digit * power for digit in (5, 2, 1) if digit * power <= value)
