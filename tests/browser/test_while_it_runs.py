"""What a visitor can do with a result that runs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import FloatRect, expect

from personalive.media import Image
from tests.browser.chrome import Visit
from tests.browser.helpers import Shoot, upload, wait_for, write_picture
from tests.server.running import RunningServer

pytestmark = [pytest.mark.browser, pytest.mark.slow]


def test_another_portrait_while_it_runs(live: Visit, tmp_path: Path, portrait: Image, shoot: Shoot) -> None:
    before = live.frame().astype(float).mean((0, 1))
    upload(live, write_picture(tmp_path / "blue.png", np.ascontiguousarray(portrait[..., ::-1])))
    expect(live.page.locator("#announced")).to_have_text("The portrait is now blue.png.", timeout=20_000)
    live.page.wait_for_timeout(1500)
    after = live.frame().astype(float).mean((0, 1))
    assert np.sign(before[0] - before[2]) != np.sign(after[0] - after[2])
    shoot(live, "swapped")
    assert live.is_moving()
    live.page.get_by_role("button", name="Sample", exact=True).click()
    expect(live.page.locator("#announced")).to_have_text("The portrait is now Sample.")
    assert live.errors == []


def test_another_driver_while_it_runs(live: Visit) -> None:
    live.page.get_by_role("button", name="Camera", exact=True).click()
    expect(live.page.get_by_role("button", name="Camera", exact=True)).to_have_attribute(
        "aria-pressed", "true"
    )
    assert live.is_moving(6)
    assert live.errors == []


def test_pause_and_resume(live: Visit, shoot: Shoot) -> None:
    live.page.get_by_role("button", name="Pause").click()
    live.told("Paused")
    # What is on its way still comes, and the encoder makes the last picture better for a while.
    wait_for(lambda: not live.is_moving(2), 30)
    shoot(live, "paused")
    live.page.get_by_role("button", name="Resume").click()
    assert live.is_moving(6)
    live.page.get_by_role("button", name="Reset", exact=True).click()
    expect(live.page.locator("#announced")).to_have_text("Started over from the portrait's own pose.")
    assert live.is_moving(6)
    assert live.errors == []


def test_compare_mirror_and_full_screen(live: Visit, shoot: Shoot) -> None:
    page = live.page
    page.locator("#stage").hover()

    def boxes() -> tuple[FloatRect, FloatRect]:
        result, driver = (page.locator(name).bounding_box() for name in ("#result-video", "#driver-video"))
        assert result
        assert driver
        return result, driver

    def is_side_by_side() -> bool:
        result, driver = boxes()
        apart = abs(result["x"] - driver["x"]) >= min(result["width"], driver["width"])
        return apart and abs(driver["width"] - result["width"]) < 2

    def is_overlaid() -> bool:
        result, driver = boxes()
        return all(abs(result[side] - driver[side]) < 3 for side in ("x", "y", "width", "height"))

    page.get_by_text("Side by side").click()
    wait_for(is_side_by_side)
    shoot(live, "side-by-side")
    page.get_by_text("Overlay").click()
    wait_for(is_overlaid)
    shoot(live, "overlay")
    mirror = page.get_by_role("button", name="Mirror", exact=True)
    mirror.click()
    expect(mirror).to_have_attribute("aria-pressed", "true")
    flipped = page.evaluate("getComputedStyle(document.getElementById('result-video')).transform")
    assert flipped.startswith("matrix(-1")
    page.get_by_role("button", name="Full screen").click()
    wait_for(lambda: page.evaluate("document.fullscreenElement !== null"))
    page.get_by_role("button", name="Leave full screen").click()
    wait_for(lambda: page.evaluate("document.fullscreenElement === null"))
    assert live.errors == []


def test_sliders_set_the_sessions_parameters(live: Visit, server: RunningServer) -> None:
    live.page.get_by_role("slider", name="Expression").focus()
    live.page.keyboard.press("Home")
    live.page.get_by_text("Replaced", exact=True).click()

    def parameters() -> dict[str, object]:
        found: dict[str, object] = server.sessions()[0]["parameters"]
        return found

    wait_for(lambda: parameters()["expression"] == 0 and parameters()["motion"] == "absolute")
    live.page.get_by_role("button", name="Defaults").click()
    wait_for(lambda: parameters()["expression"] == 1 and parameters()["motion"] == "relative")
    expect(live.page.get_by_role("slider", name="Expression")).to_have_value("1")
