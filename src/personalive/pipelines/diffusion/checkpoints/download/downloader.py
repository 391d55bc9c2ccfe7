"""Fetch a set of weights: ask the hub what there is, then bring what is missing, each file whole or not at all.

<set>/.receipt.json     what was found whole; while it holds, nothing is hashed and nobody is asked
<set>/.incomplete/      files on their way, named by their hash; kept when a run ends early
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
from personalive.pipelines.diffusion.checkpoints.download.fetch import busy, fetch
from personalive.pipelines.diffusion.checkpoints.download.hub import Hub, Listing
from personalive.pipelines.diffusion.checkpoints.download.plan import (
    Plan,
    decide,
    needed,
    present,
    survey,
    undecided,
    unsettled,
    wanted,
)
from personalive.pipelines.diffusion.checkpoints.download.progress import Progress, Tally
from personalive.pipelines.diffusion.checkpoints.download.retry import Hiccup, Patience
from personalive.pipelines.diffusion.checkpoints.download.staging import (
    claimed,
    free_space,
    require_space,
    sized,
)
from personalive.pipelines.diffusion.checkpoints.download.verified_files import Receipt
from personalive.pipelines.diffusion.checkpoints.layout import PublishedFile, Repository

_FIRST_CONTACT = 2  # who is offline should learn it soon


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run did: the names of the files it brought, and of those that were there, relative to `root`.

    `size` counts the bytes of the new files. `asked` is whether the hub was asked. `checked` is False when files
    were there already and it could not be found out whether they are whole.
    """

    root: Path
    fetched: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()
    size: int = 0
    asked: bool = True
    checked: bool = True


def download(
    root: Path | None = None,
    *,
    tiny: bool = False,
    revisions: Mapping[str, str] | None = None,
    progress: Progress | None = None,
    patience: Patience | None = None,
) -> Outcome:
    """Fetch what is missing of the set at `root`, by default the one that is used when none is named.

    A set that was found complete before is not looked into again, and the hub is not asked. A file at its final
    name is always whole. After an error, or Ctrl-C, the next run goes on where this one stopped.

    Raises `OfflineError`, `AccessDeniedError`, `CorruptDownloadError`, `DiskFullError` or their base
    `DownloadError`; `InputError` for revisions or a hub's address that cannot be; `PipelineUnavailableError`
    without the libraries.
    """
    root, patience = root or layout.default_root(), patience or Patience()
    files = wanted(tiny=tiny, revisions=revisions)
    open_before = undecided(root, files)
    outcome = _bring(root, needed(root, files), open_before, progress, patience)
    if not open_before or not decide(root):
        return outcome
    Tally(progress).note("the denoising UNet leaves entries to the base UNet, so that is fetched too")
    files = tuple(dict.fromkeys((*needed(root, files), *open_before)))
    more = _bring(root, files, (), progress, patience, first=False)
    return replace(
        more,
        fetched=(*outcome.fetched, *more.fetched),
        kept=tuple(name for name in more.kept if name not in outcome.fetched),
        size=outcome.size + more.size,
    )


def _bring(
    root: Path,
    files: Sequence[PublishedFile],
    later: Sequence[PublishedFile],
    progress: Progress | None,
    patience: Patience,
    *,
    first: bool = True,
) -> Outcome:
    """Fetch what is missing of those files; `later` may follow. Raises what `download` raises."""
    tally = Tally(progress)
    open_questions = unsettled(root, files)
    if not open_questions:
        return Outcome(root, kept=present(root, files), asked=False)
    hub = Hub()
    try:
        listings = _ask(hub, open_questions, tally, patience)
    except OfflineError as error:
        _require_present(root, open_questions, error)
        tally.note(str(error))
        return Outcome(root, kept=present(root, files), asked=False, checked=False)
    with claimed(root, tally) as staging:
        _require_still_settled(root, files, open_questions)
        plan = survey(root, files, listings, tally, later=_bytes(later))
        if first and plan.items:
            tally.note(layout.LICENCES)
        _announce(plan, tally)
        require_space(root, plan.size - plan.staged)
        _fetch_all(hub, plan, staging, Tally(progress, all_size=plan.size, all_done=plan.staged), patience)
    return Outcome(root, tuple(item.name for item in plan.items), plan.kept, plan.size)


def _bytes(files: Sequence[PublishedFile]) -> int:
    """How large files are that nobody was asked for, as far as that is known."""
    known = (layout.KNOWN.get((file.repository, path)) for file in files for path in file.remote)
    return sum(each.size for each in known if each is not None)


def preview(
    root: Path | None = None,
    *,
    tiny: bool = False,
    revisions: Mapping[str, str] | None = None,
    progress: Progress | None = None,
    patience: Patience | None = None,
) -> Plan:
    """What `download` would do. Nothing is written, and a file of the right size is taken for whole.

    Without the hub, so is every file that is there.
    Raises what `download` raises.
    """
    root, tally, patience = root or layout.default_root(), Tally(progress), patience or Patience()
    every = wanted(tiny=tiny, revisions=revisions)
    files = needed(root, every)
    open_questions = unsettled(root, files)
    later = _bytes(undecided(root, every)) if open_questions else 0
    try:
        listings = _ask(Hub(), open_questions, tally, patience) if open_questions else {}
    except OfflineError as error:
        _require_present(root, open_questions, error)
        tally.note(str(error))
        return Plan(root, present(root, files), later=later)
    _require_still_settled(root, files, open_questions)
    return survey(root, files, listings, tally, thorough=False, later=later)


def _require_present(root: Path, files: Sequence[PublishedFile], error: OfflineError) -> None:
    """Without the hub, files that are there will do; raises the error, with what to do, when any is not."""
    missing = [file for file in files if file.find(root) is None]
    if missing:
        raise _by_hand(error, root, missing) from error


def _require_still_settled(
    root: Path, files: Sequence[PublishedFile], open_questions: Sequence[PublishedFile]
) -> None:
    """Raise `DownloadError` when a file changed while others were asked for, or the lock was waited for."""
    for file in unsettled(root, files):
        if file not in open_questions:
            changed = file.find(root) or root / file.folder / file.names[-1]
            raise DownloadError(f"{changed} was changed meanwhile: run the same command again.")


def _ask(
    hub: Hub, files: Sequence[PublishedFile], tally: Tally, patience: Patience
) -> dict[Repository, Listing]:
    """What each of the files' repositories has, asked once for each. Raises what `Hub.listing` raises."""
    listings = {}
    for repository in dict.fromkeys(file.repository for file in files):
        paths = {path for file in files if file.repository == repository for path in file.remote}
        try:
            listings[repository] = patience.persist(
                partial(hub.listing, repository, paths),
                tally.note,
                connections=_FIRST_CONTACT,
            )
        except Hiccup as hiccup:
            if hiccup.busy:
                raise busy(hub, hiccup, "then run the same command again") from hiccup
            raise OfflineError(f"There is {hiccup.reason}.") from hiccup
    return listings


def _announce(plan: Plan, tally: Tally) -> None:
    if plan.items:
        files = "1 file" if len(plan.items) == 1 else f"{len(plan.items)} files"
        resumed = f", {sized(plan.staged)} of it there already" if plan.staged else ""
        tally.note(
            f"fetching {files} into {plan.root}: {sized(plan.size)}{resumed}{plan.more}; "
            f"{sized(free_space(plan.root))} are free"
        )


def _fetch_all(hub: Hub, plan: Plan, staging: Path, tally: Tally, patience: Patience) -> None:
    receipt = Receipt(plan.root)
    for item in plan.items:
        part = fetch(hub, item, staging, tally, patience)
        path = plan.root / item.name
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(part, path)
        receipt.remember(path, item.file, item.published.digest, item.listing.commit)


def _by_hand(error: OfflineError, root: Path, files: Sequence[PublishedFile]) -> OfflineError:
    """The same error, with what to do: which files to copy, from which repository and into which folder."""
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
