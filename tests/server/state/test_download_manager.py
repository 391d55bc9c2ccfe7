"""Against a hub on this machine."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from personalive.errors import PipelineUnavailableError, UnknownPipelineError
from personalive.pipelines.diffusion.checkpoints import layout
from personalive.server.errors import ConflictError
from personalive.server.state.download_manager import DownloadManager, ModelsStatus
from tests.pipelines.diffusion.checkpoints.download.hub_server import HubServer, assert_complete, serving

REQUIRED = [file for file in layout.FILES if not file.optional and not file.fallback]


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PERSONALIVE_HOME", str(tmp_path))
    return layout.default_weights_dir()


@pytest.fixture
def hub(root: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    with serving(monkeypatch) as server:
        yield server


def wait(downloads: DownloadManager, true: Callable[[ModelsStatus], bool]) -> ModelsStatus:
    limit = time.monotonic() + 30
    while not true(status := downloads.get_status("personalive")):
        assert time.monotonic() < limit, status
        time.sleep(0.005)
    return status


def over(status: ModelsStatus) -> bool:
    return status.progress is None


def test_what_is_missing_is_named(root: Path) -> None:
    status = DownloadManager().get_status("personalive")
    assert not status.downloaded
    assert len(status.missing) == len(REQUIRED)
    assert "personalive/reference_unet.safetensors" in status.missing
    assert (status.progress, status.error) == (None, None)
    assert len(DownloadManager().get_status("personalive", tiny=True).missing) == len(REQUIRED) + 2


def test_a_download_says_how_far_it_is_until_nothing_is_missing(root: Path, hub: HubServer) -> None:
    downloads = DownloadManager()
    hub.pause = 0.01
    assert "personalive" in downloads.start("personalive")
    with pytest.raises(ConflictError, match="A download is running"):
        downloads.start("personalive")
    shares: list[float] = []

    def watched(status: ModelsStatus) -> bool:
        if status.progress is not None and status.progress.bytes_total:
            progress = status.progress
            assert 0 <= progress.bytes_done <= progress.bytes_total
            assert progress.current_file
            shares.append(progress.percentage)
        return over(status)

    status = wait(downloads, watched)
    assert (status.downloaded, status.missing, status.error) == (True, [], None)
    assert len(set(shares)) > 2
    assert shares == sorted(shares)
    assert_complete(root, hub)


def test_a_failure_is_told_until_the_next_start(root: Path, hub: HubServer) -> None:
    downloads = DownloadManager()
    hub.refuse("api", 403)
    downloads.start("personalive")
    status = wait(downloads, over)
    assert not status.downloaded
    assert status.error
    assert downloads.get_status("personalive").error == status.error
    hub.heal()
    downloads.start("personalive")
    status = wait(downloads, over)
    assert (status.downloaded, status.error) == (True, None)


def test_stopping_ends_it_and_the_next_one_goes_on(root: Path, hub: HubServer) -> None:
    downloads = DownloadManager()
    hub.pause = 0.02
    downloads.start("personalive")
    wait(downloads, lambda status: status.progress is not None and status.progress.bytes_done > 50_000)
    asyncio.run(downloads.stop())
    status = wait(downloads, over)
    assert not status.downloaded
    assert "stopped" in str(status.error)
    hub.heal()
    downloads.start("personalive")
    assert wait(downloads, over).downloaded


def test_pipelines_that_need_none(plugins: None) -> None:
    downloads = DownloadManager()
    for name in ("preview", "echo"):
        status = downloads.get_status(name)
        assert (status.downloaded, status.missing, status.error) == (True, [], None)
        assert "nothing is to be downloaded" in downloads.start(name)


def test_weights_of_other_pipelines_are_their_own_matter(plugins: None) -> None:
    downloads = DownloadManager()
    status = downloads.get_status("missing")
    assert not status.downloaded
    assert "download_models --pipeline missing" in str(status.error)
    with pytest.raises(PipelineUnavailableError, match="download_models --pipeline missing"):
        downloads.start("missing")
    with pytest.raises(PipelineUnavailableError, match="cannot be imported"):
        downloads.get_status("broken")


def test_an_unknown_pipeline_is_refused() -> None:
    for ask in (DownloadManager().get_status, DownloadManager().start):
        with pytest.raises(UnknownPipelineError, match="Known: "):
            ask("../x")


def test_stopping_without_a_download_is_nothing() -> None:
    asyncio.run(DownloadManager().stop())
