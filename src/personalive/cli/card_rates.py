"""What to expect of a graphics card by its name: `card_rates.json`, which `benchmarks/cards.py` writes."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

_VENDOR_PREFIX = r"(NVIDIA )?(GeForce |Tesla )?"
_FORM_FACTOR_SUFFIX = r"([ -](SXM\d?|\d+ ?GB|HBM\w*))*"
"""What may stand behind a card's name. Not among it: "Laptop GPU", "Ti", "SUPER", "PCIe" and "NVL", which are
others."""


@dataclass(frozen=True, slots=True)
class ExpectedRate:
    """Frames a second at 512×512 without keyframes, the least and the most to expect; both the same if `measured`.

    `exact`: with every default; `fast`: with `fast_settings`.
    """

    card: str
    measured: bool
    exact: tuple[float, float]
    fast: tuple[float, float]
    fast_settings: str

    @property
    def message(self) -> str:
        """For people."""
        least, most = self.exact
        how = "as measured" if self.measured else "computed from its datasheet"
        return (
            f"{_format_range(least, most)} frames per second, {_format_range(*self.fast)} with {self.fast_settings} ({how}; "
            "512×512, no history keyframe)."
        )


def find_expected_rate(name: str) -> ExpectedRate | None:
    """The rate of the card of that name, as drivers and PyTorch give it; None for one that is not known."""
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
