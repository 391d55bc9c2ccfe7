"""What to expect of which graphics card: measured where it was, otherwise computed from work and datasheets.

    python -m benchmarks.cards            # the table of docs/reference/cards.md
    python -m benchmarks.cards --why      # the calibration, the model's errors, and where the time goes
    python -m benchmarks.cards --write    # what `personalive doctor` tells: src/personalive/cli/card_rates.json

A step is the kernels that `benchmarks.work` counts. Each takes the longest of three: its arithmetic at a share of
the datasheet's rate (`benchmarks.datasheets`), its bytes at a share of the datasheet's bandwidth, and the least
that any kernel takes. An attention's arithmetic is its products and, after them, its exponentials. The shares are
one for each kind of work, and are set so that a measured H100 takes what it took; what a measured H200 took is
compared.

Other cards are given as a range. At its slow end they reach the H100's shares. But an H100 is held back by its
power limit: its best products reach 0.70 of the datasheet's rate, its best copies 0.73. Cards with less
arithmetic to a watt are not, so at the fast end they reach their datasheet's rates where an H100 reaches those.
Cards for data centres have as much arithmetic to a watt as an H100, or nearly, and are given its shares alone.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from benchmarks.counted_operations import Kind, Piece
from benchmarks.datasheets import CARDS, Card, card
from benchmarks.work import count
from personalive.cli.gpu_memory import free_bytes, without_cuda_context
from personalive.cli.memory_plans import count_memory_plans, parse_memory_plan
from personalive.errors import PipelineUnavailableError
from personalive.pipelines.diffusion.checkpoints.random_weights import VARIANTS
from personalive.pipelines.diffusion.memory.plan import MemoryPlan, select_plans
from personalive.pipelines.diffusion.parameters import PersonaLiveLoadParameters

WRITTEN = Path(__file__).parents[1] / "src/personalive/cli/card_rates.json"
CHUNK = 4

H100_STAGES = {"encode_motion": 6.2, "encode_pose": 0.8, "denoise": 63.3, "decode": 20.4}
H200_STAGES = {"encode_motion": 6.0, "encode_pose": 0.8, "denoise": 59.7, "decode": 18.0}
"""ms of a step's stages without keyframes (docs/internals/performance.md, "Where it goes")."""
HOST = 2.3
"""ms of a step that belong to no stage, on both."""
MEASURED = {
    "H100": {"exact": 93.0, "keyframes": 115.2, "fast": 71.2},
    "H200": {"exact": 87.2, "keyframes": 108.1, "fast": 68.2},
}
"""ms of a step by default, with three keyframes, and with dtype=float8 vae=tiny (docs/internals/performance.md)."""
H100_APART = 95.0
"""ms of a step on an H100 with gates in kernels of their own."""
H100_PRODUCTS, H100_CONVOLUTIONS = 23.0, 22.0
"""ms of the UNet's and the decoder's products and convolutions, from a profile of that step."""
BEST_PRODUCT, BEST_COPY = 0.70, 0.73
"""Shares of the datasheet's rates that an H100 reached at best: 690 of 989 TFLOP/s, 2.44 of 3.35 TB/s."""
_HELD_BACK = 0.5
"""TFLOP/s to a watt from which on a card's power limits its products: half of what an H100's datasheet promises."""
_FIRST_PAIRED = (9, 0)
"""Capability from which on gates are opened in the product before them."""

Work = Mapping[str, Counter[Piece]]
"""Stage → its pieces, and how many there are of each."""


@dataclass(frozen=True, slots=True)
class Shares:
    """What is reached of a datasheet's rates; `least` ms is the shortest kernel."""

    products: float = 0.6
    eight_bits: float = 0.6
    convolutions: float = 0.6
    attention: float = 0.6
    memory: float = 0.7
    least: float = 0.003

    @property
    def at_best(self) -> Shares:
        """The same on a card that reaches its datasheet's rates where the H100 reaches what it does at best."""
        return Shares(
            products=min(self.products / BEST_PRODUCT, 1),
            eight_bits=min(self.eight_bits / BEST_PRODUCT, 1),
            convolutions=min(self.convolutions / BEST_PRODUCT, 1),
            attention=min(self.attention / BEST_PRODUCT, 1),
            memory=min(self.memory / BEST_COPY, 1),
            least=self.least,
        )


@dataclass(frozen=True, slots=True)
class Rate:
    """A card's steps in ms, the slow end first and the fast one last; the same twice where it is one number."""

    card: Card
    measured: bool
    exact: tuple[float, float]
    keyframes: tuple[float, float]
    fast: tuple[float, float]
    fast_settings: str

    def frames(self, name: str) -> tuple[float, float]:
        """Frames a second of "exact", "keyframes" or "fast"."""
        slow, quick = getattr(self, name)
        return 1000 * CHUNK / slow, 1000 * CHUNK / quick


def milliseconds(piece: Piece, on: Card, shares: Shares) -> float:
    """Return what one kernel takes."""
    moved = piece.nbytes / (on.bandwidth * shares.memory) / 1e6
    tflop, done = piece.flop / 1e9, 0.0  # TFLOP of a thousandth of a second
    if piece.kind is Kind.PRODUCTS:
        done = tflop / (on.tensor * shares.products)
    elif piece.kind is Kind.EIGHT_BITS:
        done = tflop / ((on.tensor8 or on.tensor) * shares.eight_bits)
    elif piece.kind is Kind.CONVOLUTIONS:
        done = tflop / (on.tensor * shares.convolutions)
    elif piece.kind is Kind.ATTENTION:
        done = (tflop / on.tensor + piece.exponentials / 1e9 / on.exponentials) / shares.attention
    elif piece.kind is Kind.FLOAT32:
        done = tflop / (on.float32 * shares.convolutions)
    return max(moved, done, shares.least)


def total(
    work: Work, on: Card, shares: Shares, stages: Iterable[str] | None = None, kind: Kind | None = None
) -> float:
    """Return the milliseconds of those stages' kernels of that kind; of all, if none is named."""
    return sum(
        many * milliseconds(piece, on, shares)
        for stage in stages or work
        for piece, many in work[stage].items()
        if kind is None or piece.kind is kind
    )


@cache
def counted(settings: str, keyframes: int, pairs: bool) -> Work:
    """Return the work of a step with these settings, "dtype=float8 vae=tiny" say."""
    given = dict(each.split("=") for each in settings.split())
    parameters = PersonaLiveLoadParameters.model_validate(given)
    pieces = count(VARIANTS["released"], parameters, keyframes=keyframes, pairs=pairs)
    return {stage: Counter(each) for stage, each in pieces.items()}


@cache
def calibrated() -> Shares:
    """Return the shares with which an H100 takes what it took."""
    on, plain = card("H100"), counted("", 0, True)
    more, fast = counted("", 3, True), counted("dtype=float8 vae=tiny", 0, True)
    large, shares = ("denoise", "decode"), Shares()

    def fitted(name: str, wanted: float, took: Callable[[Shares], float]) -> None:
        nonlocal shares
        shares = replace(
            shares, **{name: _root(lambda value: took(replace(shares, **{name: value})), wanted, name)}
        )

    keyframes = MEASURED["H100"]["keyframes"] - MEASURED["H100"]["exact"]
    for _ in range(8):
        fitted("least", H100_STAGES["encode_motion"], lambda one: total(plain, on, one, ["encode_motion"]))
        fitted("products", H100_PRODUCTS, lambda one: total(plain, on, one, large, Kind.PRODUCTS))
        fitted("convolutions", H100_CONVOLUTIONS, lambda one: total(plain, on, one, large, Kind.CONVOLUTIONS))
        fitted("attention", keyframes, lambda one: total(more, on, one) - total(plain, on, one))
        fitted("memory", sum(H100_STAGES[stage] for stage in large), lambda one: total(plain, on, one, large))
    fitted("eight_bits", MEASURED["H100"]["fast"] - HOST, lambda one: total(fast, on, one))
    return shares


def _root(took: Callable[[float], float], wanted: float, name: str) -> float:
    """Return the value that gives the wanted time, which falls with a share and grows with the least kernel."""
    low, high = (0.0, 0.05) if name == "least" else (0.05, 1.0)
    for _ in range(24):
        middle = (low + high) / 2
        if (took(middle) < wanted) == (name == "least"):
            low = middle
        else:
            high = middle
    return (low + high) / 2


def step(on: Card, shares: Shares, settings: str = "", keyframes: int = 0) -> float:
    """Return the milliseconds of a whole step."""
    work = counted(settings, keyframes, on.capability >= _FIRST_PAIRED)
    return total(work, on, shares) + HOST


def fast_settings(on: Card) -> str:
    """Return the settings of the fast mode: 8 bits where the card can."""
    return "vae=tiny" if on.tensor8 is None else "dtype=float8 vae=tiny"


def rate(on: Card) -> Rate:
    """Return what to expect of a card."""
    settings = fast_settings(on)
    if on.name in MEASURED:
        each = {name: (value, value) for name, value in MEASURED[on.name].items()}
        return Rate(on, True, each["exact"], each["keyframes"], each["fast"], settings)
    slow = calibrated()
    quick = slow if on.tensor / on.watts > _HELD_BACK else slow.at_best

    def ends(given: str, keyframes: int) -> tuple[float, float]:
        return step(on, slow, given, keyframes), step(on, quick, given, keyframes)

    return Rate(on, False, ends("", 0), ends("", 3), ends(settings, 0), settings)


def _range(values: tuple[float, float], digits: int = 0) -> str:
    first, last = (f"{value:.{digits}f}" for value in values)
    return first if first == last else f"{first}–{last}"


def _real_time(slow: float, quick: float, wanted: float) -> str:
    return "yes" if slow >= wanted else "perhaps" if quick >= wanted else "no"


@cache
def _plans() -> tuple[MemoryPlan, ...]:
    return without_cuda_context(tuple(parse_memory_plan(each) for each in count_memory_plans()))


def plan(on: Card) -> str:
    """Return the memory plan for what a card's desktop leaves, as `low_vram` names it."""
    try:
        return f"`{select_plans(_plans(), 'auto', free_bytes(int(on.memory * 2**30)))[0].name}`"
    except PipelineUnavailableError:
        return "too small"


_HEAD = (
    "card",
    "GB",
    "plan",
    "step, ms",
    "fps exact",
    "– three keyframes",
    "fps fast",
    "25 fps: exact, fast",
    "30 fps: exact, fast",
    "",
)


def table(rates: Iterable[Rate]) -> str:
    """Return the page's table."""
    lines = [
        f"| {' | '.join(_HEAD)} |",
        "|---|--:|---|--:|--:|--:|--:|---|---|---|",
    ]
    for each in rates:
        exact, fast = each.frames("exact"), each.frames("fast")
        star = "" if "float8" in each.fast_settings else " *"
        real = [", ".join(_real_time(*mode, wanted) for mode in (exact, fast)) for wanted in (25, 30)]
        cells = [
            each.card.name,
            f"{each.card.memory:.0f}",
            plan(each.card),
            _range((each.exact[1], each.exact[0])),
            _range(exact),
            _range(each.frames("keyframes")),
            _range(fast) + star,
            *real,
            "**measured**" if each.measured else "computed",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def errors() -> str:
    """Return the model beside what was measured, as Markdown."""
    shares = calibrated()
    lines = ["| | measured, ms | model, ms | error |", "|---|--:|--:|--:|"]

    def row(name: str, took: float, model: float) -> None:
        lines.append(f"| {name} | {took:.1f} | {model:.1f} | {100 * (model / took - 1):+.1f} % |")

    for name, stages in (("H100", H100_STAGES), ("H200", H200_STAGES)):
        on = card(name)
        for stage, took in stages.items():
            row(f"{name}, {stage}", took, total(counted("", 0, True), on, shares, [stage]))
        cases = (("exact", "", 0), ("keyframes", "", 3), ("fast", fast_settings(on), 0))
        for case, settings, keyframes in cases:
            row(f"{name}, step, {case}", MEASURED[name][case], step(on, shares, settings, keyframes))
    apart = total(counted("", 0, False), card("H100"), shares) + HOST
    row("H100, step, exact, gates apart", H100_APART, apart)
    return "\n".join(lines)


def by_kind(cards: Iterable[Card]) -> str:
    """Return the milliseconds of a step by kind of work, at the slow end, as Markdown."""
    lines = ["| card | " + " | ".join(Kind) + " |", "|---|" + "--:|" * len(Kind)]
    for each in cards:
        work = counted("", 0, each.capability >= _FIRST_PAIRED)
        cells = [f"{total(work, each, calibrated(), kind=kind):.1f}" for kind in Kind]
        lines.append(f"| {each.name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def told(rates: Iterable[Rate]) -> list[dict[str, object]]:
    """Return what the doctor needs of the rates: frames a second, the slow end first."""
    return [
        {
            "card": each.card.name,
            "measured": each.measured,
            "exact": [round(value, 1) for value in each.frames("exact")],
            "fast": [round(value, 1) for value in each.frames("fast")],
            "fast_settings": each.fast_settings,
        }
        for each in rates
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--why", action="store_true", help="the calibration and the model's errors")
    parser.add_argument("--write", action="store_true", help=f"write {WRITTEN.name} for the doctor")
    args = parser.parse_args()
    rates = [rate(each) for each in CARDS]
    print(table(rates))
    if args.why:
        print(f"\n{calibrated()}\n\n{errors()}\n\n{by_kind(CARDS)}")
    if args.write:
        rows = ",\n".join(f"  {json.dumps(each)}" for each in told(rates))
        WRITTEN.write_text(f"[\n{rows}\n]\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
