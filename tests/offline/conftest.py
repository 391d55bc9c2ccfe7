from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from personalive.pipelines import registry

LASTING = Path(__file__).parent / "lasting_plugin"


@pytest.fixture
def lasting(monkeypatch: pytest.MonkeyPatch, plugins: None) -> Iterator[None]:
    """Another installed package, which registers a pipeline whose sessions can be continued."""
    monkeypatch.syspath_prepend(str(LASTING))
    registry._registered.cache_clear()
    yield
    registry._registered.cache_clear()
