from __future__ import annotations

import getpass
import platform
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import personalive as package
from personalive.cli import share_results

if TYPE_CHECKING:
    from tests.cli.conftest import Call

SMALL = ("--set", "height=64", "--set", "width=64", "--set", "device=cpu", "--steps", 2)


@pytest.mark.slow
def test_a_row_has_every_column_and_nothing_personal(personalive: Call, test_weights: Path) -> None:
    outcome = personalive("bench", *SMALL, "--weights", test_weights, "--share")
    assert outcome.code == 0
    (row,) = outcome.out.splitlines()
    header = next(line for line in outcome.err.splitlines() if line.startswith("| card |"))
    columns, cells = ([cell.strip() for cell in line.strip("|").split("|")] for line in (header, row))
    told = dict(zip(columns, cells, strict=True))
    assert (told["card"], told["capability"], told["held, GB"]) == ("cpu", "–", "–")
    assert told["personalive"] == package.__version__
    assert told["settings"] == "height=64 width=64 device=cpu"
    assert told["memory plan"] == "off"
    assert told["weights"] == "a set on disk"
    assert float(told["step, ms"]) > 0
    assert float(told["p95, ms"]) >= float(told["step, ms"])
    assert float(told["fps"]) == pytest.approx(4000 / float(told["step, ms"]), abs=0.06)
    for personal in (platform.node(), str(test_weights), str(Path.home())):
        assert personal not in row
    if len(getpass.getuser()) > 3:
        assert getpass.getuser() not in row
    assert share_results.format_header(columns) in outcome.err
    assert "Send it" in outcome.err


def test_what_breaks_a_table_is_taken_out() -> None:
    assert share_results.format_row(("a|b\n`c`", "NVIDIA H100 80GB HBM3", "2.11.0+cu130")) == (
        "| abc | NVIDIA H100 80GB HBM3 | 2.11.0+cu130 |"
    )


def test_it_is_sent_to_where_the_package_says() -> None:
    urls = ["Homepage, https://example.org", "Issues, https://example.org/issues"]
    assert share_results.pick_tracker_url(urls) == "https://example.org/issues"
    assert (
        share_results.pick_tracker_url([*urls, "Discussions, https://example.org/talk"])
        == "https://example.org/talk"
    )
    assert (
        share_results.pick_tracker_url(urls[:1])
        == "the issue tracker of the repository that you got personalive from"
    )
