"""Where the delay comes from, as the page says it."""

from __future__ import annotations

import re
from collections.abc import Mapping

import pytest
from playwright.sync_api import Browser, expect

from tests.browser.chrome import DESKTOP, PHONE, TAP, Transport, Visit, visiting
from tests.browser.helpers import Shoot
from tests.server.running import RunningServer

pytestmark = [pytest.mark.browser, pytest.mark.slow]

MEASURED = re.compile(r"\d+\.\d\d s")
DIFFUSION = {"chunk": 70.2, "window": 400.1, "step": 95.0, "send": 12.3}
"""What a pipeline with a window says, ms."""


def part(visit: Visit, name: str) -> str:
    """What the page says of that part."""
    return visit.page.locator(f"#delay-list [data-part={name}]").inner_text().replace("\n", " ")


def test_the_parts_are_shown_while_it_runs(live: Visit) -> None:
    parts = live.page.get_by_role("region", name="Where the delay comes from")
    for name in ("Waiting to begin", "Computing", "Sending", "Network and browser"):
        row = parts.locator("div", has=live.page.get_by_role("term").filter(has_text=name))
        expect(row.get_by_role("definition")).to_have_text(MEASURED, timeout=20_000)
    expect(parts.locator("#delay-advice")).to_contain_text("Mostly")
    # The preview takes each frame as it comes, and has no window.
    expect(parts).not_to_contain_text("Waiting for")
    expect(parts).not_to_contain_text("Inside the model")
    live.page.get_by_role("button", name="Stop", exact=True).click()
    expect(parts).to_be_hidden()
    assert live.errors == []


@pytest.mark.parametrize("phone", [False, True])
def test_a_pipeline_with_a_window(
    transport: Transport, browser: Browser, server: RunningServer, shoot: Shoot, phone: bool
) -> None:
    server.wait_for_sessions(0)
    size = PHONE if phone else DESKTOP
    with visiting(
        browser, server.url, size, transport=transport, scripts=[TAP], is_mobile=phone, has_touch=phone
    ) as visit:
        visit.start()
        visit.wait_until_live()
        visit.change_stats({"delay_ms": DIFFUSION, "chunk_frames": 4})
        expect(visit.page.locator("#delay-list")).to_contain_text("Inside the model", timeout=20_000)
        assert part(visit, "chunk") == "Waiting for 4 frames 0.07 s"
        assert part(visit, "window") == "Inside the model 0.40 s"
        assert part(visit, "step") == "Computing 0.10 s"
        assert part(visit, "send") == "Sending 0.01 s"
        widths = {name: width(visit, name) for name in ("chunk", "window", "step")}
        for name, found in widths.items():
            # Widths are whole pixels of some hundred.
            assert found / widths["window"] == pytest.approx(DIFFUSION[name] / DIFFUSION["window"], abs=0.02)
        assert visit.page.evaluate("document.documentElement.scrollWidth") == visit.page.evaluate(
            "innerWidth"
        )
        for scheme in ("light", "dark"):
            visit.page.emulate_media(color_scheme=scheme)
            shoot(visit, f"{'phone' if phone else 'desktop'}-{scheme}-delay")
        visit.change_stats({"delay_ms": dict.fromkeys(DIFFUSION)})
        expect(visit.page.locator("#delay-list [data-part=step]")).to_have_text("Computing–")
        expect(visit.page.locator("#delay-advice")).to_have_text("")
        assert visit.errors == []
    server.wait_for_sessions(0)


def width(visit: Visit, name: str) -> float:
    # In one go: each second the pieces are replaced.
    found = visit.page.evaluate(
        "(name) => document.querySelector(`#delay-bar [data-part=${name}]`).getBoundingClientRect().width",
        name,
    )
    return float(found)


_ADVICE = """async ([given, told, onTheWay, rate]) => {
  const { DelayParts } = await import("/assets/js/delay-parts.js");
  const parts = new DelayParts();
  const properties = Object.fromEntries(given.map((name) => [name, {}]));
  parts.use({ load_parameters: { properties } });
  return told.map((one) => {
    parts.show(one, onTheWay, rate, 4);
    return document.getElementById("delay-advice").textContent;
  });
}"""


def advice(
    visit: Visit, *told: Mapping[str, float | None], given: tuple[str, ...] = (), on_the_way: float = 0.05
) -> list[str]:
    """What the page advises, second by second, at 25 driving frames per second."""
    found: list[str] = visit.page.evaluate(_ADVICE, [list(given), list(told), on_the_way, 25])
    return found


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({}, "the model, which looks at many frames"),
        ({"window": None, "chunk": 110.0}, "waiting for 4 frames, which are computed at once"),
        # Four frames have come after 160 ms: those that wait longer wait for something else.
        ({"window": None, "chunk": 300.0}, "waiting for the server to be free"),
        ({"window": None, "step": 200.0}, "computing"),
        ({"window": None, "send": 200.0}, "sending frames one by one"),
    ],
)
def test_the_advice_is_for_the_largest_part(
    visit: Visit, changed: dict[str, float | None], said: str
) -> None:
    assert said in advice(visit, DIFFUSION | changed)[0]


def test_the_network_may_be_the_largest_part(visit: Visit) -> None:
    assert "network and browser" in advice(visit, DIFFUSION, on_the_way=0.7)[0]


def test_a_pipeline_whose_latency_can_be_chosen(visit: Visit) -> None:
    assert "choose a faster Speed under “Before start”" in advice(visit, DIFFUSION, given=("latency",))[0]


def test_the_advice_does_not_flicker(visit: Visit) -> None:
    first: dict[str, float | None] = {"chunk": 50, "window": None, "step": 100, "send": 95}
    said = advice(visit, first, first | {"step": 95, "send": 100}, first | {"send": 200})
    assert said[0] == said[1] != said[2]


_SKIPPED = """async (told) => {
  const { Figures } = await import("/assets/js/figures.js");
  const figures = new Figures();
  figures.clear();
  const latency_ms = { p50: 100, p95: 120 };
  const stats = { fps_in: 30, fps_out: 30, latency_ms, dropped_out: 0, frames_without_face: 0 };
  return told.map(([frames_in, dropped_in]) => {
    figures.show({ ...stats, frames_in, dropped_in }, 0, "streaming");
    return document.getElementById("skipped-advice").textContent;
  });
}"""


def warnings(visit: Visit, shares: list[float]) -> list[bool]:
    """Whether the page warns, second by second, where that share of 100 driving frames is skipped in each."""
    frames, dropped, told = 0.0, 0.0, [(0.0, 0.0)]
    for share in shares:
        frames, dropped = frames + 100, dropped + 100 * share
        told.append((frames, dropped))
    found: list[str] = visit.page.evaluate(_SKIPPED, told)
    assert all("smaller Width and Height" in one for one in found if one)
    return [bool(one) for one in found[1:]]


def test_many_skipped_frames_are_a_warning(visit: Visit) -> None:
    assert warnings(visit, [0, 0.41, 0.41]) == [False, True, True]
    assert not any(warnings(visit, [0.02, 0.04] * 5))
    # One bad second among good ones is none, and one that is over is over after a while.
    assert not any(warnings(visit, [0, 0, 0, 0, 0.45, 0, 0, 0, 0, 0]))
    faded = warnings(visit, [0.4] * 3 + [0.0] * 8)
    assert faded[:4] == [True] * 4
    assert not faded[-1]
    # Around the limit it does not come and go.
    steady = warnings(visit, [0.12] * 6 + [0.08, 0.11] * 5)
    assert all(steady)
