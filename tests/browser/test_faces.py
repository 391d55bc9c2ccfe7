"""Whose face, presets, and settings that last."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Page, expect

from personalive.media import Image
from tests.browser.chrome import Visit
from tests.browser.helpers import Shoot, upload, wait_for, write_picture
from tests.server.running import RunningServer

pytestmark = [pytest.mark.browser, pytest.mark.slow]

REFERENCES = "/api/v1/personalive/reference"


def ready(page: Page) -> None:
    expect(page.get_by_role("radio", name="Preview")).to_be_checked(timeout=60_000)


def newest(server: RunningServer) -> dict[str, object]:
    """The reference that was added last; empty where there is none yet."""
    listed: list[dict[str, object]] = server.get(REFERENCES).json()["references"]
    return listed[0] if listed else {}


def test_one_of_several_faces_is_clicked(
    visit: Visit, server: RunningServer, tmp_path: Path, portrait: Image, shoot: Shoot
) -> None:
    ready(visit.page)
    upload(visit, write_picture(tmp_path / "two.png", np.hstack([portrait, portrait[:, ::-1]])))
    faces = visit.page.get_by_role("group", name="Whose face").get_by_role("button")
    expect(faces).to_have_count(2, timeout=20_000)
    expect(visit.page.get_by_role("alert").filter(has_text="shows 2 faces")).to_be_visible()
    boxes = [face.bounding_box() for face in faces.all()]
    assert all(box and box["width"] > 20 for box in boxes)
    shoot(visit, "faces")
    visit.page.get_by_role("button", name="Face 2 of 2").press("Enter")
    expect(faces).to_have_count(0, timeout=20_000)
    wait_for(lambda: newest(server).get("width") == 2 * portrait.shape[1])
    face = newest(server)["face"]
    assert isinstance(face, dict)
    assert face["box"][0] > portrait.shape[1]
    expect(visit.page.locator("#portrait-problem")).to_be_hidden()
    assert all("422" in error for error in visit.errors)


def test_a_box_is_drawn_where_no_face_is_found(visit: Visit, server: RunningServer, tmp_path: Path) -> None:
    ready(visit.page)
    grey = np.full((300, 400, 3), 120, np.uint8)
    grey[100:200, 150:250] = (200, 160, 120)
    upload(visit, write_picture(tmp_path / "painting.png", grey))
    canvas = visit.page.locator("#face-choice canvas")
    expect(canvas).to_be_visible(timeout=30_000)
    use = visit.page.get_by_role("button", name="Use this box")
    expect(use).to_be_disabled()
    around = canvas.bounding_box()
    assert around is not None
    left, top, scale = around["x"], around["y"], around["width"] / 400
    visit.page.mouse.move(left + 150 * scale, top + 100 * scale)
    visit.page.mouse.down()
    visit.page.mouse.move(left + 200 * scale, top + 150 * scale)
    visit.page.mouse.move(left + 250 * scale, top + 200 * scale)
    visit.page.mouse.up()
    canvas.press("ArrowRight")  # two hundredths of the width
    use.click()
    expect(canvas).to_have_count(0, timeout=20_000)
    wait_for(lambda: newest(server).get("width") == 400)
    face = newest(server)["face"]
    assert isinstance(face, dict)
    assert face["box"] == pytest.approx([158, 100, 258, 200], abs=3)


def test_presets_and_settings_are_kept_between_visits(
    live: Visit, server: RunningServer, shoot: Shoot
) -> None:
    page = live.page
    calm = page.get_by_role("button", name="Calm")
    calm.click()
    expect(calm).to_have_attribute("aria-pressed", "true")
    wait_for(lambda: server.sessions()[0]["parameters"]["pose"] == 0.5)
    shoot(live, "presets")
    page.get_by_role("slider", name="Expression").press("Home")
    expect(calm).to_have_attribute("aria-pressed", "false")
    page.get_by_label("Whose face in the video").select_option("left")
    wait_for(lambda: server.sessions()[0]["parameters"]["driver_face"] == "left")
    page.get_by_role("button", name="Stop", exact=True).click()
    server.wait_for_sessions(0)
    page.evaluate("sessionStorage.clear()")
    later = page.context.new_page()  # another visit of the same browser
    page.close()
    later.goto(live.url)
    ready(later)
    kept = later.evaluate("JSON.parse(localStorage['personalive-settings'])")
    assert kept["version"] == 1
    assert kept["run"]["preview"]["expression"] == 0
    expect(later.locator("#motion-fields input[name=expression]")).to_have_value("0")
    expect(later.locator("#motion-fields select[name=driver_face]")).to_have_value("left")
    later.get_by_text("Before start").click()
    later.get_by_role("button", name="Reset all settings").click()
    expect(later.locator("#motion-fields input[name=expression]")).to_have_value("1")
    later.reload()
    ready(later)
    expect(later.locator("#motion-fields input[name=expression]")).to_have_value("1")
    later.close()
