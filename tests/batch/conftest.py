from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import pytest

from personalive.batch.job_list import BatchJob
from personalive.media import open_writer
from personalive.media.provenance import Provenance
from personalive.media.types import Image
from personalive.pipelines import registry
from tests.batch.counted import FOLDER, Log
from tests.conftest import _moved

TINY_FRAMES = 22


@pytest.fixture(scope="session")
def portraits(portrait: Image, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of three portraits: ada.png, bea.png in other colours, cai.png in the mirror."""
    folder = tmp_path_factory.mktemp("portraits")
    for name, image in {
        "ada": portrait,
        "bea": portrait[..., ::-1],
        "cai": portrait[:, ::-1],
    }.items():
        cv2.imwrite(str(folder / f"{name}.png"), image[..., ::-1])
    return folder


@pytest.fixture(scope="session")
def clips(portrait: Image, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of two clips of 22 frames, 160×120: nod.mp4 and turn.mp4."""
    folder = tmp_path_factory.mktemp("clips")
    made_with = Provenance(software="test", pipeline="none", reference_sha256="0" * 64)
    for name, begin in {"nod": 0, "turn": 40}.items():
        with open_writer(
            folder / f"{name}.mp4", width=160, height=120, fps=25, provenance=made_with
        ) as writer:
            for k in range(TINY_FRAMES):
                frame = cv2.resize(_moved(portrait, begin + k), (160, 120), interpolation=cv2.INTER_AREA)
                writer.write(frame.astype("uint8"))
    return folder


@pytest.fixture
def store() -> Iterator[str]:
    """The URL of an empty store in this process's memory."""
    import fsspec

    name = f"store-{uuid.uuid4().hex[:8]}"
    yield f"memory://{name}"
    files: Any = fsspec.filesystem("memory")
    if files.exists(f"/{name}"):
        files.rm(f"/{name}", recursive=True)


def a_job(name: str, **options: Any) -> BatchJob:
    """A job whose files need not be there."""
    return BatchJob(
        name=name,
        reference=options.pop("reference", "/in/a.png"),
        driving=options.pop("driving", "/in/b.mp4"),
        output=f"/out/{name}",
        options={"parameters": {}, **options},
    )


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Log]:
    """An installed package that registers the counted preview, here and in processes started now."""
    log = Log(tmp_path_factory.mktemp("counted") / "log")
    monkeypatch.setenv("COUNTED_LOG", str(log.path))
    root = Path(__file__).parents[3]
    paths = [str(root / "src"), str(root), str(FOLDER), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path for path in paths if path))
    monkeypatch.syspath_prepend(str(FOLDER))
    registry._entry_points.cache_clear()
    yield log
    monkeypatch.undo()
    registry._entry_points.cache_clear()
