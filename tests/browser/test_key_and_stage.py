"""A server that wants its key, and the view for broadcasters."""

from __future__ import annotations

import pytest
from playwright.sync_api import Browser, expect

from tests.browser import chrome
from tests.browser.chrome import Transport, Visit, visiting
from tests.browser.helpers import Shoot, running, wait_for
from tests.server.running import RunningServer

pytestmark = [pytest.mark.browser, pytest.mark.slow]


def test_the_key_is_asked_for_and_kept_for_the_tab(
    transport: Transport, browser: Browser, shoot: Shoot
) -> None:
    with (
        running({"api_key": "open-sesame"}) as server,
        visiting(browser, server.url, transport=transport) as visit,
    ):
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


def test_the_stage_view_of_a_server_with_a_key_needs_no_typing(
    transport: Transport, browser: Browser
) -> None:
    """Its link carries the key where it is never sent; a window without the tab's storage gets it from there."""
    key = "open-sesame/&#?=+%"
    with running({"api_key": key}) as server, visiting(browser, server.url, transport=transport) as visit:
        field = visit.page.get_by_label("API key")
        field.fill(key)
        visit.page.keyboard.press("Enter")
        visit.start()
        visit.wait_until_live()
        link = visit.page.get_by_role("link", name="Result only")
        assert "key" not in str(link.get_attribute("href")).partition("#")[0]
        with visit.context.expect_page() as opened:
            link.click()
        stage = opened.value
        expect(stage.locator("#video")).to_be_visible(timeout=20_000)
        assert stage.evaluate("document.referrer") == ""
        assert visit.page.evaluate("location.hash") == ""
        with visiting(browser, server.url, path="/stage") as alone:
            expect(alone.page.locator("#told")).to_contain_text("add #key=")


def test_the_stage_view_says_what_it_waits_for(browser: Browser, server: RunningServer, shoot: Shoot) -> None:
    """In a tab it is dark and says so; what OBS sends to an audience is empty."""
    server.wait_for_sessions(0)
    for path, sentence in (("/stage", "Nothing is shown yet."), ("/stage?session=gone", "is not running")):
        with visiting(browser, server.url, path=path) as stage:
            expect(stage.page.locator("#told")).to_contain_text(sentence)
            shoot(stage, "stage-waiting")
            corner = chrome.decoded_bytes(stage.page.screenshot())[4, 4]
            assert corner.max() < 60
    with visiting(browser, server.url, path="/docs") as obs:
        obs.context.add_init_script("window.obsstudio = {}")
        with obs.page.expect_response("**/whep") as asked:
            obs.page.goto(f"{server.url}/stage")
        assert asked.value.status == 409
        obs.page.wait_for_timeout(300)
        expect(obs.page.locator("#told")).to_have_text("")
        painted = "getComputedStyle(document.documentElement)"
        assert obs.page.evaluate(f"{painted}.backgroundColor") == "rgba(0, 0, 0, 0)"
        assert obs.page.evaluate(f"{painted}.backgroundImage") == "none"


def test_the_stage_shows_the_result_and_comes_back(live: Visit, browser: Browser, shoot: Shoot) -> None:
    with visiting(browser, live.url, (640, 640), path="/stage?background=%23123456") as stage:
        expect(stage.page.locator("#told")).to_be_hidden()
        video = stage.page.locator("#video")

        def shown() -> bool:
            return video.is_visible() and video.evaluate("video => video.videoWidth") == 512

        wait_for(shown)
        stage.page.set_viewport_size({"width": 800, "height": 640})
        stage.page.wait_for_timeout(1000)
        shoot(stage, "stage")
        corner = chrome.decoded_bytes(stage.page.screenshot())[320, 4]
        assert tuple(corner) == (0x12, 0x34, 0x56)
        live.page.get_by_role("button", name="Stop", exact=True).click()
        wait_for(lambda: not shown(), 30)
        live.page.get_by_role("button", name="Start", exact=True).click()
        wait_for(shown, 40)
