from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from personalive.jobs import AnimateJob, run
from personalive.jobs.pipeline_cache import PipelineCache
from personalive.pipelines import registry


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch, plugins: None) -> dict[str, int]:
    """How often the echo was loaded, fused and closed."""
    echo = registry.get_pipeline("echo")
    counts = dict.fromkeys(("load", "fuse", "close"), 0)
    for name in counts:
        real = getattr(echo, name)

        def method(*args: Any, name: str = name, real: Any = real, **kwargs: Any) -> Any:
            counts[name] += 1
            return real(*args, **kwargs)

        monkeypatch.setattr(echo, name, staticmethod(method) if name == "load" else method)
    return counts


def job(portrait_file: Path, clip: Path, output: Path, **options: Any) -> AnimateJob:
    return AnimateJob(
        reference=portrait_file,
        driving=clip,
        output=output,
        **{"pipeline": "echo", "size": 256, "max_frames": 4, **options},
    )


def test_jobs_alike_share_what_is_expensive(
    counted: dict[str, int], portrait_file: Path, clip: Path, tmp_path: Path
) -> None:
    alone = run(job(portrait_file, clip, tmp_path / "alone.mp4"))
    assert counted == {"load": 1, "fuse": 1, "close": 1}
    with PipelineCache() as shared:
        different: list[dict[str, Any]] = [{}, {"parameters": {"gain": 0.5}}, {"start": 0.2}]
        for index, options in enumerate(different):
            report = run(
                job(portrait_file, clip, tmp_path / f"{index}.mp4", **options), pipeline_cache=shared
            )
            assert report.states == alone.states
        assert counted == {"load": 2, "fuse": 2, "close": 1}
        assert (tmp_path / "0.mp4").read_bytes() == (tmp_path / "alone.mp4").read_bytes()
        run(job(portrait_file, clip, tmp_path / "whole.mp4", crop=False), pipeline_cache=shared)
        assert counted == {"load": 2, "fuse": 3, "close": 1}
        run(job(portrait_file, clip, tmp_path / "large.mp4", size=320), pipeline_cache=shared)
        assert counted == {"load": 3, "fuse": 4, "close": 2}
    assert counted["close"] == 3


def test_a_pipeline_of_ones_own_is_not_kept(
    counted: dict[str, int], portrait_file: Path, clip: Path, tmp_path: Path
) -> None:
    echo = registry.get_pipeline("echo")
    mine = echo.load(echo.load_parameters(width=256, height=256))
    with PipelineCache() as shared:
        run(job(portrait_file, clip, tmp_path / "out.mp4"), pipeline=mine, pipeline_cache=shared)
        assert counted == {"load": 1, "fuse": 1, "close": 0}
    assert counted["close"] == 0
