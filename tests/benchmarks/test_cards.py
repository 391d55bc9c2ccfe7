from __future__ import annotations

import json
from dataclasses import replace

import pytest

from benchmarks import cards
from benchmarks.cards import MEASURED, WRITTEN, Shares, milliseconds, plan, rate, step, table
from benchmarks.counted_operations import Kind, Piece
from benchmarks.datasheets import CARDS, card

SHARES = Shares(0.5, 0.5, 0.5, 0.5, 0.5, 0.001)


@pytest.mark.parametrize(
    ("piece", "took"),
    [
        # 71 TFLOP/s, 936 GB/s, half of each; 5.0 TFLOP/s of exponentials' half
        (Piece(Kind.PRODUCTS, 71e9, 0), 2.0),
        (Piece(Kind.CONVOLUTIONS, 71e9, 936e6 * 3), 6.0),
        (Piece(Kind.PASSES, 0, 936e6), 2.0),
        (Piece(Kind.PASSES, 0, 1), 0.001),
        (Piece(Kind.ATTENTION, 71e9, 0, 16 * 82 * 1.695e6), 4.0),
    ],
)
def test_a_kernel_takes_the_longest_of_what_it_needs(piece: Piece, took: float) -> None:
    assert milliseconds(piece, card("RTX 3090"), SHARES) == pytest.approx(took)


def test_eight_bits_take_half_where_the_card_has_them() -> None:
    piece = Piece(Kind.EIGHT_BITS, 1e12, 0)
    plain = replace(piece, kind=Kind.PRODUCTS)
    for name, ratio in (("RTX 4090", 0.5), ("RTX 3090", 1.0)):
        assert milliseconds(piece, card(name), SHARES) / milliseconds(plain, card(name), SHARES) == ratio


def test_plans_follow_the_memory_of_the_card() -> None:
    assert [plan(card(name)) for name in ("RTX 2060", "RTX 3070", "RTX 3080", "H100")] == [
        "`most`",
        "`on`",
        "`off`",
        "`off`",
    ]

    assert plan(replace(card("RTX 2060"), memory=3)) == "too small"


def test_measured_cards_are_told_as_measured() -> None:
    told = rate(card("H200"))
    assert told.measured
    assert told.exact == (87.2, 87.2)
    (row,) = table([told]).splitlines()[2:]
    assert row.startswith("| H200 | 141 | `off` | 87 | 46 | 37 | 59 | yes, yes | yes, yes | **measured** |")


@pytest.mark.slow
def test_the_model_is_right_where_both_are_known() -> None:
    shares = cards.calibrated()
    for name, most in (("H100", 0.01), ("H200", 0.1)):
        for case, settings, keyframes in (
            ("exact", "", 0),
            ("keyframes", "", 3),
            ("fast", "dtype=float8 vae=tiny", 0),
        ):
            took = step(card(name), shares, settings, keyframes)
            assert took == pytest.approx(MEASURED[name][case], rel=most), (name, case)


@pytest.mark.slow
def test_what_the_doctor_tells_is_what_the_model_says() -> None:
    """Written again where it is not: python -m benchmarks.cards --write."""
    written = json.loads(WRITTEN.read_text())
    for was, now in zip(written, cards.told([rate(each) for each in CARDS]), strict=True):
        assert was["card"] == now["card"]
        assert was["measured"] == now["measured"]
        assert was["fast_settings"] == now["fast_settings"]
        for name in ("exact", "fast"):
            assert was[name] == pytest.approx(now[name], abs=0.11)
