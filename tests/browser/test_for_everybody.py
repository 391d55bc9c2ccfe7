"""Phones, keyboards, screen readers; and nothing from elsewhere."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Literal

import pytest
from playwright.sync_api import Browser, expect

from tests.browser.chrome import PHONE, Transport, Visit, visiting
from tests.browser.helpers import Shoot
from tests.server.running import RunningServer

pytestmark = [pytest.mark.browser, pytest.mark.slow]


AXE = "axe-core@4.14.1"
SCHEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")


def test_on_a_phone(transport: Transport, browser: Browser, server: RunningServer, shoot: Shoot) -> None:
    server.wait_for_sessions(0)
    with visiting(browser, server.url, PHONE, has_touch=True, is_mobile=True) as visit:

        def shoot_each(name: str) -> None:
            for scheme in SCHEMES:
                visit.page.emulate_media(color_scheme=scheme)
                shoot(visit, f"phone-{scheme}-{name}")

        expect(visit.page.get_by_role("radio", name="Preview")).to_be_checked(timeout=60_000)
        shoot_each("first-visit")
        visit.connect_by(transport)
        visit.page.get_by_role("button", name="Sample", exact=True).tap()
        visit.page.get_by_role("button", name="Sample clip").tap()
        visit.page.get_by_role("button", name="Start", exact=True).tap()
        visit.wait_until_live()
        visit.told("Following the face")
        wide = visit.page.evaluate("document.documentElement.scrollWidth")
        assert wide <= PHONE[0]
        box = visit.page.locator("#result-video").bounding_box()
        assert box is not None
        assert 0 <= box["y"] < PHONE[1] / 2
        shoot_each("live")
        assert visit.is_moving()
        visit.page.get_by_role("slider", name="Smoothing").scroll_into_view_if_needed()
        shoot_each("sliders")
        assert visit.errors == []
    server.wait_for_sessions(0)


def test_with_the_keyboard_alone(transport: Transport, visit: Visit) -> None:
    expect(visit.page.get_by_role("radio", name="Preview")).to_be_checked(timeout=60_000)
    for name in ("Sample", "Sample clip", "Start"):
        if name == "Start":
            expect(visit.page.get_by_role("button", name="Start", exact=True)).to_be_enabled()
        tab_to(visit, name)
        visit.page.keyboard.press("Enter")
    visit.wait_until_live()
    visit.page.keyboard.press("Shift+Tab")
    tab_to(visit, "Pause", backwards=True)
    visit.page.keyboard.press("Space")
    visit.told("Paused")
    visit.page.keyboard.press("Space")
    tab_to(visit, "Stop")
    visit.page.keyboard.press("Enter")
    expect(visit.page.get_by_role("button", name="Start", exact=True)).to_be_visible()


def tab_to(visit: Visit, name: str, *, backwards: bool = False) -> None:
    """Press Tab until that button has the focus, and can be seen to have it."""
    for _ in range(60):
        visit.page.keyboard.press("Shift+Tab" if backwards else "Tab")
        focused: str = visit.page.evaluate("document.activeElement.textContent.trim()")
        if focused == name:
            style = visit.page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
            assert style == "solid"
            return
    raise AssertionError(f"Tab never came to {name}")


@pytest.fixture(scope="module")
def axe() -> str:
    """The source of axe-core, fetched once."""
    cache = Path(__file__).resolve().parents[2] / "build/axe"
    script = cache / "package/axe.min.js"
    if not script.exists():
        npm = shutil.which("npm")
        if npm is None:
            pytest.skip("npm, which axe-core comes by, is not installed")
        cache.mkdir(parents=True, exist_ok=True)
        fetch = [npm, "pack", "--silent", AXE]
        packed = subprocess.run(fetch, check=False, cwd=cache, capture_output=True, text=True)
        if packed.returncode != 0:
            pytest.skip(f"axe-core cannot be fetched: {packed.stderr[-300:]}")
        subprocess.run(["tar", "xzf", packed.stdout.split()[-1]], cwd=cache, check=True)
    return script.read_text()


def test_no_serious_fault_of_accessibility(
    transport: Transport, browser: Browser, server: RunningServer, axe: str, shoot: Shoot
) -> None:
    server.wait_for_sessions(0)
    # Colours that are on their way from one scheme to the other are neither's.
    with visiting(browser, server.url, transport=transport, reduced_motion="reduce") as visit:
        expect(visit.page.get_by_role("radio", name="Preview")).to_be_checked(timeout=60_000)
        visit.page.evaluate(axe)
        assert faults(visit) == []
        visit.page.get_by_text("Before start").click()
        assert faults(visit) == []
        visit.page.get_by_text("Before start").click()
        visit.start()
        visit.wait_until_live()
        visit.told("Following the face")
        assert faults(visit) == []
        for scheme in SCHEMES:
            visit.page.emulate_media(color_scheme=scheme)
            shoot(visit, f"{scheme}-live")
    server.wait_for_sessions(0)


def faults(visit: Visit) -> list[str]:
    """What is wrong with the page as it is now, in either scheme."""
    found: list[str] = []
    for scheme in SCHEMES:
        visit.page.emulate_media(color_scheme=scheme)
        result = visit.page.evaluate("axe.run(document, { resultTypes: ['violations'] })")
        found += [
            f"{scheme}: {fault['id']}: {[node['html'] for node in fault['nodes']]}"
            for fault in result["violations"]
            if fault["impact"] in {"serious", "critical"}
        ]
    return found


def test_the_page_may_load_nothing_from_elsewhere_and_run_nothing_inline(server: RunningServer) -> None:
    for path in ("/", "/stage", "/assets/js/main.js"):
        answer = server.get(path)
        policy = dict(
            part.strip().split(" ", 1) for part in answer.headers["content-security-policy"].split(";")
        )
        assert policy["default-src"] == "'self'"
        assert "unsafe" not in answer.headers["content-security-policy"]
        assert "http" not in answer.headers["content-security-policy"]


def test_the_api_page_needs_no_other_place(browser: Browser, server: RunningServer) -> None:
    with visiting(browser, server.url, path="/docs") as visit:
        expect(visit.page.get_by_text("/api/v1/pipeline/load").first).to_be_visible()
        assert visit.errors == []
        assert all(url.startswith((server.url, "data:", "blob:")) for url in visit.requests)
