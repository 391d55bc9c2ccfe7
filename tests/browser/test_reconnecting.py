"""A session that ends for a passing reason: the page goes on, waits as it is asked to, and gives up in the end."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, Route, expect

from tests.browser.chrome import TAP, Transport, Visit, visiting
from tests.browser.helpers import Shoot, wait_for
from tests.server.running import RunningServer

pytestmark = [pytest.mark.browser, pytest.mark.slow]

WHY = "The pipeline stopped unexpectedly and is being started again."
GIVEN_UP = "The pipeline stopped three times within a minute; see the server's log."
STATUS, LOAD = "/api/v1/pipeline/status", "/api/v1/pipeline/load"


class Starting:
    """Answers of a server whose pipeline is being started again, before those of the one that runs."""

    def __init__(
        self, page: Page, transport: Transport, *, looks: int = 0, refusals: int = 0, wait: int = 1
    ) -> None:
        """`looks`: how often the status is "loading"; after each of `refusals` offers it is so `looks` times more.

        A refusal asks to wait for `wait` seconds.
        """
        self.looks, self.refusals, self.wait = looks, refusals, wait
        self.left = looks
        self.offer = f"/api/v1/{transport}/offer"
        self.asked: list[str] = []
        self.error: str | None = None
        page.route(f"**{STATUS}", self._status)
        page.route(f"**{self.offer}", self._offer)

    @property
    def offers(self) -> int:
        """How often a session was asked for."""
        return self.asked.count(self.offer)

    def _status(self, route: Route) -> None:
        self.asked.append(STATUS)
        told: dict[str, object] = {
            "pipeline_id": "preview",
            "load_params": {},
            "stage": None,
            "progress": 0.5,
        }
        if self.left > 0:
            self.left -= 1
            route.fulfill(json=told | {"status": "loading", "error": None})
        elif self.error is not None:
            route.fulfill(json=told | {"status": "error", "error": self.error})
        else:
            route.continue_()

    def _offer(self, route: Route) -> None:
        if route.request.method != "POST":
            return route.continue_()
        self.asked.append(self.offer)
        if self.refusals <= 0:
            return route.continue_()
        self.refusals, self.left = self.refusals - 1, self.looks
        headers = {"Retry-After": str(self.wait), "Content-Type": "application/json"}
        return route.fulfill(status=503, headers=headers, body=json.dumps({"detail": WHY}))


@pytest.fixture
def tapped(transport: Transport, browser: Browser, server: RunningServer) -> Iterator[Visit]:
    """A session that runs."""
    server.wait_for_sessions(0)
    with visiting(browser, server.url, transport=transport, scripts=[TAP]) as visit:
        visit.start()
        visit.wait_until_live()
        yield visit
    server.wait_for_sessions(0)


def stop_for_a_while(visit: Visit) -> None:
    visit.hear({"type": "stream_stopped", "error_message": WHY, "retry": True})


def test_it_goes_on_as_before(
    transport: Transport, tapped: Visit, server: RunningServer, shoot: Shoot
) -> None:
    tapped.page.get_by_role("slider", name="Expression").focus()
    tapped.page.keyboard.press("Home")
    wait_for(lambda: server.sessions()[0]["parameters"]["expression"] == 0)
    before = server.sessions()[0]
    starting = Starting(tapped.page, transport, looks=3, refusals=2, wait=7)
    stop_for_a_while(tapped)
    tapped.told(f"{WHY} Trying again")
    expect(tapped.page.locator("#step-text")).to_have_text("Loading Preview")
    shoot(tapped, "starting-again")
    for _ in range(2):
        tapped.told(f"{WHY} Trying again in 7 s.")
        tapped.page.get_by_role("button", name="Try now").click()
    tapped.told("Following the face", seconds=60)
    assert starting.offers == 3
    after = server.sessions()[0]
    assert after["id"] != before["id"]
    assert after["parameters"] == before["parameters"]
    assert after["reference_id"] == before["reference_id"]
    expect(tapped.page.locator("#step")).to_be_hidden()
    expect(tapped.page.get_by_role("slider", name="Expression")).to_have_value("0")
    assert tapped.is_moving(6)


def test_it_waits_as_long_as_it_is_asked_to(transport: Transport, tapped: Visit) -> None:
    starting = Starting(tapped.page, transport, looks=1, refusals=1, wait=2)
    stop_for_a_while(tapped)
    tapped.told("Trying again in 2 s.")
    tapped.told("Following the face", seconds=60)
    assert starting.offers == 2


def test_a_start_while_the_pipeline_is_started_again(transport: Transport, visit: Visit) -> None:
    starting = Starting(visit.page, transport, looks=1, refusals=1, wait=2)
    visit.start()
    visit.told(f"{WHY} Trying again in 2 s.")
    visit.told("Following the face", seconds=60)
    assert starting.offers == 2


def test_another_portrait_meanwhile(transport: Transport, tapped: Visit, server: RunningServer) -> None:
    before = server.sessions()[0]["reference_id"]
    Starting(tapped.page, transport, looks=1, refusals=1, wait=60)
    stop_for_a_while(tapped)
    tapped.told("Trying again in 60 s.")
    tapped.page.evaluate(_MIRRORED)
    expect(tapped.page.get_by_role("button", name="mirrored.png")).to_have_attribute("aria-pressed", "true")
    tapped.page.get_by_role("button", name="Try now").click()
    tapped.told("Following the face", seconds=60)
    assert server.sessions()[0]["reference_id"] != before


_MIRRORED = """async () => {
  const still = document.getElementById("still");
  const canvas = new OffscreenCanvas(still.naturalWidth, still.naturalHeight);
  const context = canvas.getContext("2d");
  context.scale(-1, 1);
  context.drawImage(still, -canvas.width, 0);
  const files = new DataTransfer();
  files.items.add(new File([await canvas.convertToBlob()], "mirrored.png", { type: "image/png" }));
  const input = document.getElementById("portrait-file");
  input.files = files.files;
  input.dispatchEvent(new Event("change", { bubbles: true }));
}"""


@pytest.mark.parametrize("looks", [0, 2])
def test_a_pipeline_that_was_given_up(transport: Transport, tapped: Visit, shoot: Shoot, looks: int) -> None:
    starting = Starting(tapped.page, transport, looks=looks)
    starting.error = GIVEN_UP
    stop_for_a_while(tapped)
    tapped.told(GIVEN_UP)
    shoot(tapped, "given-up")
    expect(tapped.page.get_by_role("button", name="Start", exact=True)).to_be_visible()
    asked = len(starting.asked)
    tapped.page.wait_for_timeout(1500)
    assert len(starting.asked) == asked
    assert not any(url.endswith(LOAD) for url in tapped.requests)


@pytest.mark.parametrize("loading", [True, False])
def test_stop_works_at_once(transport: Transport, tapped: Visit, loading: bool) -> None:
    starting = Starting(tapped.page, transport, looks=10_000 if loading else 1, refusals=1, wait=600)
    stop_for_a_while(tapped)
    if loading:
        expect(tapped.page.locator("#step-text")).to_have_text("Loading Preview")
    else:
        tapped.told("Trying again in 600 s.")
    tapped.page.get_by_role("button", name="Stop", exact=True).click()
    expect(tapped.page.get_by_role("button", name="Start", exact=True)).to_be_visible(timeout=1000)
    expect(tapped.page.locator("#step")).to_be_hidden()
    expect(tapped.page.locator("#told")).to_be_hidden()
    asked = len(starting.asked)
    tapped.page.wait_for_timeout(1500)
    assert len(starting.asked) <= asked + 1, "one may have been on its way"


def test_tries_are_bounded(transport: Transport, tapped: Visit) -> None:
    starting = Starting(tapped.page, transport, looks=1, refusals=1000)
    stop_for_a_while(tapped)
    tapped.told("It did not come back. Press Start to try once more.", seconds=90)
    assert starting.offers == 12
    expect(tapped.page.get_by_role("button", name="Start", exact=True)).to_be_visible()
