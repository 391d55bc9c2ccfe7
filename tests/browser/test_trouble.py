"""What goes wrong, said in place and in words."""

from __future__ import annotations

import signal
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Browser, Playwright, expect

from tests.browser import chrome
from tests.browser.chrome import CLIP, PORTRAIT, Transport, Visit, visiting
from tests.browser.helpers import Shoot, running, upload, write_picture
from tests.server.running import RunningServer, free_port
from tests.signals import freeze, thaw

pytestmark = [pytest.mark.browser, pytest.mark.slow]


def test_the_page_recovers_from_a_server_that_is_started_again(
    transport: Transport, browser: Browser, shoot: Shoot
) -> None:
    at = {"port": free_port()}
    with running(at) as first, visiting(browser, first.url, transport=transport) as visit:
        visit.start()
        visit.wait_until_live()
        first.process.send_signal(signal.SIGTERM)
        visit.told("Connection lost")
        assert first.process.wait(30) == 0
        visit.told("Trying again in")
        shoot(visit, "connection-lost")
        with running(at) as second:
            visit.told("Following the face", seconds=60)
            second.wait_for_sessions(1)
            assert visit.is_moving(6)
            assert second.get("/api/v1/pipeline/status").json()["pipeline_id"] == "preview"


def test_a_server_that_vanishes_is_noticed(transport: Transport, browser: Browser) -> None:
    with running() as server, visiting(browser, server.url, transport=transport) as visit:
        visit.start()
        visit.wait_until_live()
        freeze(server.process.pid)
        try:
            visit.told("Connection lost", seconds=40)
        finally:
            thaw(server.process.pid)
        visit.told("Following the face", seconds=60)


def test_a_camera_that_is_refused(
    playwright: Playwright, film: Path, server: RunningServer, shoot: Shoot
) -> None:
    refusing = chrome.launch(playwright, film, allowed=False, flags=["--deny-permission-prompts"])
    with visiting(refusing, server.url) as visit:
        visit.page.get_by_role("button", name="Sample", exact=True).click()
        visit.page.get_by_role("button", name="Camera", exact=True).click()
        expect(visit.page.get_by_role("alert").filter(has_text="The camera is blocked.")).to_be_visible()
        expect(visit.page.get_by_role("button", name="Start", exact=True)).to_be_disabled()
        shoot(visit, "camera-blocked")
        visit.page.get_by_role("button", name="Sample clip").click()
        expect(visit.page.get_by_text("The camera is blocked.")).to_be_hidden()
        expect(visit.page.get_by_role("button", name="Start", exact=True)).to_be_enabled()
        assert visit.errors == []
    refusing.close()


def test_files_that_are_no_pictures_and_no_videos(visit: Visit, tmp_path: Path, shoot: Shoot) -> None:
    (tmp_path / "notes.txt").write_text("no picture")
    (tmp_path / "broken.png").write_bytes(PORTRAIT.read_bytes()[:300])
    # What the browser cannot decode is the server's to judge: it may be a HEIC.
    said = {
        "notes.txt": "notes.txt is not a picture that can be used.",
        "broken.png": "The picture is damaged or cut short and cannot be decoded.",
    }
    for name, sentence in said.items():
        upload(visit, tmp_path / name)
        problem = visit.page.locator("#portrait-problem")
        expect(problem).to_contain_text(sentence, timeout=20_000)
    visit.page.set_input_files("#video-file", tmp_path / "notes.txt")
    expect(visit.page.locator("#driver-problem")).to_contain_text("notes.txt is not a video")
    shoot(visit, "wrong-file")
    visit.page.set_input_files("#video-file", CLIP)
    expect(visit.page.locator("#driver-name")).to_have_text("driving.mp4")
    expect(visit.page.locator("#driver-problem")).to_be_hidden()
    assert all("400" in error for error in visit.errors)  # Chromium tells what the server refused


def test_a_picture_without_a_face_is_refused_at_once_and_may_be_insisted_on(
    visit: Visit, tmp_path: Path, shoot: Shoot
) -> None:
    expect(visit.page.get_by_role("radio", name="Preview")).to_be_checked(timeout=60_000)
    upload(visit, write_picture(tmp_path / "wall.png", np.full((300, 300, 3), (90, 120, 110), np.uint8)))
    problem = visit.page.locator("#portrait-problem")
    expect(problem).to_contain_text("face", timeout=20_000)
    shoot(visit, "no-face-in-picture")
    problem.get_by_role("button", name="Use it anyway").click()
    expect(problem).to_be_hidden()
    expect(visit.page.get_by_role("button", name="wall.png", exact=True)).to_have_attribute(
        "aria-pressed", "true"
    )


def test_nobody_in_view(
    transport: Transport, playwright: Playwright, folder: Path, server: RunningServer, shoot: Shoot
) -> None:
    chrome.write_camera(folder / "leaves.mjpeg", faceless=90)
    camera = chrome.launch(playwright, folder / "leaves.mjpeg")
    server.wait_for_sessions(0)
    with visiting(camera, server.url, transport=transport) as visit:
        visit.start("Camera")
        visit.wait_until_live()
        visit.told("No face in view.", seconds=60)
        expect(visit.page.locator("#figure-face")).to_have_text("Not in view")
        shoot(visit, "no-face")
        visit.told("Following the face", seconds=60)
    camera.close()


def test_a_busy_server_is_waited_for(
    transport: Transport, live: Visit, browser: Browser, shoot: Shoot
) -> None:
    with visiting(browser, live.url, transport=transport) as second:
        second.start()
        second.told("The server is busy")
        shoot(second, "busy")
        live.page.get_by_role("button", name="Stop", exact=True).click()
        second.page.get_by_role("button", name="Try now").click()
        second.wait_until_live()
