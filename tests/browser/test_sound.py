"""The sound of a visitor's microphone, and of a video file, on its way to the server and back."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from playwright.sync_api import expect

from personalive.media import open_driving
from tests.browser.chrome import CLIP, Transport, Visit
from tests.browser.helpers import wait_for
from tests.server.running import RunningServer

pytestmark = [pytest.mark.browser, pytest.mark.slow]

NO_AUDIO_ENCODER = "delete window.AudioEncoder;"

_LOUDEST = """async (milliseconds) => {
  const context = new AudioContext();
  const analyser = context.createAnalyser();
  const stream = document.getElementById("result-video").srcObject;
  context.createMediaStreamSource(new MediaStream(stream.getAudioTracks())).connect(analyser);
  const samples = new Float32Array(analyser.fftSize);
  let loudest = 0;
  for (const end = performance.now() + milliseconds; performance.now() < end && loudest < 0.01; ) {
    await new Promise((resolve) => setTimeout(resolve, 20));
    analyser.getFloatTimeDomainData(samples);
    loudest = samples.reduce((most, sample) => Math.max(most, Math.abs(sample)), loudest);
  }
  await context.close();
  return loudest;
}"""


def loudest(visit: Visit, seconds: float) -> float:
    """The loudest sample of what comes back, from 0 to 1; it ends as soon as there is any sound."""
    return float(visit.page.evaluate(_LOUDEST, 1000 * seconds))


def is_muted(visit: Visit) -> bool:
    return bool(visit.page.evaluate("document.getElementById('result-video').muted"))


def test_the_microphone_goes_out_only_while_it_is_switched_on(
    visit: Visit, server: RunningServer, transport: Transport
) -> None:
    visit.page.add_init_script(
        "const ask = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices); window.asked = [];"
        "navigator.mediaDevices.getUserMedia = (what) => (window.asked.push(Object.keys(what)), ask(what));"
    )
    visit.page.reload()
    visit.start("Camera")
    visit.wait_until_live()
    sound = visit.page.get_by_role("button", name="Sound", exact=True)
    expect(sound).to_have_attribute("aria-pressed", "false")
    assert visit.page.evaluate("window.asked.flat().includes('audio')") is False
    assert server.sessions()[0]["figures"]["audio"] is None
    sound.click()  # Chromium's fake microphone beeps once a second
    expect(sound).to_have_attribute("aria-pressed", "true")
    wait_for(lambda: server.sessions()[0]["figures"]["audio"] is not None)
    assert loudest(visit, 10) > 0.01
    assert is_muted(visit)
    listen = visit.page.get_by_role("button", name="Listen")
    listen.click()
    expect(listen).to_have_attribute("aria-pressed", "true")
    assert not is_muted(visit)
    sound.click()
    expect(sound).to_have_attribute("aria-pressed", "false")
    expect(listen).to_be_hidden()
    assert is_muted(visit)
    wait_for(lambda: server.sessions()[0]["figures"]["audio"] is None)
    assert visit.errors == []


def write_clip(path: Path) -> None:
    """The sample clip, with a tone."""
    with av.open(str(path), "w") as container, open_driving(CLIP) as source:
        video, audio = container.add_stream("libx264", rate=25), container.add_stream("aac", rate=48_000)
        audio.codec_context.layout = "mono"
        for index, shown in enumerate(source):
            if index == 0:
                video.height, video.width = shown.image.shape[:2]
            frame = av.VideoFrame.from_ndarray(shown.image, format="rgb24")
            frame.pts, frame.time_base = index, Fraction(1, 25)
            container.mux(video.encode(frame))
            places = np.arange(index * 1920, (index + 1) * 1920)
            tone = (0.3 * np.sin(2 * np.pi * 440 * places / 48_000)).astype(np.float32)
            block = av.AudioFrame.from_ndarray(tone[None], format="fltp", layout="mono")
            block.sample_rate, block.pts, block.time_base = 48_000, index * 1920, Fraction(1, 48_000)
            container.mux(audio.encode(block))
        container.mux(video.encode(None))
        container.mux(audio.encode(None))


def test_a_video_file_brings_its_own_sound(
    visit: Visit, server: RunningServer, tmp_path: Path, transport: Transport
) -> None:
    write_clip(tmp_path / "clip.mp4")
    page = visit.page
    page.get_by_role("button", name="Sample", exact=True).click()
    page.set_input_files("#video-file", tmp_path / "clip.mp4")
    expect(page.get_by_role("button", name="Video file")).to_have_attribute("aria-pressed", "true")
    page.get_by_role("button", name="Start", exact=True).click()
    visit.wait_until_live()
    page.get_by_role("button", name="Sound", exact=True).click()
    wait_for(lambda: server.sessions()[0]["figures"]["audio"] is not None)
    assert loudest(visit, 10) > 0.01
    assert is_muted(visit)
    page.get_by_role("button", name="Sample clip").click()
    expect(page.locator("#announced")).to_have_text("This video has no sound.")
    expect(page.get_by_role("button", name="Sound", exact=True)).to_have_attribute("aria-pressed", "false")
    assert visit.errors == []


def test_sound_goes_on_after_a_lost_websocket(visit: Visit, server: RunningServer) -> None:
    visit.context.add_init_script(
        "window.sockets = []; const Own = WebSocket;"
        "window.WebSocket = class extends Own { constructor(...given) { super(...given); sockets.push(this); } };"
    )
    visit.page.reload()
    visit.page.select_option("#transport", "websocket")
    visit.start("Camera")
    visit.wait_until_live()
    visit.page.get_by_role("button", name="Sound", exact=True).click()
    wait_for(lambda: server.sessions()[0]["figures"]["audio"] is not None)
    (before,) = server.sessions()
    visit.page.evaluate("sockets.at(-1).close()")
    wait_for(lambda: [each["id"] for each in server.sessions()] not in ([], [before["id"]]), 60)
    wait_for(lambda: server.sessions()[0]["figures"]["audio"] is not None, 60)
    assert loudest(visit, 10) > 0.01
    assert is_muted(visit)


def test_browsers_without_an_encoder_of_sound_are_told_so(visit: Visit, server: RunningServer) -> None:
    visit.context.add_init_script(NO_AUDIO_ENCODER)
    visit.page.reload()
    visit.page.select_option("#transport", "websocket")
    visit.start("Camera")
    visit.wait_until_live()
    sound = visit.page.get_by_role("button", name="Sound", exact=True)
    sound.click()
    expect(visit.page.locator("#announced")).to_contain_text("AudioEncoder")
    expect(sound).to_have_attribute("aria-pressed", "false")
    assert server.sessions()[0]["figures"]["audio"] is None
    assert visit.is_moving()
