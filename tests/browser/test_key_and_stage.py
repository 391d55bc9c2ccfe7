"""A server that wants its key, and the view for broadcasters."""

from __future__ import annotations

import pytest
from playwright.sync_api import Browser, expect

from tests.browser.chrome import Visit, visiting
from tests.browser.helpers import Shoot, running, wait_for

pytestmark = [pytest.mark.browser, pytest.mark.slow]


def test_the_key_is_asked_for_and_kept_for_the_tab(browser: Browser, shoot: Shoot) -> None:
    with running({"api_key": "open-sesame"}) as server, visiting(browser, server.url) as visit:
        field = visit.page.get_by_label("API key")
        field.fill("wrong")
        visit.page.keyboard.press("Enter")
        expect(visit.page.get_by_text("does not accept this key")).to_be_visible()
        shoot(visit, "key")
        field.fill("open-sesame")
        visit.page.keyboard.press("Enter")
        visit.start()
        visit.wait_until_live()
        visit.page.reload()
        expect(visit.page.get_by_role("radio", name="Preview")).to_be_checked(timeout=60_000)
        expect(field).to_be_hidden()
        assert "open-sesame" not in visit.page.evaluate("JSON.stringify(localStorage)")


def test_the_stage_shows_the_result_and_comes_back(live: Visit, browser: Browser, shoot: Shoot) -> None:
    with visiting(browser, live.url, (640, 640), path="/stage?background=%23123456") as stage:
        expect(stage.page.locator("#told")).to_be_hidden()
        video = stage.page.locator("#video")

        def shown() -> bool:
            return video.is_visible() and video.evaluate("video => video.videoWidth") == 512

        wait_for(shown)
        background = stage.page.evaluate("getComputedStyle(document.documentElement).backgroundColor")
        assert background == "rgb(18, 52, 86)"
        stage.page.wait_for_timeout(1000)
        shoot(stage, "stage")
        live.page.get_by_role("button", name="Stop", exact=True).click()
        wait_for(lambda: not shown(), 30)
        live.page.get_by_role("button", name="Start", exact=True).click()
        wait_for(shown, 40)
    for background, colour in (("%23123456", "rgb(18, 52, 86)"), ("transparent", "rgba(0, 0, 0, 0)")):
        with visiting(browser, live.url, path=f"/stage?background={background}") as stage:
            painted = stage.page.evaluate("getComputedStyle(document.documentElement).backgroundColor")
            assert painted == colour
