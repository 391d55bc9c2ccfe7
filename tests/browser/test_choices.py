"""What a visitor has chosen: kept over a reload, taken back, tried again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Page, Route, expect

from personalive.media import Image
from tests.browser.chrome import CLIP, Transport, Visit
from tests.browser.helpers import FIRST_REQUEST, Shoot, upload, wait_for, write_picture
from tests.server.running import RunningServer

pytestmark = [pytest.mark.browser, pytest.mark.slow]

REFERENCES = "/api/v1/personalive/reference"


def ready(page: Page) -> None:
    expect(page.get_by_role("radio", name="Preview")).to_be_checked(timeout=60_000)


def is_chosen(page: Page, name: str) -> None:
    expect(page.get_by_role("button", name=name, exact=True)).to_have_attribute("aria-pressed", "true")


def checked(page: Page) -> None:
    """Wait until no portrait is on its way to the server."""
    expect(page.locator(".tile[data-busy]")).to_have_count(0, timeout=20_000)


def uploads(visit: Visit) -> list[str]:
    """The pictures that were sent to the server."""
    sent: list[str] = []
    visit.page.on("request", lambda asked: sent.append(asked.url) if asked.method == "POST" else None)
    return sent


def test_reload_and_back_keep_what_was_chosen(
    transport: Transport, visit: Visit, server: RunningServer, tmp_path: Path, portrait: Image
) -> None:
    page = visit.page
    ready(page)
    upload(visit, write_picture(tmp_path / "mine.png", portrait))
    page.set_input_files("#video-file", CLIP)
    page.get_by_text("Before start").click()
    page.get_by_label("Seed").fill("7")
    page.get_by_label("Seed").blur()
    checked(page)
    page.get_by_role("button", name="Start", exact=True).click()
    visit.wait_until_live()
    page.get_by_role("slider", name="Expression").focus()
    page.keyboard.press("Home")
    wait_for(lambda: server.sessions()[0]["parameters"]["expression"] == 0)
    before = server.sessions()[0]
    sent = uploads(visit)
    for leave in (page.reload, lambda: (page.goto(f"{visit.url}/docs"), page.go_back())):
        leave()
        ready(page)
        is_chosen(page, "mine.png")
        is_chosen(page, "Video file")
        expect(page.locator("#driver-name")).to_have_text("driving.mp4")
        expect(page.locator("#still")).to_be_visible()
        server.wait_for_sessions(0)
        page.get_by_role("button", name="Start", exact=True).click()
        visit.wait_until_live()
        after = server.sessions()[0]
        assert after["parameters"] == before["parameters"]
        assert after["reference_id"] == before["reference_id"]
        expect(page.get_by_role("slider", name="Expression")).to_have_value("0")
    assert server.get("/api/v1/pipeline/status").json()["load_params"]["seed"] == 7
    assert not any(url.endswith(REFERENCES) for url in sent), "the server still has the portrait"
    assert visit.errors == []


def test_a_camera_is_kept_without_being_opened(transport: Transport, visit: Visit) -> None:
    ready(visit.page)
    visit.page.get_by_role("button", name="Sample", exact=True).click()
    visit.page.get_by_role("button", name="Camera", exact=True).click()
    expect(visit.page.locator("#inset")).to_be_visible()
    visit.page.reload()
    ready(visit.page)
    is_chosen(visit.page, "Sample")
    is_chosen(visit.page, "Camera")
    expect(visit.page.locator("#driver-name")).to_have_text("The camera is off until you press Start.")
    expect(visit.page.locator("#inset")).to_be_hidden()
    visit.page.get_by_role("button", name="Start", exact=True).click()
    visit.wait_until_live()
    assert visit.errors == []


def test_a_portrait_that_the_server_has_forgotten_is_sent_again(
    transport: Transport, visit: Visit, server: RunningServer
) -> None:
    visit.start()
    visit.wait_until_live()
    visit.page.reload()
    ready(visit.page)
    server.wait_for_sessions(0)
    for known in server.get(REFERENCES).json()["references"]:
        server.delete(f"{REFERENCES}/{known['reference_id']}")
    expect(visit.page.get_by_role("button", name="Start", exact=True)).to_be_enabled()
    visit.page.get_by_role("button", name="Start", exact=True).click()
    visit.wait_until_live()


def test_a_portrait_that_is_refused_can_be_removed(visit: Visit, tmp_path: Path, shoot: Shoot) -> None:
    page = visit.page
    ready(page)
    page.get_by_role("button", name="Sample", exact=True).click()
    page.get_by_role("button", name="Sample clip").click()
    upload(visit, write_picture(tmp_path / "wall.png", np.full((300, 300, 3), 120, np.uint8)))
    problem = page.locator("#portrait-problem")
    expect(problem).to_contain_text("face", timeout=20_000)
    shoot(visit, "refused")
    page.get_by_role("button", name="Remove wall.png").click()
    expect(page.get_by_role("button", name="wall.png", exact=True)).to_have_count(0)
    expect(problem).to_be_hidden()
    expect(page.locator("#invite")).to_be_visible()
    expect(page.get_by_role("button", name="Start", exact=True)).to_be_disabled()
    page.get_by_role("button", name="Sample", exact=True).click()
    expect(page.get_by_role("button", name="Start", exact=True)).to_be_enabled()
    page.reload()
    ready(page)
    is_chosen(page, "Sample")
    expect(page.get_by_role("button", name="wall.png", exact=True)).to_have_count(0)
    assert all("422" in error for error in visit.errors)


@pytest.mark.parametrize("step", ["first", "offer", "reference", "status"])
def test_cancel_and_start_again_works_at_once(
    transport: Transport, visit: Visit, server: RunningServer, step: str
) -> None:
    """At any point of the start: the place that the first session took is free again before the second one asks."""
    page = visit.page
    ready(page)
    page.get_by_role("button", name="Sample", exact=True).click()
    page.get_by_role("button", name="Sample clip").click()
    checked(page)
    held: list[Route] = []

    def hold(route: Route) -> None:
        """The first request waits at the server's door until the start has been cancelled."""
        if held:
            route.continue_()
        else:
            held.append(route)

    paths = {"first": FIRST_REQUEST[transport], "offer": f"/{transport}/offer", "reference": "/reference/*"}
    page.route(f"**{paths.get(step, '/status')}", hold)
    page.get_by_role("button", name="Start", exact=True).click()
    while not held:
        page.wait_for_timeout(50)
    page.get_by_role("button", name="Cancel", exact=True).click()
    page.get_by_role("button", name="Start", exact=True).click()
    page.wait_for_timeout(300)
    held[0].continue_()
    visit.wait_until_live(20)
    expect(page.get_by_text("The server is busy")).to_have_count(0)
    assert len(server.sessions()) == 1
    assert visit.errors == []


def test_stop_and_start_again_works_at_once(live: Visit, server: RunningServer) -> None:
    for _ in range(2):
        live.page.get_by_role("button", name="Stop", exact=True).click()
        live.page.get_by_role("button", name="Start", exact=True).click()
        live.wait_until_live(20)
        assert len(server.sessions()) == 1
    assert live.errors == []
