"""Expected frame rates of graphics cards by name, from `card_rates.json`, which `benchmarks/cards.py` writes."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

_VENDOR_PREFIX = r"(NVIDIA )?(GeForce |Tesla )?"
_FORM_FACTOR_SUFFIX = r"([ -](SXM\d?|\d+ ?GB|HBM\w*))*"
"""Suffixes that do not change a card; "Laptop GPU", "Ti", "SUPER", "PCIe" and "NVL" name other cards."""


@dataclass(frozen=True, slots=True)
class ExpectedRate:
    """Frames per second at 512×512 without keyframes, lowest and highest; equal if `measured`.

    `exact`: with all defaults; `fast`: with `fast_settings`.
    """

    card: str
    measured: bool
    exact: tuple[float, float]
    fast: tuple[float, float]
    fast_settings: str

    @property
    def message(self) -> str:
        """The rates as a sentence for people."""
        least, most = self.exact
        how = "as measured" if self.measured else "computed from its datasheet"
        return (
            f"{_format_range(least, most)} frames per second, {_format_range(*self.fast)} with "
            f"{self.fast_settings} ({how}; "
            "512×512, no history keyframe)."
        )


def find_expected_rate(name: str) -> ExpectedRate | None:
    """Return the rate of a card by the name that drivers and PyTorch report; None for an unknown card."""
    for each in _read_table():
        if re.fullmatch(f"{_VENDOR_PREFIX}{re.escape(each.card)}{_FORM_FACTOR_SUFFIX}", name):
            return each
    return None


def _format_range(least: float, most: float) -> str:
    first, last = f"{least:.0f}", f"{most:.0f}"
    return first if first == last else f"{first} to {last}"


@cache
def _read_table() -> tuple[ExpectedRate, ...]:
    rows = json.loads((files("personalive.cli") / "card_rates.json").read_text(encoding="utf-8"))
    return tuple(
        ExpectedRate(
            row["card"], row["measured"], tuple(row["exact"]), tuple(row["fast"]), row["fast_settings"]
        )
        for row in rows
    )
