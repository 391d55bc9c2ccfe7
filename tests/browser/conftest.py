"""A server with the preview loaded, and a visitor of its page.

The pictures of docs/how-to/web-page.md are made by these tests: PAGE_PICTURES=docs/images pytest -m browser
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Playwright, sync_playwright

from tests.browser import chrome
from tests.browser.chrome import Transport, Visit, visiting
from tests.browser.helpers import Shoot, running
from tests.server.running import RunningServer


@pytest.fixture(scope="package")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("browser")


@pytest.fixture(scope="package")
def film(folder: Path) -> Path:
    chrome.write_camera(folder / "camera.mjpeg")
    return folder / "camera.mjpeg"


@pytest.fixture(scope="package")
def playwright() -> Iterator[Playwright]:
    chrome.chromium()
    with sync_playwright() as started:
        yield started


@pytest.fixture(scope="package")
def browser(playwright: Playwright, film: Path) -> Iterator[Browser]:
    launched = chrome.launch(playwright, film)
    yield launched
    launched.close()


@pytest.fixture(scope="package")
def server() -> Iterator[RunningServer]:
    """With the preview loaded. A test that loads it with other values puts it back."""
    with running() as started:
        started.load("preview")
        yield started


@pytest.fixture(params=["webrtc", "websocket"])
def transport(request: pytest.FixtureRequest) -> Transport:
    """How the page is connected to the server: a test that asks for it runs once for each."""
    chosen: Transport = request.param
    return chosen


@pytest.fixture
def visit(browser: Browser, server: RunningServer, request: pytest.FixtureRequest) -> Iterator[Visit]:
    """The page, which is connected by the `transport` of a test that asks for one."""
    asks = "transport" in request.fixturenames
    chosen: Transport = request.getfixturevalue("transport") if asks else "automatic"
    server.wait_for_sessions(0)
    with visiting(browser, server.url, transport=chosen) as opened:
        yield opened
    server.wait_for_sessions(0)


@pytest.fixture
def live(transport: Transport, visit: Visit) -> Visit:
    """The sample portrait, driven by the sample clip, over each transport."""
    del transport  # `visit` is connected by it
    visit.start()
    visit.wait_until_live()
    return visit


@pytest.fixture(scope="session")
def shoot() -> Shoot:
    """Writes what a visit looks like where PAGE_PICTURES says to, once for each test: not over each transport."""
    folder = os.environ.get("PAGE_PICTURES")

    def write(visit: Visit, name: str) -> None:
        if folder is None or visit.transport == "websocket":
            return
        visit.page.mouse.move(0, 0)
        visit.page.screenshot(path=Path(folder) / f"page-{name}.jpg", type="jpeg", quality=88)

    return write
