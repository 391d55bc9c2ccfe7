"""The jobs of a batch, made from the rows of a table or from pairs of portraits and clips."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Any, Literal

from personalive.batch import options, storage
from personalive.batch.job_table import TableRow, read_table
from personalive.errors import InputError

PairingMode = Literal["every", "name"]

_FILES = ("reference", "driving", "output")
_IMAGE_OUTPUTS = {".jpg", ".jpeg", ".png", ".webp"}
_REFERENCE_IMAGES = _IMAGE_OUTPUTS | {".heic", ".heif", ".avif"}
_DRIVING_CLIPS = {".mp4", ".m4v", ".mov", ".webm", ".mkv", ".avi", ".gif"}
_STILL_IMAGES = {".jpg", ".jpeg", ".png", ".heic", ".heif", ".avif"}
_VIDEOS = {".mp4", ".m4v", ".mov", ".webm"}
_SINGLE_FILE_OUTPUTS = _VIDEOS | {".gif"} | _IMAGE_OUTPUTS
_MAX_REPORTED = 5
"""The largest number of errors in rows that a message names."""


@dataclass(frozen=True, slots=True)
class BatchJob:
    """One job of a batch. URIs are absolute; `name` is the output as the user wrote it, and is unique."""

    name: str
    reference: str
    driving: str
    output: str
    options: Mapping[str, Any]
    """Checked fields of `AnimateJob`; all other options are in `parameters` by name."""

    @property
    def is_resumable(self) -> bool:
        """Whether the job is done in segments: videos are, GIFs and pictures are made in one go."""
        return PurePosixPath(self.output).suffix.lower() in _VIDEOS

    @property
    def load_key(self) -> str:
        """A key that is equal for jobs with the same pipeline and load parameters."""
        names = ("pipeline", "size", "seed")
        parameters = options.select_load_parameters(self.options.get("parameters", {}))
        return _text([*(self.options.get(name) for name in names), parameters])

    @property
    def reference_key(self) -> str:
        """A key that is equal for jobs that can share a fused reference."""
        return _text([self.load_key, self.reference, self.options.get("crop")])

    @property
    def description(self) -> str:
        """All that defines the job, except for the contents of its files."""
        return _text([self.reference, self.driving, dict(self.options)])


def _text(value: object) -> str:
    return json.dumps(value, sort_keys=True, default=str)


def read_jobs(
    inputs: Sequence[str], out: str, defaults: Mapping[str, Any], pairing: PairingMode
) -> list[BatchJob]:
    """Read the jobs of one table, or pair portraits and clips: `inputs` are one URI or two.

    `defaults` are options by name for rows that do not set them. Raises `InputError` where a row is not a valid
    job.
    """
    if len(inputs) == 1:
        base = storage.parent_uri(inputs[0])
        return _build_jobs(_expand_options(read_table(inputs[0])), base, out, defaults)
    if len(inputs) == 2:
        if out in inputs:  # the next run would take them for portraits or clips
            raise InputError(f"The results cannot go to {out}, where the inputs are: name another folder.")
        return _build_jobs(_pair(inputs[0], inputs[1], pairing), "/", out, defaults)
    raise InputError("Name one table of jobs, or portraits and clips: personalive batch portraits/ clips/.")


def _expand_options(rows: Iterable[TableRow]) -> Iterable[TableRow]:
    """Yield the rows with the values of their `options` object as columns."""
    for row in rows:
        inner = row.values.get("options")
        if inner is None:
            yield row
            continue
        if isinstance(inner, str):
            try:
                inner = json.loads(inner)
            except ValueError as error:
                raise InputError(f"{row.where}: its options are not valid JSON: {error}.") from None
        if not isinstance(inner, dict):
            raise InputError(f"{row.where}: its options must be an object of names and values.")
        outer = {name: value for name, value in row.values.items() if name != "options"}
        if twice := [*(set(inner) & set(outer)), *(set(inner) & set(_FILES))]:
            raise InputError(f"{row.where}: {twice[0]!r} must be a column or among the options, not both.")
        yield TableRow(
            row.where, {**outer, **{name: value for name, value in inner.items() if value is not None}}
        )


def _pair(references: str, drivings: str, pairing: PairingMode) -> list[TableRow]:
    portraits = _list_media(references, _REFERENCE_IMAGES | _DRIVING_CLIPS, "portraits")
    clips = _list_media(drivings, _DRIVING_CLIPS | _REFERENCE_IMAGES, "clips")
    if pairing == "every":
        pairs = list(itertools.product(portraits, clips))
    else:
        pairs = _pair_by_name(portraits, clips, references, drivings)
    return [
        TableRow(
            f"{storage.file_name(one)} with {storage.file_name(other)}", {"reference": one, "driving": other}
        )
        for one, other in pairs
    ]


def _pair_by_name(
    portraits: Sequence[str], clips: Sequence[str], references: str, drivings: str
) -> list[tuple[str, str]]:
    """Pair files with the same name, suffixes aside. Raises `InputError` for a file without its counterpart."""
    named = [{_stem(place): place for place in places} for places in (portraits, clips)]
    for places, stems, folder in zip((portraits, clips), named, (references, drivings), strict=True):
        if len(stems) < len(places):
            name = next(stem for stem, count in Counter(map(_stem, places)).items() if count > 1)
            raise InputError(f"{folder} has more than one file called {name}: pair them in a table instead.")
    if alone := sorted(named[0].keys() ^ named[1].keys()):
        listed = ", ".join(alone[:_MAX_REPORTED]) + (" …" if len(alone) > _MAX_REPORTED else "")
        raise InputError(f"{len(alone)} names are in one of the two folders only: {listed}.")
    return [(named[0][stem], named[1][stem]) for stem in sorted(named[0])]


def _list_media(uri: str, suffixes: set[str], what: str) -> list[str]:
    """Return the files of a folder that have one of `suffixes`, or the one file named."""
    if not storage.is_folder(uri):
        return [uri]
    names = [name for name in storage.list_files(uri) if not name.startswith(".")]
    found = [storage.join(uri, name) for name in names if PurePosixPath(name).suffix.lower() in suffixes]
    if not found:
        raise InputError(f"{uri} holds no {what}: no {', '.join(sorted(suffixes))}.")
    return found


def _build_jobs(rows: Iterable[TableRow], base: str, out: str, defaults: Mapping[str, Any]) -> list[BatchJob]:
    """Build the jobs. Raises `InputError` that counts the wrong rows and names the first few."""
    jobs: list[BatchJob] = []
    wrong: dict[str, list[str]] = {}
    where: list[str] = []
    validated: dict[str, dict[str, Any]] = {}
    for row in rows:
        try:
            jobs.append(_build_job(row, base, out, defaults, validated))
            where.append(row.where)
        except InputError as error:
            wrong.setdefault(str(error), []).append(row.where)
    if wrong:
        raise InputError(_summarize_errors(wrong))
    jobs = _assign_names(jobs, out)
    _check_unique(jobs, where)
    return jobs


def _summarize_errors(wrong: Mapping[str, Sequence[str]]) -> str:
    """Describe what is wrong and in which rows: every error once, up to the limit."""
    sentences = [
        f"{rows[0]}{f' and {len(rows) - 1} more' if len(rows) > 1 else ''}: {error}"
        for error, rows in itertools.islice(wrong.items(), _MAX_REPORTED)
    ]
    if rest := sum(len(rows) for rows in list(wrong.values())[_MAX_REPORTED:]):
        sentences.append(f"And {rest} more rows.")
    return " ".join(sentences)


def _build_job(
    row: TableRow, base: str, out: str, defaults: Mapping[str, Any], validated: dict[str, dict[str, Any]]
) -> BatchJob:
    """Build a row's job: its inputs are relative to `base`, its output to `out`; `validated` caches options."""
    values = {str(name): value for name, value in row.values.items()}
    for name in ("reference", "driving"):
        if not isinstance(values.get(name), str):
            raise InputError(f"it names no {name}: the column {name} must hold a path or URL.")
    given = {**defaults, **{name: value for name, value in values.items() if name not in _FILES}}
    key = _text(given)  # thousands of rows tend to have the same few options
    if key not in validated:
        validated[key] = options.validate_options(given)
    name = str(values.get("output", "")).strip()
    return BatchJob(
        name=name,
        reference=storage.resolve_uri(values["reference"], base),
        driving=storage.resolve_uri(values["driving"], base),
        output=_resolve_output(name, out) if name else "",
        options=validated[key],
    )


def _resolve_output(name: str, out: str) -> str:
    if not storage.is_remote(name) and ".." in PurePosixPath(name).parts:
        raise InputError(f"its output {name} is outside of {out}: give its whole path.")
    suffix = PurePosixPath(name).suffix.lower()
    if suffix not in _SINGLE_FILE_OUTPUTS or "%" in storage.file_name(name):
        kinds = ", ".join(sorted(_SINGLE_FILE_OUTPUTS))
        raise InputError(f"its output {name} must be one file: {kinds}.")
    return storage.resolve_uri(name, out)


def _assign_names(jobs: Sequence[BatchJob], out: str) -> list[BatchJob]:
    """Name jobs without an output after both inputs, by whole file names where stems are ambiguous."""

    def named(job: BatchJob, part: Any) -> str:
        suffix = ".png" if PurePosixPath(job.driving).suffix.lower() in _STILL_IMAGES else ".mp4"
        return f"{part(job.reference)}_{part(job.driving)}{suffix}"

    taken = Counter(job.name or named(job, _stem) for job in jobs)
    made = []
    for job in jobs:
        name = job.name or named(job, _stem)
        if not job.name and taken[name] > 1:
            name = named(job, _full_name)
        made.append(job if job.name else replace(job, name=name, output=storage.join(out, name)))
    return made


def _check_unique(jobs: Sequence[BatchJob], where: Sequence[str]) -> None:
    first: dict[str, int] = {}
    for index, job in enumerate(jobs):
        earlier = first.setdefault(job.output, index)
        if earlier != index:
            raise InputError(
                f"{where[earlier]} and {where[index]} would both write {job.name}: give them an output each."
            )
        if job.output in {job.reference, job.driving}:
            raise InputError(
                f"{where[index]} would overwrite its own input, {job.output}: choose another name."
            )


def _stem(place: str) -> str:
    return PurePosixPath(storage.file_name(place)).stem


def _full_name(place: str) -> str:
    return storage.file_name(place).replace(".", "-")
