"""A hub on this machine, a place for a set, and patience that takes no time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from personalive.pipelines.diffusion.checkpoints.download.retry import RetryPolicy
from tests.pipelines.diffusion.checkpoints.download.hub_server import HubServer, serving


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    with serving(monkeypatch) as server:
        yield server


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "set"


@pytest.fixture
def naps() -> list[float]:
    """The seconds that `patience` would have waited."""
    return []


@pytest.fixture
def patience(naps: list[float]) -> RetryPolicy:
    return RetryPolicy(sleep=naps.append)
