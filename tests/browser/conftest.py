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
from tests.browser.chrome import Visit, visiting
from tests.browser.helpers import Shoot, running
from tests.server.running import RunningServer


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("browser")


@pytest.fixture(scope="module")
def film(folder: Path) -> Path:
    chrome.write_camera(folder / "camera.mjpeg")
    return folder / "camera.mjpeg"


@pytest.fixture(scope="module")
def playwright() -> Iterator[Playwright]:
    chrome.chromium()
    with sync_playwright() as started:
        yield started


@pytest.fixture(scope="module")
def browser(playwright: Playwright, film: Path) -> Iterator[Browser]:
    launched = chrome.launch(playwright, film)
    yield launched
    launched.close()


@pytest.fixture(scope="module")
def server() -> Iterator[RunningServer]:
    """With the preview loaded."""
    with running() as started:
        started.load("preview")
        yield started


@pytest.fixture
def visit(browser: Browser, server: RunningServer) -> Iterator[Visit]:
    server.wait_for_sessions(0)
    with visiting(browser, server.url) as opened:
        yield opened
    server.wait_for_sessions(0)


@pytest.fixture
def live(visit: Visit, request: pytest.FixtureRequest) -> Visit:
    """The sample portrait, driven by the sample clip, by the transport that `over_both_transports` names."""
    visit.page.select_option("#transport", getattr(request, "param", "automatic"))
    visit.start()
    visit.wait_until_live()
    return visit


@pytest.fixture(scope="session")
def shoot(tmp_path_factory: pytest.TempPathFactory) -> Shoot:
    """Writes what a visit looks like."""
    named = os.environ.get("PAGE_PICTURES")
    to = Path(named) if named else tmp_path_factory.mktemp("pictures")

    def write(visit: Visit, name: str) -> None:
        visit.page.mouse.move(0, 0)
        visit.page.screenshot(path=to / f"page-{name}.jpg", type="jpeg", quality=88)

    return write
