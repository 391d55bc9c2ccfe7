"""What the page saves says that it is synthetic, whoever reads it."""

from __future__ import annotations

import hashlib
from pathlib import Path

import av
import numpy as np
import PIL.Image
import pytest
from playwright.sync_api import Browser, Download, expect

from personalive.media import COMPOSITE_SYNTHETIC, read_provenance
from tests.browser.chrome import PORTRAIT, Transport, Visit, visiting
from tests.browser.helpers import Shoot, running, wait_for
from tests.server.running import RunningServer

pytestmark = [pytest.mark.browser, pytest.mark.slow]


def saved(download: Download, folder: Path) -> Path:
    path = folder / download.suggested_filename
    assert "synthetic" in path.name
    download.save_as(path)
    return path


def check_mark(path: Path) -> None:
    mark = read_provenance(path)
    assert mark is not None
    assert mark["synthetic"] == "true"
    assert mark["pipeline"] == "preview"
    assert mark["digital_source_type"] == COMPOSITE_SYNTHETIC
    assert mark["reference_sha256"] == hashlib.sha256(PORTRAIT.read_bytes()).hexdigest()


def check_film(path: Path, least: int) -> None:
    """It plays, at an even rate, and something moves in it."""
    with av.open(str(path)) as container:
        assert container.streams.video[0].average_rate == 30
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert len(frames) >= least
    assert frames[-1].shape == (512, 512, 3)
    assert any(np.abs(frame.astype(int) - frames[0]).mean() > 0.5 for frame in frames)


def kept(server: RunningServer) -> list[dict[str, object]]:
    found: list[dict[str, object]] = server.get("/api/v1/recordings").json()["recordings"]
    return found


def test_a_recording_and_a_picture_are_marked(
    live: Visit, server: RunningServer, tmp_path: Path, shoot: Shoot
) -> None:
    live.page.get_by_role("button", name="Record", exact=True).click()
    expect(live.page.locator("#announced")).to_have_text("Recording.")
    expect(live.page.locator("#record-time")).to_have_text("0:03", timeout=15_000)
    shoot(live, "recording")
    with live.page.expect_download() as started:
        live.page.get_by_role("button", name="Stop recording and save").click()
    film = saved(started.value, tmp_path)
    assert film.suffix == ".mp4"
    check_film(film, 45)
    check_mark(film)
    assert kept(server) == [], "it is not needed there any more"
    with live.page.expect_download() as started:
        live.page.get_by_role("button", name="Save a picture").click()
    picture = saved(started.value, tmp_path)
    with PIL.Image.open(picture) as opened:
        assert (opened.format, opened.size) == ("PNG", (512, 512))
    check_mark(picture)
    assert live.errors == []


def test_what_is_saved_while_the_video_is_shown_beside_it_is_said(live: Visit, tmp_path: Path) -> None:
    live.page.get_by_text("Side by side").click()
    live.page.get_by_role("button", name="Record", exact=True).click()
    expect(live.page.locator("#announced")).to_contain_text("Recording the result alone")
    expect(live.page.locator("#record-time")).to_contain_text("result alone")
    live.page.wait_for_timeout(1500)
    with live.page.expect_download() as started:
        live.page.get_by_role("button", name="Stop", exact=True).click()
    check_mark(saved(started.value, tmp_path))
    expect(live.page.locator("#announced")).to_contain_text("the result alone.")


def test_a_recording_is_saved_when_the_session_ends_by_itself(
    transport: Transport, live: Visit, server: RunningServer, tmp_path: Path
) -> None:
    live.page.get_by_role("button", name="Record", exact=True).click()
    expect(live.page.locator("#record-time")).to_have_text("0:02", timeout=15_000)
    with live.page.expect_download() as started:
        for session in server.sessions():
            server.delete(f"/api/v1/{transport}/offer/{session['id']}")
    check_mark(saved(started.value, tmp_path))
    expect(live.page.locator("#record-time")).to_have_text("")


def test_a_recording_is_saved_when_the_page_is_loaded_again(
    live: Visit, server: RunningServer, tmp_path: Path
) -> None:
    live.page.get_by_role("button", name="Record", exact=True).click()
    expect(live.page.locator("#record-time")).to_have_text("0:02", timeout=15_000)
    with live.page.expect_download() as started:
        live.page.reload()
    check_mark(saved(started.value, tmp_path))
    wait_for(lambda: kept(server) == [])


def test_a_server_that_cannot_record_says_why(transport: Transport, browser: Browser, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with (
        running({"recordings_dir": str(tmp_path / "file")}) as server,
        visiting(browser, server.url, transport=transport) as visit,
    ):
        visit.start()
        visit.wait_until_live()
        visit.page.get_by_role("button", name="Record", exact=True).click()
        expect(visit.page.locator("#announced")).to_contain_text("Recordings cannot be kept")
        expect(visit.page.get_by_role("button", name="Record", exact=True)).to_be_enabled()
        visit.page.get_by_role("button", name="Stop", exact=True).click()
        wait_for(lambda: server.sessions() == [])
