"""Conversion of PyAV's ratios to fractions: version 19 has a type for them that rounds and compares otherwise."""

from __future__ import annotations

from fractions import Fraction
from typing import Protocol


class Ratio(Protocol):
    """A numerator and a denominator, such as a time base's."""

    @property
    def numerator(self) -> int:
        """The upper number."""

    @property
    def denominator(self) -> int:
        """The lower number, 0 where FFmpeg knows no value."""


def to_fraction(ratio: Ratio) -> Fraction:
    """Return the same ratio as a fraction; FFmpeg's 0/0 for what is not known becomes 0."""
    return Fraction(ratio.numerator, ratio.denominator) if ratio.denominator else Fraction(0)
