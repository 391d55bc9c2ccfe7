"""The web page as a visitor meets it: in Chromium, with a camera, against a server of its own.

The pictures of docs/guide.md are made by these tests: PAGE_PICTURES=docs/images pytest -m browser
"""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from urllib.parse import urlsplit

import av
import numpy as np
import PIL.Image
import pytest
from playwright.sync_api import Browser, Download, Playwright, expect, sync_playwright

from personalive.face.face import Face
from personalive.face.pose import euler_angles
from personalive.face.tracker import FaceDetector
from personalive.media import Image
from tests.pipelines.personalive.download.hub_server import serving as serving_hub
from tests.serving import browser as chrome
from tests.serving import running as processes
from tests.serving.browser import CLIP, DESKTOP, PHONE, PORTRAIT, Visit, visiting
from tests.serving.running import RunningServer, free_port

pytestmark = [pytest.mark.browser, pytest.mark.slow]

AXE = "axe-core@4.14.1"
LAGS = np.arange(0.0, 1.5, 0.05)
"""Seconds by which the result may trail the driver."""

Shoot = Callable[[Visit, str], None]


def running(settings: Mapping[str, object] | None = None) -> AbstractContextManager[RunningServer]:
    """A server as it is installed, without the pipelines of the tests' plugin."""
    return processes.running(settings, environment={"PYTHONPATH": os.environ.get("PYTHONPATH", "")})


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
def live(visit: Visit) -> Visit:
    """The sample portrait, driven by the sample clip."""
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
        picture = PIL.Image.open(io.BytesIO(visit.page.screenshot())).convert("RGB")
        # A palette is a third of the size, and no eye sees it.
        picture.quantize(256, dither=PIL.Image.Dither.NONE).save(to / f"page-{name}.png", optimize=True)

    return write


def upload(visit: Visit, file: Path) -> None:
    visit.page.set_input_files("#portrait-file", file)


def write_picture(path: Path, image: Image) -> Path:
    PIL.Image.fromarray(image).save(path)
    return path


# -- from the first visit to a result


def test_three_clicks_lead_to_a_result_that_follows_the_camera(browser: Browser, shoot: Shoot) -> None:
    with running() as server, visiting(browser, server.url) as visit:
        expect(visit.page.get_by_role("radio", name="Preview")).to_be_checked(timeout=60_000)
        expect(visit.page.get_by_role("button", name="Download")).to_be_visible()
        shoot(visit, "first-visit")
        visit.page.get_by_role("button", name="Sample", exact=True).click()
        visit.page.get_by_role("button", name="Camera", exact=True).click()
        expect(visit.page.get_by_text("Ready.")).to_be_visible()
        time.sleep(1)
        shoot(visit, "ready")
        visit.page.get_by_role("button", name="Start", exact=True).click()
        visit.wait_until_live()
        visit.told("Following the driver")
        expect(visit.page.locator("#figure-face")).to_have_text("In view")
        expect(visit.page.locator("#figure-delay")).to_contain_text("s", timeout=15_000)
        expect(visit.page.get_by_text("a landmark warp, not the diffusion model").first).to_be_visible()
        time.sleep(2)
        shoot(visit, "live")
        driver, result = map(faces, filmed(visit, seconds=9.5))
        assert followed(driver, result, yaw) > 0.8
        assert followed(driver, result, jaw) > 0.6
        visit.page.get_by_role("button", name="Stop", exact=True).click()
        expect(visit.page.get_by_role("button", name="Start", exact=True)).to_be_enabled()
        server.wait_for_sessions(0)
        assert visit.errors == []
        assert {urlsplit(url).netloc for url in visit.requests if not url.startswith(("blob:", "data:"))} == {
            urlsplit(server.url).netloc
        }


Film = list[tuple[float, Image]]

_FILM = """async ({ seconds, rate }) => {
  const films = {};
  const record = (id) => {
    const video = document.getElementById(id);
    const canvas = new OffscreenCanvas(256, 256);
    const side = Math.min(video.videoWidth, video.videoHeight);
    const left = (video.videoWidth - side) / 2, top = (video.videoHeight - side) / 2;
    const frames = (films[id] = []);
    const begin = performance.now();
    let next = begin;
    const look = async (now) => {
      if (now > begin + 1000 * seconds) return;
      video.requestVideoFrameCallback(look);
      if (now < next) return;
      next = now + 1000 / rate;
      canvas.getContext("2d").drawImage(video, left, top, side, side, 0, 0, 256, 256);
      const reader = new FileReader();
      reader.onload = () => frames.push([now / 1000, reader.result]);
      reader.readAsDataURL(await canvas.convertToBlob({ type: "image/jpeg", quality: 0.9 }));
    };
    video.requestVideoFrameCallback(look);
  };
  record("driver-video");
  record("result-video");
  await new Promise((resolve) => setTimeout(resolve, 1000 * seconds + 500));
  return [films["driver-video"], films["result-video"]];
}"""


def filmed(visit: Visit, seconds: float, rate: float = 10) -> tuple[Film, Film]:
    """Driver and result for a while: time in seconds, and picture."""
    films = visit.page.evaluate(_FILM, {"seconds": seconds, "rate": rate})
    driver, result = ([(at, chrome.decoded(data)) for at, data in film] for film in films)
    return driver, result


def yaw(face: Face) -> float:
    return float(euler_angles(face.transform)[1])


def jaw(face: Face) -> float:
    return face.score("jawOpen")


def faces(film: Film) -> list[tuple[float, Face]]:
    """Found picture by picture, without the help of tracking."""
    found = []
    with FaceDetector() as detector:
        for at, image in film:
            seen = detector.detect(image, thorough=False)
            found += [(at, seen[0])] if seen else []
    assert len(found) > 0.8 * len(film) > 20, f"faces in {len(found)} of {len(film)} pictures"
    return found


def followed(
    driver: list[tuple[float, Face]], result: list[tuple[float, Face]], channel: Callable[[Face], float]
) -> float:
    """The correlation of something in both, at the delay where it is largest."""
    at, asked = np.array([(at, channel(face)) for at, face in driver]).T
    seen_at, seen = np.array([(at, channel(face)) for at, face in result]).T
    best = -1.0
    for lag in LAGS:
        inside = seen_at - lag >= at[0]
        wanted = np.interp(seen_at[inside] - lag, at, asked)
        best = max(best, float(np.corrcoef(wanted, seen[inside])[0, 1]))
    return best


# -- while it runs


def test_another_portrait_while_it_runs(live: Visit, tmp_path: Path, portrait: Image, shoot: Shoot) -> None:
    before = live.frame().astype(float).mean((0, 1))
    upload(live, write_picture(tmp_path / "blue.png", np.ascontiguousarray(portrait[..., ::-1])))
    expect(live.page.locator("#announced")).to_have_text("The portrait is now blue.png.", timeout=20_000)
    live.page.wait_for_timeout(1500)
    after = live.frame().astype(float).mean((0, 1))
    assert np.sign(before[0] - before[2]) != np.sign(after[0] - after[2])
    shoot(live, "swapped")
    assert live.is_moving()
    live.page.get_by_role("button", name="Sample", exact=True).click()
    expect(live.page.locator("#announced")).to_have_text("The portrait is now Sample.")
    assert live.errors == []


def test_another_driver_while_it_runs(live: Visit) -> None:
    live.page.get_by_role("button", name="Camera", exact=True).click()
    expect(live.page.get_by_role("button", name="Camera", exact=True)).to_have_attribute(
        "aria-pressed", "true"
    )
    assert live.is_moving(6)
    assert live.errors == []


def test_pause_and_resume(live: Visit, shoot: Shoot) -> None:
    live.page.get_by_role("button", name="Pause").click()
    live.told("Paused")
    live.page.wait_for_timeout(1500)
    assert not live.is_moving(2)
    shoot(live, "paused")
    live.page.get_by_role("button", name="Resume").click()
    assert live.is_moving(6)
    live.page.get_by_role("button", name="Reset", exact=True).click()
    expect(live.page.locator("#announced")).to_have_text("Begun anew.")
    assert live.is_moving(6)
    assert live.errors == []


def test_a_recording_plays_and_a_picture_can_be_opened(live: Visit, tmp_path: Path, shoot: Shoot) -> None:
    live.page.get_by_role("button", name="Record", exact=True).click()
    live.page.wait_for_timeout(4000)
    shoot(live, "recording")
    with live.page.expect_download() as started:
        live.page.get_by_role("button", name="Stop recording and save").click()
    film = saved(started.value, tmp_path)
    with av.open(str(film)) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert len(frames) > 15
    assert frames[-1].shape == (512, 512, 3)
    assert any(np.abs(frame.astype(int) - frames[0]).mean() > 0.5 for frame in frames)
    with live.page.expect_download() as started:
        live.page.get_by_role("button", name="Save a picture").click()
    picture = PIL.Image.open(saved(started.value, tmp_path))
    assert (picture.format, picture.size) == ("PNG", (512, 512))
    assert live.errors == []


def saved(download: Download, folder: Path) -> Path:
    path = folder / download.suggested_filename
    assert "synthetic" in path.name
    download.save_as(path)
    return path


def test_compare_mirror_and_full_screen(live: Visit, shoot: Shoot) -> None:
    page = live.page
    page.locator("#stage").hover()
    whole = page.locator("#result-video").bounding_box()
    page.get_by_text("Side by side").click()
    page.wait_for_timeout(500)
    shoot(live, "side-by-side")
    half, driver = page.locator("#result-video").bounding_box(), page.locator("#driver-video").bounding_box()
    assert whole
    assert half
    assert driver
    assert half["width"] < whole["width"]
    assert driver["width"] == pytest.approx(half["width"], abs=2)
    page.get_by_text("Overlay").click()
    page.wait_for_timeout(500)
    shoot(live, "overlay")
    box, driver = page.locator("#result-video").bounding_box(), page.locator("#driver-video").bounding_box()
    assert box
    assert driver
    assert all(abs(box[side] - driver[side]) < 3 for side in ("x", "y", "width", "height"))
    mirror = page.get_by_role("button", name="Mirror", exact=True)
    mirror.click()
    expect(mirror).to_have_attribute("aria-pressed", "true")
    flipped = page.evaluate("getComputedStyle(document.getElementById('result-video')).transform")
    assert flipped.startswith("matrix(-1")
    page.get_by_role("button", name="Full screen").click()
    wait_for(lambda: page.evaluate("document.fullscreenElement !== null"))
    page.get_by_role("button", name="Leave full screen").click()
    wait_for(lambda: page.evaluate("document.fullscreenElement === null"))
    assert live.errors == []


def test_sliders_set_the_sessions_parameters(live: Visit, server: RunningServer) -> None:
    live.page.get_by_role("slider", name="Expression").focus()
    live.page.keyboard.press("Home")
    live.page.get_by_text("Pose and all").click()

    def parameters() -> dict[str, object]:
        found: dict[str, object] = server.sessions()[0]["parameters"]
        return found

    wait_for(lambda: parameters()["expression"] == 0 and parameters()["motion"] == "absolute")
    live.page.get_by_role("button", name="Defaults").click()
    wait_for(lambda: parameters()["expression"] == 1 and parameters()["motion"] == "relative")
    expect(live.page.get_by_role("slider", name="Expression")).to_have_value("1")


def test_values_chosen_before_the_start_are_in_force(visit: Visit, server: RunningServer) -> None:
    visit.page.get_by_text("Before start").click()
    visit.page.get_by_role("slider", name="Width").focus()
    visit.page.keyboard.press("Home")
    visit.page.get_by_label("Seed").fill("7")
    visit.start()
    visit.wait_until_live()
    status = server.get("/api/v1/pipeline/status").json()
    assert (status["load_params"]["width"], status["load_params"]["seed"]) == (256, 7)
    assert visit.frame().shape == (512, 256, 3)
    visit.page.get_by_role("button", name="Stop", exact=True).click()
    server.wait_for_sessions(0)
    server.load("preview")


def wait_for(true: Callable[[], bool], seconds: float = 15) -> None:
    until = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < until, "it did not come about"
        time.sleep(0.2)


# -- what goes wrong, in words


def test_the_page_recovers_from_a_server_that_is_started_again(browser: Browser, shoot: Shoot) -> None:
    at = {"port": free_port()}
    with running(at) as first, visiting(browser, first.url) as visit:
        visit.start()
        visit.wait_until_live()
        first.process.send_signal(signal.SIGTERM)
        visit.told("Connection lost")
        assert first.process.wait(30) == 0
        visit.told("Trying again in")
        shoot(visit, "connection-lost")
        with running(at) as second:
            visit.told("Following the driver", seconds=60)
            second.wait_for_sessions(1)
            assert visit.is_moving(6)
            assert second.get("/api/v1/pipeline/status").json()["pipeline_id"] == "preview"


def test_a_server_that_vanishes_is_noticed(browser: Browser) -> None:
    with running() as server, visiting(browser, server.url) as visit:
        visit.start()
        visit.wait_until_live()
        server.process.send_signal(signal.SIGSTOP)
        try:
            visit.told("Connection lost", seconds=40)
        finally:
            server.process.send_signal(signal.SIGCONT)
        visit.told("Following the driver", seconds=60)


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
    for name in ("notes.txt", "broken.png"):
        upload(visit, tmp_path / name)
        problem = visit.page.locator("#portrait-problem")
        expect(problem).to_contain_text(f"{name} is not a picture that can be used.")
    visit.page.set_input_files("#video-file", tmp_path / "notes.txt")
    expect(visit.page.locator("#driver-problem")).to_contain_text("notes.txt is not a video")
    shoot(visit, "wrong-file")
    visit.page.set_input_files("#video-file", CLIP)
    expect(visit.page.locator("#driver-name")).to_have_text("driving.mp4")
    expect(visit.page.locator("#driver-problem")).to_be_hidden()
    assert visit.errors == []


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
    expect(visit.page.get_by_role("button", name="wall.png")).to_have_attribute("aria-pressed", "true")


def test_pictures_come_by_drop_paste_and_camera(visit: Visit) -> None:
    data = list(PORTRAIT.read_bytes())
    give = """({ data, kind }) => {
      const transfer = new DataTransfer();
      transfer.items.add(new File([new Uint8Array(data)], `${kind}.jpg`, { type: "image/jpeg" }));
      const event = kind === "drop"
        ? new DragEvent("drop", { dataTransfer: transfer, bubbles: true })
        : new ClipboardEvent("paste", { clipboardData: transfer, bubbles: true });
      document.body.dispatchEvent(event);
    }"""
    for kind, name in (("drop", "drop.jpg"), ("paste", "Pasted picture")):
        visit.page.evaluate(give, {"data": data, "kind": kind})
        tile = visit.page.get_by_role("button", name=name)
        expect(tile).to_have_attribute("aria-pressed", "true")
    visit.page.get_by_role("button", name="Take a picture").click()
    wait_for(lambda: visit.page.evaluate("document.getElementById('shot-video').videoWidth > 0"))
    visit.page.get_by_role("button", name="Take it").click()
    expect(visit.page.get_by_role("button", name="Camera picture")).to_have_attribute("aria-pressed", "true")
    assert visit.errors == []


def test_nobody_in_view(playwright: Playwright, folder: Path, server: RunningServer, shoot: Shoot) -> None:
    chrome.write_camera(folder / "leaves.mjpeg", faceless=90)
    camera = chrome.launch(playwright, folder / "leaves.mjpeg")
    server.wait_for_sessions(0)
    with visiting(camera, server.url) as visit:
        visit.start("Camera")
        visit.wait_until_live()
        visit.told("No face in view.", seconds=60)
        expect(visit.page.locator("#figure-face")).to_have_text("Not in view")
        shoot(visit, "no-face")
        visit.told("Following the driver", seconds=60)
    camera.close()


def test_a_busy_server_is_waited_for(live: Visit, browser: Browser, shoot: Shoot) -> None:
    with visiting(browser, live.url) as second:
        second.start()
        second.told("The server is busy")
        shoot(second, "busy")
        live.page.get_by_role("button", name="Stop", exact=True).click()
        second.page.get_by_role("button", name="Try now").click()
        second.wait_until_live()


def test_weights_are_offered_and_fetched_with_progress(
    browser: Browser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shoot: Shoot
) -> None:
    monkeypatch.setenv("PERSONALIVE_HOME", str(tmp_path))
    with serving_hub(monkeypatch) as hub, running() as server, visiting(browser, server.url) as visit:
        page = visit.page
        radio = page.get_by_role("radio", name="PersonaLive")
        expect(radio).to_be_disabled(timeout=60_000)
        hub.pause = 0.1
        page.get_by_role("button", name="Download").click()
        expect(page.get_by_role("progressbar", name="Download")).to_be_visible()
        expect(page.get_by_text("GB ·")).to_be_visible(timeout=30_000)
        shoot(visit, "download")
        hub.pause = 0
        expect(radio).to_be_enabled(timeout=60_000)
        assert visit.errors == []


def test_a_download_that_fails_says_why(
    browser: Browser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PERSONALIVE_HOME", str(tmp_path))
    with serving_hub(monkeypatch) as hub, running() as server, visiting(browser, server.url) as visit:
        hub.refuse("api", 404)
        visit.page.get_by_role("button", name="Download").click(timeout=60_000)
        expect(visit.page.get_by_role("button", name="Try again")).to_be_visible(timeout=60_000)
        expect(visit.page.locator(".weights .problem")).not_to_be_empty()


# -- for everybody


def test_on_a_phone(browser: Browser, server: RunningServer, shoot: Shoot) -> None:
    server.wait_for_sessions(0)
    for scheme in ("light", "dark"):
        with visiting(
            browser, server.url, PHONE, has_touch=True, is_mobile=True, color_scheme=scheme
        ) as visit:
            expect(visit.page.get_by_role("radio", name="Preview")).to_be_checked(timeout=60_000)
            shoot(visit, f"phone-{scheme}-first-visit")
            visit.page.get_by_role("button", name="Sample", exact=True).tap()
            visit.page.get_by_role("button", name="Sample clip").tap()
            visit.page.get_by_role("button", name="Start", exact=True).tap()
            visit.wait_until_live()
            visit.told("Following the driver")
            wide = visit.page.evaluate("document.documentElement.scrollWidth")
            assert wide <= PHONE[0]
            box = visit.page.locator("#result-video").bounding_box()
            assert box is not None
            assert 0 <= box["y"] < PHONE[1] / 2
            shoot(visit, f"phone-{scheme}-live")
            assert visit.is_moving()
            visit.page.get_by_role("slider", name="Smoothing").scroll_into_view_if_needed()
            shoot(visit, f"phone-{scheme}-sliders")
            assert visit.errors == []
        server.wait_for_sessions(0)


def test_with_the_keyboard_alone(visit: Visit) -> None:
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


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_serious_fault_of_accessibility(
    browser: Browser, server: RunningServer, axe: str, scheme: str, shoot: Shoot
) -> None:
    server.wait_for_sessions(0)
    with visiting(browser, server.url, color_scheme=scheme) as visit:
        expect(visit.page.get_by_role("radio", name="Preview")).to_be_checked(timeout=60_000)
        visit.page.evaluate(axe)
        assert faults(visit) == []
        visit.page.get_by_text("Before start").click()
        assert faults(visit) == []
        visit.page.get_by_text("Before start").click()
        visit.start()
        visit.wait_until_live()
        visit.told("Following the driver")
        assert faults(visit) == []
        shoot(visit, f"{scheme}-live")
    server.wait_for_sessions(0)


def faults(visit: Visit) -> list[str]:
    found = visit.page.evaluate("axe.run(document, { resultTypes: ['violations'] })")
    return [
        f"{fault['id']}: {[node['html'] for node in fault['nodes']]}"
        for fault in found["violations"]
        if fault["impact"] in {"serious", "critical"}
    ]


def test_the_page_may_load_nothing_from_elsewhere_and_run_nothing_inline(server: RunningServer) -> None:
    for path in ("/", "/stage", "/assets/js/main.js"):
        answer = server.get(path)
        policy = dict(
            part.strip().split(" ", 1) for part in answer.headers["content-security-policy"].split(";")
        )
        assert policy["default-src"] == "'self'"
        assert "unsafe" not in answer.headers["content-security-policy"]
        assert "http" not in answer.headers["content-security-policy"]


# -- the key, the stage, the diffusion pipeline


def test_the_key_is_asked_for_and_kept_for_the_tab(browser: Browser, shoot: Shoot) -> None:
    with running({"api_key": "open-sesame"}) as server, visiting(browser, server.url) as visit:
        field = visit.page.get_by_label("API key")
        field.fill("wrong")
        visit.page.keyboard.press("Enter")
        expect(visit.page.get_by_text("does not accept this key")).to_be_visible()
        shoot(visit, "key")
        field.fill("open-sesame")
        visit.page.keyboard.press("Enter")
        visit.start()
        visit.wait_until_live()
        visit.page.reload()
        expect(visit.page.get_by_role("radio", name="Preview")).to_be_checked(timeout=60_000)
        expect(field).to_be_hidden()
        assert "open-sesame" not in visit.page.evaluate("JSON.stringify(localStorage)")


def test_the_stage_shows_the_result_and_comes_back(live: Visit, browser: Browser, shoot: Shoot) -> None:
    with visiting(browser, live.url, (640, 640), path="/stage?background=green") as stage:
        video = stage.page.locator("#video")

        def shown() -> bool:
            return video.is_visible() and video.evaluate("video => video.videoWidth") == 512

        wait_for(shown)
        background = stage.page.evaluate("getComputedStyle(document.documentElement).backgroundColor")
        assert background == "rgb(0, 177, 64)"
        stage.page.wait_for_timeout(1000)
        shoot(stage, "stage-green")
        live.page.get_by_role("button", name="Stop", exact=True).click()
        wait_for(lambda: not shown(), 30)
        live.page.get_by_role("button", name="Start", exact=True).click()
        wait_for(shown, 40)
    for background, colour in (("%23123456", "rgb(18, 52, 86)"), ("transparent", "rgba(0, 0, 0, 0)")):
        with visiting(browser, live.url, path=f"/stage?background={background}") as stage:
            painted = stage.page.evaluate("getComputedStyle(document.documentElement).backgroundColor")
            assert painted == colour


@pytest.mark.timeout(600)
def test_the_diffusion_pipeline_on_small_weights(
    browser: Browser, tmp_path: Path, test_weights: Path, monkeypatch: pytest.MonkeyPatch, shoot: Shoot
) -> None:
    (tmp_path / "pretrained_weights").symlink_to(test_weights)
    monkeypatch.setenv("PERSONALIVE_HOME", str(tmp_path))
    given = {"pipeline": "personalive", "load_params": json.dumps({"width": 64, "height": 64})}
    with running(given) as server:
        server.wait_until_loaded()
        with visiting(browser, server.url, DESKTOP) as visit:
            expect(visit.page.get_by_role("radio", name="PersonaLive")).to_be_checked(timeout=60_000)
            visit.start()
            visit.wait_until_live(300)
            assert visit.frame().shape == (64, 64, 3)
            assert visit.is_moving(60)
            expect(visit.page.get_by_role("slider", name="Head pose")).to_be_visible()
            shoot(visit, "diffusion")
            assert visit.errors == []
