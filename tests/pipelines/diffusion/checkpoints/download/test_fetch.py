"""What goes wrong on the way, and how a file still comes out whole."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from email.utils import formatdate
from pathlib import Path

import pytest
from huggingface_hub import constants

from personalive.errors import (
    AccessDeniedError,
    CorruptDownloadError,
    DiskFullError,
    DownloadError,
    OfflineError,
)
from personalive.pipelines.diffusion.checkpoints.download.downloader import download_weights
from personalive.pipelines.diffusion.checkpoints.download.hub import HubFile
from personalive.pipelines.diffusion.checkpoints.download.retry import RetryPolicy
from personalive.pipelines.diffusion.checkpoints.download.verified_files import Digest
from tests.pipelines.diffusion.checkpoints.download.hub_server import (
    ALWAYS,
    COMMIT,
    HubServer,
    Watcher,
    assert_complete,
    released,
    sha256,
)
from tests.signals import IS_ROOT, KILL

FIRST = "personalive/reference_unet.pth"
PATH = "pretrained_weights/" + FIRST
SIZE = 150_000
PROGRAM = "from personalive.cli.download import main; main()"


def part(root: Path, hub: HubServer) -> Path:
    """The first file while it is incomplete."""
    return root / ".incomplete" / sha256(hub.content(FIRST))


def test_a_cut_connection_goes_on_where_it_broke(
    hub: HubServer, root: Path, patience: RetryPolicy, naps: list[float]
) -> None:
    hub.cut_after, hub.cuts = 70_000, 1
    download_weights(root, retry=patience)
    assert_complete(root, hub)
    first, second = hub.of("cdn", PATH)
    assert (first.range, first.sent) == (None, 70_000)
    assert (second.range, second.status, second.sent) == ("bytes=70000-", 206, SIZE - 70_000)
    assert naps == [1]


def test_patience_lasts_while_something_arrives(
    hub: HubServer, root: Path, patience: RetryPolicy, naps: list[float]
) -> None:
    hub.cut_after, hub.cuts = 10_000, 14
    download_weights(root, retry=patience)
    assert_complete(root, hub)
    assert hub.sent(PATH) - len(b"Found. Redirecting") * 15 == SIZE
    assert naps == [1] * 14


def test_a_connection_that_always_breaks_is_an_error_and_the_next_run_goes_on(
    hub: HubServer, root: Path, patience: RetryPolicy, naps: list[float]
) -> None:
    hub.cut_at, hub.cuts = 60_000, ALWAYS
    with pytest.raises(
        DownloadError, match=r"run the same command again to go on at 60.0 kB of 150.0 kB"
    ) as caught:
        download_weights(root, retry=patience)
    assert FIRST in str(caught.value)
    assert naps == [1, 2, 4, 8, 16][: len(naps)]
    assert len(naps) == patience.max_attempts - 1
    assert part(root, hub).stat().st_size == 60_000
    assert not (root / FIRST).exists()
    hub.heal()
    download_weights(root)
    assert_complete(root, hub)
    (request,) = hub.of("cdn", PATH)
    assert (request.range, request.sent) == ("bytes=60000-", SIZE - 60_000)


def test_a_server_without_ranges_starts_over(hub: HubServer, root: Path, patience: RetryPolicy) -> None:
    hub.knows_ranges, hub.cut_after, hub.cuts = False, 70_000, 1
    download_weights(root, retry=patience)
    assert_complete(root, hub)
    assert [request.sent for request in hub.of("cdn", PATH)] == [70_000, SIZE]


def test_a_server_that_cannot_go_on_from_there_starts_over(
    hub: HubServer, root: Path, patience: RetryPolicy
) -> None:
    part(root, hub).parent.mkdir(parents=True)
    part(root, hub).write_bytes(hub.content(FIRST)[:70_000])
    hub.refuse("cdn", 416, times=1)
    watcher = Watcher()
    download_weights(root, progress=watcher, retry=patience)
    assert_complete(root, hub)
    assert [request.range for request in hub.of("cdn", PATH)] == ["bytes=70000-", None]
    assert watcher.steps[-1].all_done == watcher.steps[-1].all_size


def test_a_file_that_arrives_damaged_is_fetched_anew(hub: HubServer, root: Path) -> None:
    hub.corruptions = 1
    download_weights(root)
    assert_complete(root, hub)
    assert [request.range for request in hub.of("cdn", PATH)] == [None, None]


def test_one_that_is_always_damaged_is_an_error_and_never_shows_up(hub: HubServer, root: Path) -> None:
    hub.corruptions = ALWAYS
    with pytest.raises(CorruptDownloadError, match=r"reference_unet.pth arrived damaged twice from http"):
        download_weights(root)
    assert len(hub.of("cdn", PATH)) == 2
    assert not (root / FIRST).exists()
    assert list((root / ".incomplete").iterdir()) == []
    hub.heal()
    download_weights(root)
    assert_complete(root, hub)


@pytest.mark.parametrize("there", [SIZE, SIZE + 5, SIZE // 2])
def test_a_damaged_rest_of_an_earlier_run_is_thrown_away(hub: HubServer, root: Path, there: int) -> None:
    part(root, hub).parent.mkdir(parents=True)
    part(root, hub).write_bytes(bytes(there))
    download_weights(root)
    assert_complete(root, hub)


def test_a_file_that_is_longer_than_published(hub: HubServer, root: Path) -> None:
    """No more of it lands on the disk than shows that it is wrong."""
    hub.excess = 5_000_000
    watcher = Watcher()
    with pytest.raises(CorruptDownloadError):
        download_weights(root, progress=watcher)
    assert max(step.done for step in watcher.steps) == SIZE + 1


def test_the_hub_asks_to_wait_and_then_answers(
    hub: HubServer, root: Path, patience: RetryPolicy, naps: list[float]
) -> None:
    hub.refuse("api", 429, times=2, Retry_After="7")
    hub.refuse("resolve", 429, times=1, RateLimit='"resolvers";r=0;t=55')
    hub.refuse("cdn", 503, times=2)
    download_weights(root, retry=patience)
    assert_complete(root, hub)
    assert naps == [8, 8, 56, 2, 4]


@pytest.mark.parametrize(
    ("kind", "tail"), [("api", "then run the same"), ("resolve", "go on at 0 bytes of 150.0 kB")]
)
def test_a_hub_that_never_has_time(
    hub: HubServer, root: Path, patience: RetryPolicy, naps: list[float], kind: str, tail: str
) -> None:
    hub.refuse(kind, 429, Retry_After="60")
    with pytest.raises(DownloadError, match=r"answers 429\): wait 1 min") as caught:
        download_weights(root, retry=patience)
    assert tail in str(caught.value)
    assert "HF_TOKEN" in str(caught.value)
    assert naps == [61] * (patience.max_attempts - 1)


def test_a_wait_that_is_too_long_is_the_users(
    hub: HubServer, root: Path, patience: RetryPolicy, naps: list[float]
) -> None:
    hub.refuse("api", 429, Retry_After="7200")
    with pytest.raises(DownloadError, match="wait 120 min, then run the same command again"):
        download_weights(root, retry=patience)
    assert naps == []


def test_the_hub_may_say_when_rather_than_how_long(
    hub: HubServer, root: Path, patience: RetryPolicy, naps: list[float]
) -> None:
    hub.refuse("api", 429, times=1, Retry_After=formatdate(time.time() + 100, usegmt=True))
    download_weights(root, retry=patience)
    assert 90 < naps[0] < 102


@pytest.mark.parametrize("status", [400, 401, 403])
def test_a_refusal_of_the_content_network_may_pass(
    hub: HubServer, root: Path, patience: RetryPolicy, naps: list[float], status: int
) -> None:
    hub.refuse("cdn", status, times=2)
    watcher = Watcher()
    download_weights(root, retry=patience, progress=watcher)
    assert_complete(root, hub)
    assert naps == [1, 2]
    assert len(hub.of("resolve", PATH)) == 3  # each time the hub signs another address
    assert any(
        f"{hub.cdn}, to which {hub.address} redirects, answers {status}; trying again in 1 s" in note
        for note in watcher.notes
    )


def test_one_that_does_not_pass_names_who_refuses(hub: HubServer, root: Path, patience: RetryPolicy) -> None:
    hub.refuse("cdn", 403)
    with pytest.raises(
        DownloadError, match=f"{hub.cdn}, to which {hub.address} redirects, answers 403"
    ) as caught:
        download_weights(root, retry=patience)
    assert type(caught.value) is DownloadError
    assert "run the same command again to go on" in str(caught.value)
    hub.refuse("cdn", 410)
    with pytest.raises(
        DownloadError, match=f"{hub.cdn}, to which .* answers 410 for huaichang/PersonaLive: try again"
    ):
        download_weights(root, retry=patience)


@pytest.mark.parametrize("kind", ["api", "resolve"])
@pytest.mark.parametrize(
    ("status", "code", "error", "words"),
    [
        (401, "GatedRepo", AccessDeniedError, r"accept them on http.*PersonaLive, then set HF_TOKEN"),
        (403, "GatedRepo", AccessDeniedError, r"accept them on"),
        (401, "RepoNotFound", AccessDeniedError, r"no repository huaichang/PersonaLive, or .* set HF_TOKEN"),
        (404, "RepoNotFound", DownloadError, r"no repository huaichang/PersonaLive.*check HF_ENDPOINT"),
        (404, "RevisionNotFound", DownloadError, r"no revision 'b247.*--revision huaichang/PersonaLive=main"),
        (401, "", AccessDeniedError, r"refuses access to huaichang/PersonaLive \(401\): set HF_TOKEN"),
        (403, "", AccessDeniedError, r"refuses access .* \(403\)"),
        (404, "", DownloadError, r"answers 404 for huaichang/PersonaLive: check HF_ENDPOINT"),
        (410, "", DownloadError, r"answers 410"),
    ],
)
def test_what_the_hub_refuses_for_good(
    hub: HubServer, root: Path, kind: str, status: int, code: str, error: type[DownloadError], words: str
) -> None:
    hub.refuse(kind, status, X_Error_Code=code)
    with pytest.raises(error, match=words) as caught:
        download_weights(root)
    assert type(caught.value) is error
    assert len(hub.of(kind)) == 1


def test_a_repository_without_the_file(hub: HubServer, root: Path) -> None:
    del hub.repositories["huaichang/PersonaLive"][PATH]
    with pytest.raises(DownloadError, match=r"has no pretrained_weights/personalive/reference_unet.safetens"):
        download_weights(root)
    assert hub.of("resolve") == []


@pytest.mark.parametrize("body", [b"<html>Log in first</html>", b"[]", b'{"id": 3, "siblings": [{}]}'])
def test_a_log_in_page_is_no_hub(hub: HubServer, root: Path, body: bytes) -> None:
    hub.refuse("api", 200)
    hub.refusals["api"].body = body
    with pytest.raises(DownloadError, match="does not answer as a hub does"):
        download_weights(root)


@pytest.mark.parametrize(
    "lies",
    [
        {"sha256": "../../precious"},
        {"sha256": "/precious"},
        {"sha256": "A" * 64},
        {"sha256": "0" * 64 + "\n"},
        {"sha256": 7},
        {"size": "150000"},
        {"size": -1},
        {"size": True},
    ],
    ids=str,
)
def test_a_hostile_listing_is_no_hub(hub: HubServer, root: Path, lies: dict[str, object]) -> None:
    precious = root.parent / "precious"
    precious.parent.mkdir()
    precious.write_text("mine")
    hub.lies = lies
    with pytest.raises(DownloadError, match="does not answer as a hub does"):
        download_weights(root)
    assert precious.read_text() == "mine"
    assert not root.exists()


def test_what_is_published_stays_in_its_repository() -> None:
    for path in ("/etc/passwd", "unet/../../file"):
        with pytest.raises(ValueError, match="out of the repository"):
            HubFile(path, 1, Digest("sha256", "0" * 64))


def test_a_link_in_place_of_an_incomplete_file_is_refused(hub: HubServer, root: Path) -> None:
    precious = root.parent / "precious"
    part(root, hub).parent.mkdir(parents=True)
    precious.write_text("mine")
    part(root, hub).symlink_to(precious)
    with pytest.raises(DownloadError, match=r"is a symbolic link, which no download makes: remove it\."):
        download_weights(root)
    assert precious.read_text() == "mine"


def test_a_hub_that_goes_away_in_the_middle(hub: HubServer, root: Path, patience: RetryPolicy) -> None:
    hub.cdn = "http://127.0.0.1:9"
    with pytest.raises(DownloadError, match="broke again and again") as caught:
        download_weights(root, retry=patience)
    assert not isinstance(caught.value, OfflineError)
    assert f"no connection to http://127.0.0.1:9, to which {hub.address} redirects (" in str(caught.value)


def test_a_mirror_that_redirects_to_one_that_is_not_there(
    hub: HubServer, root: Path, patience: RetryPolicy
) -> None:
    hub.refuse("api", 302, Location="http://127.0.0.1:9/api/models/huaichang/PersonaLive")
    with pytest.raises(
        OfflineError, match=f"no connection to http://127.0.0.1:9, to which {hub.address} redirects"
    ):
        download_weights(root, retry=patience)


def test_a_hub_that_falls_silent_is_asked_again(
    hub: HubServer, root: Path, patience: RetryPolicy, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Waker(Watcher):
        def note(self, text: str) -> None:
            super().note(text)
            if "trying again" in text:
                hub.pause = 0.0

    monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 0.2)
    download_weights(root)
    (root / FIRST).unlink()
    hub.heal()
    hub.pause = 1.0
    waker = Waker()
    download_weights(root, progress=waker, retry=patience)
    assert_complete(root, hub)
    assert [request.range for request in hub.of("cdn", PATH)] == [None, "bytes=20000-"]


def test_too_little_space_is_said_before_the_first_byte(
    hub: HubServer, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(".")._replace(free=1_000_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(DiskFullError, match=r"1\.\d MB are to be written into .*lacks 26\d\.\d MB"):
        download_weights(root)
    assert hub.of("resolve") == []


def test_a_disk_that_fills_up_on_the_way(hub: HubServer, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    again = "is full: free some space there and run the same command again"
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(DiskFullError, match=again):
            download_weights(root)
    assert not (root / FIRST).exists()
    assert part(root, hub).exists()
    download_weights(root)
    assert_complete(root, hub)


def test_a_folder_that_cannot_be_made_or_written(hub: HubServer, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    for root in (tmp_path / "file", tmp_path / "file" / "set"):
        with pytest.raises(DownloadError, match=r"cannot be written \(.*another with --dir"):
            download_weights(root)
    sealed = tmp_path / "sealed"
    sealed.mkdir(mode=0o500)
    if not IS_ROOT:  # root may write anywhere
        with pytest.raises(DownloadError, match=r"cannot be written \(Permission denied\)"):
            download_weights(sealed / "set")
    assert hub.of("resolve") == []


def start(root: Path, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", PROGRAM, "--dir", str(root), *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.mark.parametrize(("number", "code"), [(KILL, -9), (signal.SIGINT, 130), (signal.SIGTERM, -15)])
def test_killed_on_the_way_it_goes_on_where_it_was(
    hub: HubServer, root: Path, number: signal.Signals, code: int
) -> None:
    hub.pause = 0.05
    half = part(root, hub)
    with start(root) as process:
        until(lambda: half.exists() and half.stat().st_size >= 60_000)
        process.send_signal(number)
        _, err = process.communicate(timeout=20)
    assert process.returncode == code
    assert "Traceback" not in err
    assert ("interrupted: run the same command again to continue" in err) == (code == 130)
    there = half.stat().st_size
    assert 60_000 <= there < SIZE
    assert half.read_bytes() == hub.content(FIRST)[:there]
    hub.heal()
    download_weights(root)
    assert_complete(root, hub)
    (request,) = hub.of("cdn", PATH)
    assert (request.range, request.sent) == (f"bytes={there}-", SIZE - there)


@pytest.mark.slow
def test_two_at_once_fetch_everything_once(hub: HubServer, root: Path) -> None:
    hub.pause = 0.02
    with contextlib.ExitStack() as stack:
        both = [stack.enter_context(start(root)) for _ in range(2)]
        ends = [process.communicate(timeout=60) for process in both]
    assert [process.returncode for process in both] == [0, 0], ends
    assert_complete(root, hub)
    assert all(len(hub.of("resolve", path)) <= 1 for path in hub.repositories["huaichang/PersonaLive"])
    assert sum("is running; waiting for it" in err for _, err in ends) == 1


def test_the_server_speaks_as_the_hub_does(hub: HubServer, tmp_path: Path) -> None:
    """Otherwise the tests above would show little: huggingface_hub's own download must like it too."""
    from huggingface_hub import hf_hub_download

    for path in ("unet/config.json", "unet/diffusion_pytorch_model.bin"):
        found = hf_hub_download(
            "lambda/sd-image-variations-diffusers",
            path,
            revision=COMMIT,
            endpoint=hub.address,
            local_dir=tmp_path / "library",
        )
        assert Path(found).read_bytes() == released()["lambda/sd-image-variations-diffusers"][path]
    assert {request.method for request in hub.of("resolve")} == {"HEAD", "GET"}
