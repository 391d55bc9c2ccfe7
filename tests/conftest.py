"""Inputs that need no download: NASA's portrait of Eileen Collins (public domain), clips made from it, and a
stranger's pipeline.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
import skimage.data
from hypothesis import settings

from personalive.media.types import Image
from personalive.pipelines import registry

# The first example of a test often pays for an import or a compiled kernel: times say nothing here.
settings.register_profile("untimed", deadline=None, max_examples=30)
# CI tries the same examples each time, so that what it says of a change is about the change; `make test` at a desk
# draws new ones.
settings.register_profile("repeatable", settings.get_profile("untimed"), derandomize=True)
settings.load_profile("repeatable" if os.environ.get("CI") else "untimed")

# Without a GPU, Triton's kernels are tested in its interpreter. That is decided where they are defined, so before
# any test imports them; and by the driver's device file (WSL2's has another name), as to ask PyTorch takes seconds.
if not any(Path(name).exists() for name in ("/dev/nvidiactl", "/dev/dxg")):
    os.environ.setdefault("TRITON_INTERPRET", "1")

# A shell starts its background jobs deaf to Ctrl-C, and they pass that on: tests that press it would wait in vain.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

PLUGIN = Path(__file__).parent / "plugin"
LASTING = Path(__file__).parent / "jobs" / "lasting_plugin"
CLIP_FRAMES = 30
CLIP_FPS = 25


@pytest.fixture(scope="session", autouse=True)
def empty_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """No test sees what this machine has downloaded: the diffusion pipeline has no weights."""
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PERSONALIVE_HOME", str(home))
        yield home


@pytest.fixture(scope="session")
def portrait() -> Image:
    """uint8 RGB (512, 512, 3), read-only; the face is about 90 × 106 pixels around (225, 125)."""
    image: Image = np.array(skimage.data.astronaut())  # type: ignore[no-untyped-call]
    image.setflags(write=False)
    return image


@pytest.fixture(scope="session")
def portrait_file(portrait: Image, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("portrait") / "portrait.png"
    cv2.imwrite(str(path), portrait[..., ::-1])
    return path


@pytest.fixture(scope="session")
def clip(portrait: Image, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MP4 of 30 frames, 25 per second, 320×240 with sound: the portrait shifted, turned and scaled.

    Frames 12 to 15 are grey: no face.
    """
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=CLIP_FPS)
        video.width, video.height, video.pix_fmt = 320, 240, "yuv420p"
        sound = container.add_stream("aac", rate=44100)
        sound.layout = "mono"
        for k in range(CLIP_FRAMES):
            frame = av.VideoFrame.from_ndarray(_moved(portrait, k), format="rgb24")
            frame.pts, frame.time_base = k, Fraction(1, CLIP_FPS)
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        samples = round(44100 * CLIP_FRAMES / CLIP_FPS)
        tone = 0.2 * np.sin(np.arange(samples) * 2 * np.pi * 440 / 44100)
        for begin in range(0, samples, 1024):
            block = tone[None, begin : begin + 1024].astype(np.float32)
            piece = av.AudioFrame.from_ndarray(block, format="fltp", layout="mono")
            piece.sample_rate, piece.pts, piece.time_base = 44100, begin, Fraction(1, 44100)
            container.mux(sound.encode(piece))
        container.mux(sound.encode(None))
    return path


def _moved(portrait: Image, k: int) -> Image:
    if 12 <= k < 16:
        return np.full((240, 320, 3), 128, np.uint8)
    time = k / CLIP_FPS
    scale, turn = 0.9 + 0.1 * np.sin(3 * time), 0.15 * np.sin(4 * time)
    places = np.array([[scale, turn, -50 + 15 * np.sin(2 * time)], [-turn, scale, 10]])
    moved = cv2.warpAffine(portrait, places, (320, 240), borderMode=cv2.BORDER_REPLICATE)
    return moved.astype(np.uint8)


@pytest.fixture(scope="session")
def test_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A set of small random weights that everyone shares: nobody may change it."""
    from personalive.pipelines.diffusion.checkpoints.random_weights import write_random_weights

    return write_random_weights(tmp_path_factory.mktemp("weights") / "set")


@pytest.fixture
def plugins(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An installed package that registers the echo pipeline and three that are no use."""
    monkeypatch.syspath_prepend(str(PLUGIN))
    registry._entry_points.cache_clear()
    yield
    monkeypatch.undo()
    registry._entry_points.cache_clear()


@pytest.fixture
def lasting(monkeypatch: pytest.MonkeyPatch, plugins: None) -> Iterator[None]:
    """Another installed package, which registers a pipeline whose sessions can be continued."""
    monkeypatch.syspath_prepend(str(LASTING))
    registry._entry_points.cache_clear()
    yield
    registry._entry_points.cache_clear()
