"""The video that is followed: swapped, mirrored, given back; and what is said of it taken back in time."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from playwright.sync_api import Browser, Page, Playwright, expect

from personalive.face.tracker import FaceDetector
from personalive.media import Image, open_driving
from tests.browser import chrome
from tests.browser.chrome import CLIP, Transport, Visit, visiting
from tests.browser.film import jaw
from tests.browser.helpers import FIRST_REQUEST, running, upload, wait_for, write_picture
from tests.server.running import RunningServer, free_port

pytestmark = [pytest.mark.browser, pytest.mark.slow]

_LIVE_TRACKS = """(() => {
  const asked = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
  window.cameras = [];
  navigator.mediaDevices.getUserMedia = async (wish) => {
    const stream = await asked(wish);
    window.cameras.push(...stream.getTracks());
    return stream;
  };
})();"""


def cameras_on(page: Page) -> int:
    """How many cameras that the page has opened are on."""
    found: int = page.evaluate("window.cameras.filter((track) => track.readyState === 'live').length")
    return found


@pytest.fixture(scope="module")
def mouths(folder: Path) -> tuple[Path, Path]:
    """Two videos of one face that does not move: its mouth shut, and wide open."""
    with open_driving(CLIP) as source, FaceDetector() as detector:
        frames = [frame.image for index, frame in enumerate(source) if index % 3 == 0]
        opened = [jaw(detector.detect(frame)[0]) for frame in frames]
    assert max(opened) > 0.1
    paths = folder / "shut.mp4", folder / "open.mp4"
    for path, chosen in zip(paths, (np.argmin(opened), np.argmax(opened)), strict=True):
        write_still(path, frames[int(chosen)])
    return paths


def write_still(path: Path, image: Image) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=15)
        stream.width, stream.height = image.shape[1], image.shape[0]
        stream.pix_fmt = "yuv420p"
        for index in range(45):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = index, Fraction(1, 15)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def mouth(visit: Visit) -> float:
    """How far the result's mouth is open, 0 to 1."""
    with FaceDetector() as detector:
        (face, *_) = detector.detect(visit.frame())
    return jaw(face)


def test_another_video_begins_from_the_portraits_own_expression(
    transport: Transport, visit: Visit, mouths: tuple[Path, Path]
) -> None:
    """Its first frame counts as the first: a mouth that is open from then on is not one that has opened."""
    shut, wide = mouths
    page = visit.page
    page.get_by_role("button", name="Sample", exact=True).click()
    page.set_input_files("#video-file", shut)
    page.get_by_role("button", name="Start", exact=True).click()
    visit.wait_until_live()
    visit.told("Following the face")
    before = mouth(visit)
    for _ in range(2):
        page.set_input_files("#video-file", wide)
        page.wait_for_timeout(3000)
        visit.told("Following the face")
        assert mouth(visit) < before + 0.15
        page.set_input_files("#video-file", shut)
        page.wait_for_timeout(2000)
    page.get_by_role("button", name="Pause").click()
    page.set_input_files("#video-file", wide)
    page.wait_for_timeout(1000)
    visit.told("Paused")
    page.get_by_role("button", name="Resume").click()
    page.wait_for_timeout(3000)
    assert mouth(visit) < before + 0.15
    assert visit.errors == []


@pytest.fixture
def counted(transport: Transport, browser: Browser, server: RunningServer) -> Iterator[Visit]:
    """A visit whose cameras are counted."""
    server.wait_for_sessions(0)
    with visiting(browser, server.url, transport=transport, scripts=[_LIVE_TRACKS]) as visit:
        yield visit
    server.wait_for_sessions(0)


def test_stop_gives_the_camera_back_and_start_takes_it_again(counted: Visit) -> None:
    page = counted.page
    counted.start("Camera")
    counted.wait_until_live()
    assert cameras_on(page) == 1
    for _ in range(2):
        page.get_by_role("button", name="Stop", exact=True).click()
        wait_for(lambda: cameras_on(page) == 0)
        expect(page.locator("#driver-name")).to_have_text("The camera is off until you press Start.")
        expect(page.locator("#inset")).to_be_hidden()
        page.get_by_role("button", name="Start", exact=True).click()
        counted.wait_until_live()
        assert cameras_on(page) == 1
        expect(page.locator("#inset")).to_be_visible()
    page.get_by_role("button", name="Sample clip").click()
    wait_for(lambda: cameras_on(page) == 0)
    assert counted.errors == []


def test_a_start_that_is_cancelled_gives_the_camera_back(counted: Visit, transport: Transport) -> None:
    page = counted.page
    page.get_by_role("button", name="Sample", exact=True).click()
    page.get_by_role("button", name="Camera", exact=True).click()
    expect(page.get_by_role("button", name="Start", exact=True)).to_be_enabled()
    page.route(f"**{FIRST_REQUEST[transport]}", lambda route: None)
    page.get_by_role("button", name="Start", exact=True).click()
    expect(page.locator("#step-text")).to_have_text("Connecting")
    assert cameras_on(page) == 1
    page.get_by_role("button", name="Cancel", exact=True).click()
    wait_for(lambda: cameras_on(page) == 0)


def test_the_own_camera_is_a_mirror_and_a_video_is_not(live: Visit) -> None:
    page = live.page
    mirror = page.get_by_role("button", name="Mirror", exact=True)

    def check(mirrored: bool) -> None:
        expect(mirror).to_have_attribute("aria-pressed", str(mirrored).lower())
        for id in ("result-video", "driver-video"):
            flipped = page.evaluate(f"getComputedStyle(document.getElementById('{id}')).transform")
            assert flipped.startswith("matrix(-1") == mirrored

    check(False)
    page.get_by_role("button", name="Camera", exact=True).click()
    expect(page.locator("#inset-caption")).to_have_text("You")
    check(True)
    page.get_by_role("button", name="Sample clip").click()
    expect(page.locator("#inset-caption")).to_have_text("Video")
    check(False)
    page.get_by_role("button", name="Camera", exact=True).click()
    expect(page.locator("#inset-caption")).to_have_text("You")
    mirror.click()
    check(False)
    page.get_by_role("button", name="Sample clip").click()
    page.get_by_role("button", name="Camera", exact=True).click()
    expect(page.locator("#inset-caption")).to_have_text("You")
    check(False)


def test_what_was_said_of_a_camera_goes_when_it_is_allowed(
    playwright: Playwright, film: Path, server: RunningServer
) -> None:
    refusing = chrome.launch(playwright, film, allowed=False)
    with visiting(refusing, server.url, permissions=[]) as visit:
        visit.page.get_by_role("button", name="Camera", exact=True).click()
        problem = visit.page.locator("#driver-problem")
        expect(problem).to_contain_text("The camera is blocked.")
        visit.context.grant_permissions(["camera"])
        expect(problem).to_be_hidden()
        visit.page.get_by_role("button", name="Camera", exact=True).click()
        expect(visit.page.locator("#inset")).to_be_visible()
    refusing.close()


def test_what_was_said_of_the_server_goes_when_it_is_back(
    transport: Transport, browser: Browser, portrait: Image, tmp_path: Path
) -> None:
    at = {"port": free_port(), "pipeline": "preview"}
    with running(at) as first, visiting(browser, first.url) as visit:
        first.wait_until_loaded()
        page = visit.page
        page.reload()
        expect(page.get_by_role("radio", name="Preview")).to_be_checked(timeout=60_000)
        visit.connect_by(transport)
        page.get_by_role("button", name="Sample clip").click()
        expect(page.locator("#inset")).to_be_visible()
        first.stop()
        upload(visit, write_picture(tmp_path / "mine.png", portrait))
        problem = page.locator("#portrait-problem")
        expect(problem).to_have_text("The server cannot be reached. Is it still running?")
        page.get_by_role("button", name="Start", exact=True).click()
        visit.told("The server cannot be reached.")
        with running(at) as second:
            expect(page.locator("#told")).to_be_hidden(timeout=20_000)
            expect(problem).to_be_hidden()
            second.wait_until_loaded()
            page.get_by_role("button", name="Start", exact=True).click()
            visit.wait_until_live()
            page.get_by_role("button", name="Stop", exact=True).click()


def test_what_a_start_failed_by_goes_with_another_choice(transport: Transport, visit: Visit) -> None:
    page = visit.page
    page.route(
        f"**/{transport}/offer", lambda route: route.fulfill(status=400, json={"detail": "Not like that."})
    )
    visit.start()
    visit.told("Not like that.")
    page.get_by_role("button", name="Camera", exact=True).click()
    expect(page.locator("#told")).to_be_hidden()
    page.get_by_role("button", name="Start", exact=True).click()
    visit.told("Not like that.")
    page.unroute(f"**/{transport}/offer")
    page.get_by_role("button", name="Start", exact=True).click()
    visit.wait_until_live()
