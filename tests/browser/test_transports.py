"""How the page is connected: by WebRTC, and by a WebSocket where that does not get through."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, expect

from tests.browser.chrome import Visit, visiting
from tests.browser.helpers import running, wait_for
from tests.server.running import RunningServer

pytestmark = [pytest.mark.browser, pytest.mark.slow]

KEY = "open-sesame"
BLOCK_WEBRTC = "RTCPeerConnection.prototype.setRemoteDescription = async () => {};"
"""As where UDP does not get through: an answer comes, and no connection."""
NO_TRACK_PROCESSING = "delete window.MediaStreamTrackProcessor; delete window.MediaStreamTrackGenerator;"
"""As Firefox and Safari are."""
NO_WEB_CODECS = "delete window.VideoEncoder;"
BREAK_DECODER = """window.decoded = 0;
const decode = VideoDecoder.prototype.decode;
VideoDecoder.prototype.decode = function (chunk) {
  if (++window.decoded % 40 === 0) this.close();
  else decode.call(this, chunk);
};"""
BLOCK_WEBSOCKET = """window.WebSocket = class {
  constructor() { setTimeout(() => this.onclose(), 50); }
  close() {}
};"""


@pytest.fixture
def again(browser: Browser, server: RunningServer) -> Iterator[Visit]:
    """A page that can be opened once more with scripts before it."""
    server.wait_for_sessions(0)
    with visiting(browser, server.url) as visit:
        yield visit
    server.wait_for_sessions(0)


def begin(visit: Visit, *scripts: str, transport: str = "automatic") -> None:
    for script in scripts:
        visit.context.add_init_script(script)
    visit.page.reload()
    visit.page.select_option("#transport", transport)
    visit.start()


def test_webrtc_is_used_where_it_gets_through(visit: Visit) -> None:
    visit.start()
    visit.wait_until_live()
    expect(visit.page.locator("#transport-used")).to_have_text("Connected by WebRTC.")
    assert not any("/api/v1/websocket" in url for url in visit.requests)
    assert visit.errors == []


def test_a_websocket_takes_over_where_webrtc_does_not(again: Visit, server: RunningServer) -> None:
    begin(again, BLOCK_WEBRTC)
    expect(again.page.locator("#announced")).to_contain_text("Connecting by a WebSocket", timeout=30_000)
    again.wait_until_live()
    expect(again.page.locator("#transport-used")).to_have_text("Connected by WebSocket.")
    again.told("Following the face")
    assert again.is_moving()
    assert len(server.sessions()) == 1
    # Where it is known, WebRTC is not waited for once more.
    again.page.get_by_role("button", name="Stop", exact=True).click()
    server.wait_for_sessions(0)
    again.page.get_by_role("button", name="Start", exact=True).click()
    again.wait_until_live(15)
    assert sum(url.endswith("/webrtc/offer") for url in again.requests) == 1
    assert again.errors == []


def test_the_choice_is_kept_over_a_reload(again: Visit) -> None:
    begin(again, transport="websocket")
    again.wait_until_live()
    expect(again.page.locator("#transport-used")).to_have_text("Connected by WebSocket.")
    again.page.reload()
    expect(again.page.locator("#transport")).to_have_value("websocket")


def test_browsers_without_track_processing(again: Visit) -> None:
    begin(again, NO_TRACK_PROCESSING, transport="websocket")
    again.wait_until_live()
    again.told("Following the face")
    assert again.is_moving()
    assert again.errors == []


def test_a_decoder_that_breaks_down_is_replaced(again: Visit) -> None:
    begin(again, BREAK_DECODER, transport="websocket")
    again.wait_until_live()
    wait_for(lambda: again.page.evaluate("window.decoded") > 100, 30)
    assert again.is_moving()
    assert again.errors == []


def test_browsers_without_web_codecs_are_told_so(again: Visit, server: RunningServer) -> None:
    begin(again, NO_WEB_CODECS, transport="websocket")
    again.told("WebCodecs is missing")
    assert server.sessions() == []
    again.page.select_option("#transport", "webrtc")
    again.page.get_by_role("button", name="Start", exact=True).click()
    again.wait_until_live()


def test_a_websocket_that_is_blocked_is_told(again: Visit) -> None:
    begin(again, BLOCK_WEBSOCKET, transport="websocket")
    again.told("The WebSocket to the server cannot be opened.")
    expect(again.page.get_by_role("button", name="Start", exact=True)).to_be_enabled()


def test_a_lost_websocket_is_opened_again(again: Visit, server: RunningServer) -> None:
    begin(
        again,
        "window.sockets = []; const Own = WebSocket;"
        "window.WebSocket = class extends Own { constructor(...given) { super(...given); sockets.push(this); } };",
        transport="websocket",
    )
    again.wait_until_live()
    (before,) = server.sessions()
    again.page.evaluate("sockets.at(-1).close()")
    again.told("Connection lost")
    again.told("Following the face", seconds=60)
    wait_for(lambda: [each["id"] for each in server.sessions()] not in ([], [before["id"]]))
    expect(again.page.locator("#transport-used")).to_have_text("Connected by WebSocket.")


def test_a_key_is_used_for_the_websocket_too(browser: Browser) -> None:
    with running({"api_key": KEY}) as server:
        server.identify(KEY)
        server.load("preview")
        with visiting(browser, server.url) as visit:
            visit.page.get_by_label("API key").fill(KEY)
            visit.page.get_by_role("button", name="Continue").click()
            visit.page.select_option("#transport", "websocket")
            visit.start()
            visit.wait_until_live()
            expect(visit.page.locator("#transport-used")).to_have_text("Connected by WebSocket.")
            assert KEY not in server.log
