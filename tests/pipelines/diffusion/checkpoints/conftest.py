"""Small sets of random weights."""

from __future__ import annotations

from pathlib import Path

import pytest

from personalive.pipelines.diffusion.checkpoints.random_weights import write_random_weights
from tests.pipelines.diffusion.checkpoints.sets import copied


@pytest.fixture(scope="session")
def small_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A set of random weights that everyone shares: nobody may change it."""
    return write_random_weights(tmp_path_factory.mktemp("small") / "set", seed=1)


@pytest.fixture
def own_set(small_set: Path, tmp_path: Path) -> Path:
    """A copy of it whose files may be replaced."""
    return copied(small_set, tmp_path / "set")
