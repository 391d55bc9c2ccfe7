"""Driver and result as the page shows them, and how well one follows the other."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from personalive.face.face import Face
from personalive.face.pose import fit_head_pose
from personalive.face.tracker import FaceDetector
from personalive.media import Image
from tests.browser import chrome
from tests.browser.chrome import Visit

LAGS = np.arange(0.0, 1.5, 0.05)


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
    return float(fit_head_pose(face.landmarks).angles[1])


def jaw(face: Face) -> float:
    return face.score("jawOpen")


def faces(film: Film) -> list[tuple[float, Face]]:
    """Found picture by picture, without the help of tracking."""
    found = []
    with FaceDetector() as detector:
        for at, image in film:
            seen = detector.detect(image, reach="near")
            found += [(at, seen[0])] if seen else []
    assert len(found) > 0.8 * len(film), f"faces in {len(found)} of {len(film)} pictures"
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
