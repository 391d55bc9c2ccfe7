"""Nothing lies on anything, at any size of the window and however far the page is enlarged."""

from __future__ import annotations

import pytest
from playwright.sync_api import Browser, expect

from tests.browser.chrome import TAP, Transport, Visit, visiting
from tests.browser.helpers import Shoot
from tests.server.running import RunningServer

pytestmark = [pytest.mark.browser, pytest.mark.slow]

SIZES = {
    "laptop": (1366, 768),
    "laptop-with-bars": (1366, 650),
    "narrowest-with-two-columns": (821, 1000),
    "tablet": (834, 1112),
    "window": (900, 700),
    "enlarged-half-again": (911, 512),
    "enlarged-twice": (683, 384),
    "enlarged-three-times": (455, 256),
    "phone": (390, 844),
    "small-phone": (320, 568),
    "phone-on-its-side": (844, 390),
    "large": (1920, 1080),
}
"""Width and height in CSS pixels: a screen that is enlarged has fewer."""

_COVERED = """() => {
  const named = "button, input:not(.unseen), select, summary, a[href], label, dt, dd, h1, h3, p, small, figcaption";
  const within = (outer, inner) => outer.contains(inner) || inner.contains(outer);
  const label = (element) => element.closest("label");
  const ofOne = (a, b) => within(a, b) || (label(a) !== null && label(a) === label(b));
  const covered = [];
  for (const element of document.querySelectorAll(named)) {
    if (element.closest("dialog, .unseen, .skip, #drop-veil, .announced") || !element.checkVisibility()) continue;
    if (element.matches("p, dt, dd, h1, h3, small, label") && element.textContent.trim() === "") continue;
    element.scrollIntoView({ block: "nearest" });
    const box = element.getBoundingClientRect();
    if (box.width < 6 || box.height < 6) continue;
    const middle = [(box.left + box.right) / 2, (box.top + box.bottom) / 2];
    const sides = [[box.left + 2, middle[1]], [box.right - 2, middle[1]]];
    for (const [x, y] of [middle, ...sides, [middle[0], box.top + 2], [middle[0], box.bottom - 2]]) {
      if (x < 0 || y < 0 || x >= innerWidth || y >= innerHeight) {
        if (box.height < innerHeight / 2) covered.push(`${element.outerHTML.slice(0, 90)} is out of sight`);
        continue;
      }
      const top = document.elementFromPoint(x, y);
      if (top && !ofOne(element, top)) {
        const [below, above] = [element, top].map(({ outerHTML }) => outerHTML.slice(0, 90));
        covered.push(`${below} at ${x | 0}, ${y | 0} lies under ${above}`);
      }
    }
  }
  return [...new Set(covered)];
}"""

_SEEN = """() => [...document.querySelectorAll(".preview-note")].some((note) => {
  const { left, right, top, bottom } = note.getBoundingClientRect();
  const there = document.elementFromPoint((left + right) / 2, (top + bottom) / 2);
  return note.textContent !== "" && right <= innerWidth && there !== null && note.contains(there);
})"""


def look(visit: Visit, size: tuple[int, int]) -> None:
    """Check the page at a size, wherever it is scrolled to."""
    page = visit.page
    page.set_viewport_size({"width": size[0], "height": size[1]})
    page.wait_for_timeout(150)
    assert page.evaluate("document.documentElement.scrollWidth") <= size[0]
    assert page.evaluate(_COVERED) == []
    for scroll in ("0", "document.documentElement.scrollHeight / 2", "document.documentElement.scrollHeight"):
        page.evaluate(f"scrollTo(0, {scroll})")
        assert page.evaluate(_SEEN), f"nothing says that it is the preview, scrolled to {scroll}"


def test_before_the_start(visit: Visit, shoot: Shoot) -> None:
    expect(visit.page.get_by_role("radio", name="Preview")).to_be_checked(timeout=60_000)
    for size in SIZES.values():
        look(visit, size)
    visit.page.get_by_role("button", name="Sample", exact=True).click()
    visit.page.get_by_role("button", name="Camera", exact=True).click()
    for name, size in SIZES.items():
        look(visit, size)
        shoot(visit, f"size-{name}-ready")


def test_what_can_be_chosen_before_the_start_is_shown(visit: Visit, shoot: Shoot) -> None:
    expect(visit.page.get_by_role("radio", name="Preview")).to_be_checked(timeout=60_000)
    before = visit.page.get_by_text("Before start")
    for name, size in SIZES.items():
        visit.page.set_viewport_size({"width": size[0], "height": size[1]})
        before.click()
        expect(visit.page.get_by_label("Seed")).to_be_in_viewport()
        if size[1] > 500:
            expect(visit.page.get_by_role("slider", name="Height")).to_be_in_viewport(ratio=1)
        shoot(visit, f"size-{name}-before")
        look(visit, size)
        before.click()


def test_while_it_runs(transport: Transport, browser: Browser, server: RunningServer, shoot: Shoot) -> None:
    server.wait_for_sessions(0)
    with visiting(browser, server.url, transport=transport, scripts=[TAP]) as visit:
        visit.start()
        visit.wait_until_live()
        visit.change_stats({"dropped_in": 0, "fps_in": 25})
        visit.told("Following the face")
        for name, size in SIZES.items():
            look(visit, size)
            visit.page.evaluate("scrollTo(0, 0)")
            shoot(visit, f"size-{name}-live")
    server.wait_for_sessions(0)
