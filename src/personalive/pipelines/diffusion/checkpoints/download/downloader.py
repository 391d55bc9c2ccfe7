"""Download of a set of weights: ask the hub for its files, then fetch those that are missing, each in whole.

<set>/.receipt.json     the files that were verified; while it is valid, nothing is hashed and the hub is not asked
<set>/.incomplete/      incomplete files, named by their hash; kept when a run ends early
<set>/.lock             held by the one download that runs
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from personalive.errors import DownloadError, OfflineError
from personalive.file_replace import replace_file
from personalive.pipelines.diffusion.checkpoints import layout
from personalive.pipelines.diffusion.checkpoints.download.fetch import fetch_file, rate_limit_error
from personalive.pipelines.diffusion.checkpoints.download.hub import HubClient, RepositoryListing
from personalive.pipelines.diffusion.checkpoints.download.plan import (
    DownloadPlan,
    compare,
    decide_base_unet,
    files_of_set,
    needed_files,
    present_files,
    undecided_files,
    unverified,
)
from personalive.pipelines.diffusion.checkpoints.download.progress import DownloadObserver, ProgressTracker
from personalive.pipelines.diffusion.checkpoints.download.retry import RetryPolicy, TransientError
from personalive.pipelines.diffusion.checkpoints.download.staging import (
    check_free_space,
    format_bytes,
    free_space,
    lock_folder,
)
from personalive.pipelines.diffusion.checkpoints.download.verified_files import VerifiedFiles
from personalive.pipelines.diffusion.checkpoints.layout import PublishedFile, Repository

_FIRST_CONNECTION_ATTEMPTS = 2  # a user who is offline should learn it soon


@dataclass(frozen=True, slots=True)
class DownloadResult:
    """The result of a run: the names of the files it fetched, and of those that existed, relative to `root`.

    `size` is the number of bytes of the new files. `asked` is whether the hub was asked. `checked` is False when
    files existed already that could not be verified.
    """

    root: Path
    fetched: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()
    size: int = 0
    asked: bool = True
    checked: bool = True


def download_weights(
    root: Path | None = None,
    *,
    tiny: bool = False,
    revisions: Mapping[str, str] | None = None,
    progress: DownloadObserver | None = None,
    retry: RetryPolicy | None = None,
) -> DownloadResult:
    """Fetch what is missing of the set at `root`, by default the one that is used when none is named.

    A set that was found complete before is not checked again, and the hub is not asked. A file with its final name
    is always whole. After an error, or Ctrl-C, the next run continues where this one stopped.

    Raises `OfflineError`, `AccessDeniedError`, `CorruptDownloadError`, `DiskFullError` or their base
    `DownloadError`; `InputError` for invalid revisions or an invalid address of the hub; `PipelineUnavailableError`
    without the libraries.
    """
    root, retry = root or layout.default_weights_dir(), retry or RetryPolicy()
    files = files_of_set(tiny=tiny, revisions=revisions)
    undecided = undecided_files(root, files)
    outcome = _fetch_missing(root, needed_files(root, files), undecided, progress, retry)
    if not undecided or not decide_base_unet(root):
        return outcome
    ProgressTracker(progress).note(
        "the denoising UNet leaves entries to the base UNet, so that is fetched too"
    )
    files = tuple(dict.fromkeys((*needed_files(root, files), *undecided)))
    more = _fetch_missing(root, files, (), progress, retry, first=False)
    return replace(
        more,
        fetched=(*outcome.fetched, *more.fetched),
        kept=tuple(name for name in more.kept if name not in outcome.fetched),
        size=outcome.size + more.size,
    )


def _fetch_missing(
    root: Path,
    files: Sequence[PublishedFile],
    later: Sequence[PublishedFile],
    progress: DownloadObserver | None,
    retry: RetryPolicy,
    *,
    first: bool = True,
) -> DownloadResult:
    """Fetch those files that are missing; `later` may have to follow. Raises the errors of `download_weights`."""
    tally = ProgressTracker(progress)
    unverified_files = unverified(root, files)
    if not unverified_files:
        return DownloadResult(root, kept=present_files(root, files), asked=False)
    hub = HubClient()
    try:
        listings = _list_repositories(hub, unverified_files, tally, retry)
    except OfflineError as error:
        _check_present(root, unverified_files, error)
        tally.note(str(error))
        return DownloadResult(root, kept=present_files(root, files), asked=False, checked=False)
    with lock_folder(root, tally) as staging:
        _check_still_verified(root, files, unverified_files)
        plan = compare(root, files, listings, tally, later=_total_size(later))
        if first and plan.items:
            tally.note(layout.LICENCES)
        _report_plan(plan, tally)
        check_free_space(root, plan.size - plan.staged)
        _fetch_all(
            hub, plan, staging, ProgressTracker(progress, all_size=plan.size, all_done=plan.staged), retry
        )
    return DownloadResult(root, tuple(item.name for item in plan.items), plan.kept, plan.size)


def _total_size(files: Sequence[PublishedFile]) -> int:
    """Return the known size in bytes of files for which the hub was not asked."""
    known = (layout.KNOWN_DIGESTS.get((file.repository, path)) for file in files for path in file.remote)
    return sum(each.size for each in known if each is not None)


def plan_download(
    root: Path | None = None,
    *,
    tiny: bool = False,
    revisions: Mapping[str, str] | None = None,
    progress: DownloadObserver | None = None,
    retry: RetryPolicy | None = None,
) -> DownloadPlan:
    """Return what `download_weights` would do. Nothing is written.

    A file of the right size counts as whole, and every existing file does where the hub cannot be reached. Raises
    the errors of `download_weights`.
    """
    root, tally = root or layout.default_weights_dir(), ProgressTracker(progress)
    retry = retry or RetryPolicy()
    every = files_of_set(tiny=tiny, revisions=revisions)
    files = needed_files(root, every)
    unverified_files = unverified(root, files)
    later = _total_size(undecided_files(root, every)) if unverified_files else 0
    try:
        listings = _list_repositories(HubClient(), unverified_files, tally, retry) if unverified_files else {}
    except OfflineError as error:
        _check_present(root, unverified_files, error)
        tally.note(str(error))
        return DownloadPlan(root, present_files(root, files), later=later)
    _check_still_verified(root, files, unverified_files)
    return compare(root, files, listings, tally, thorough=False, later=later)


def _check_present(root: Path, files: Sequence[PublishedFile], error: OfflineError) -> None:
    """Accept that the hub is out of reach if all files exist; otherwise raise the error, with what to do."""
    missing = [file for file in files if file.find_in(root) is None]
    if missing:
        raise _manual_download_error(error, root, missing) from error


def _check_still_verified(
    root: Path, files: Sequence[PublishedFile], unverified_before: Sequence[PublishedFile]
) -> None:
    """Raise `DownloadError` when a file changed during the request for others, or while waiting for the lock."""
    for file in unverified(root, files):
        if file not in unverified_before:
            changed = file.find_in(root) or root / file.folder / file.names[-1]
            raise DownloadError(f"{changed} was changed meanwhile: run the same command again.")


def _list_repositories(
    hub: HubClient, files: Sequence[PublishedFile], tracker: ProgressTracker, retry: RetryPolicy
) -> dict[Repository, RepositoryListing]:
    """Ask once for what each of the files' repositories has. Raises the errors of `HubClient.list_files`."""
    listings = {}
    for repository in dict.fromkeys(file.repository for file in files):
        paths = {path for file in files if file.repository == repository for path in file.remote}
        try:
            listings[repository] = retry.run(
                partial(hub.list_files, repository, paths),
                tracker.note,
                max_connection_failures=_FIRST_CONNECTION_ATTEMPTS,
            )
        except TransientError as hiccup:
            if hiccup.busy:
                raise rate_limit_error(hub, hiccup, "then run the same command again") from hiccup
            raise OfflineError(f"There is {hiccup.reason}.") from hiccup
    return listings


def _report_plan(plan: DownloadPlan, tracker: ProgressTracker) -> None:
    if plan.items:
        files = "1 file" if len(plan.items) == 1 else f"{len(plan.items)} files"
        resumed = f", {format_bytes(plan.staged)} of it there already" if plan.staged else ""
        tracker.note(
            f"fetching {files} into {plan.root}: {format_bytes(plan.size)}{resumed}{plan.describe_later}; "
            f"{format_bytes(free_space(plan.root))} are free"
        )


def _fetch_all(
    hub: HubClient, plan: DownloadPlan, staging: Path, tracker: ProgressTracker, retry: RetryPolicy
) -> None:
    receipt = VerifiedFiles(plan.root)
    for item in plan.items:
        part = fetch_file(hub, item, staging, tracker, retry)
        path = plan.root / item.name
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(part, path)
        receipt.add(path, item.file, item.published.digest, item.listing.commit)


def _manual_download_error(error: OfflineError, root: Path, files: Sequence[PublishedFile]) -> OfflineError:
    """Return the error with what to do: which files to copy, from which repository and into which folder."""
    groups: dict[str, list[str]] = {}
    for file in files:
        source = (
            f"from {file.repository.name} (revision {file.repository.revision}) into {root / file.folder}"
        )
        groups.setdefault(source, []).append(" or ".join((file.remote[0], *file.names[1:])))
    listed = "; ".join(f"{source}: {', '.join(paths)}" for source, paths in groups.items())
    return OfflineError(
        f"{error} Where there is a connection, run download_models --dir FOLDER, bring FOLDER here and run "
        f"download_models --from FOLDER; or copy by hand: {listed}."
    )
