"""The report of a batch, as JSON and as a self-contained HTML page."""

from __future__ import annotations

import base64
import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from html import escape
from importlib.metadata import version
from importlib.resources import files
from string import Template

from personalive.batch import storage
from personalive.batch.job_list import BatchJob
from personalive.batch.manifest import JobRecord, JobState

REPORT_JSON = "report.json"
REPORT_HTML = "report.html"
THUMBNAILS_FOLDER = ".thumbnails"
"""Name of the folder of the results' thumbnails, beside the results."""
_MAX_ROWS = 2000
"""The most jobs that the page shows thumbnails of: some three kilobytes each."""
_READ_THREADS = 16
_STATE_ORDER = (JobState.FAILED, JobState.RUNNING, JobState.PENDING, JobState.DONE)

ReportRow = tuple[BatchJob, JobRecord]


@dataclass(frozen=True, slots=True)
class BatchTotals:
    """Sums over the jobs of a batch. `seconds` is the time that all workers together spent on frames."""

    jobs: int
    done: int
    failed: int
    unfinished: int
    frames: int
    seconds: float
    video_seconds: float
    pipelines: tuple[str, ...]
    """Names of the pipelines that made the finished outputs."""

    @classmethod
    def from_rows(cls, lines: Sequence[ReportRow]) -> BatchTotals:
        """Return the sums over these jobs."""
        states = Counter(entry.state for _, entry in lines)
        done = [entry for _, entry in lines if entry.state is JobState.DONE]
        return cls(
            jobs=len(lines),
            done=states[JobState.DONE],
            failed=states[JobState.FAILED],
            unfinished=states[JobState.PENDING] + states[JobState.RUNNING],
            frames=sum(entry.frames for entry in done),
            seconds=round(sum(entry.seconds for entry in done), 3),
            video_seconds=round(sum(entry.frames / entry.fps for entry in done if entry.fps), 3),
            pipelines=tuple(sorted({entry.pipeline_name for entry in done if entry.pipeline_name})),
        )


def save_thumbnail(out: str, name: str, jpeg: bytes) -> None:
    """Save the thumbnail of a job's result for the report."""
    storage.write_bytes(_thumbnail_uri(out, name), jpeg)


def write_report(out: str, rows: Sequence[ReportRow], wall_seconds: float) -> str:
    """Write report.json and report.html into the output folder, and return the page's URI.

    `wall_seconds` is how long the run took. Raises `MediaError` or `RemoteStorageError`.
    """
    totals, when = BatchTotals.from_rows(rows), datetime.now(UTC)
    storage.write_bytes(storage.join(out, REPORT_JSON), _render_json(out, rows, totals, wall_seconds, when))
    page = storage.join(out, REPORT_HTML)
    storage.write_bytes(page, _render_html(out, rows, totals, wall_seconds, when).encode())
    return page


def _render_json(
    out: str, lines: Sequence[ReportRow], totals: BatchTotals, wall_seconds: float, when: datetime
) -> bytes:
    head = {
        "made_by": f"personalive {version('personalive')}",
        "made_at": when.isoformat(timespec="seconds"),
        "out": out,
        "wall_seconds": round(wall_seconds, 3),
        "totals": {name: getattr(totals, name) for name in BatchTotals.__dataclass_fields__},
    }
    jobs = [
        {
            **{"name": job.name, "output": job.output, "reference": job.reference, "driving": job.driving},
            **{"options": dict(job.options)},
            **entry.model_dump(mode="json", exclude={"name", "key", "crashes"}),
        }
        for job, entry in lines
    ]
    return (json.dumps({**head, "jobs": jobs}, indent=1, default=str, ensure_ascii=False) + "\n").encode()


def _render_html(
    out: str, lines: Sequence[ReportRow], totals: BatchTotals, wall_seconds: float, when: datetime
) -> str:
    ordered = sorted(lines, key=lambda line: _STATE_ORDER.index(line[1].state))
    shown = [entry.name for _, entry in ordered if entry.state is JobState.DONE][:_MAX_ROWS]
    pictures = _read_thumbnails(out, shown)
    template = Template(files("personalive.batch").joinpath("report.html").read_text("utf-8"))
    return template.substitute(
        out=escape(out),
        when=when.strftime("%Y-%m-%d %H:%M UTC"),
        version=escape(version("personalive")),
        pipelines="".join(f" · {escape(name)}" for name in totals.pipelines),
        summary=_render_summary(totals, wall_seconds),
        rows="\n".join(_render_row(job, entry, pictures.get(entry.name)) for job, entry in ordered),
        left_out=_omitted_note(totals.done - len(shown)),
    )


def _omitted_note(count: int) -> str:
    return f"<p>The last {count} rows are shown without pictures.</p>" if count > 0 else ""


def _render_summary(totals: BatchTotals, wall_seconds: float) -> str:
    speed = totals.frames / totals.seconds if totals.seconds else 0.0
    facts = [
        ("jobs", f"{totals.jobs:,}"),
        ("done", f"{totals.done:,}"),
        ("failed", f"{totals.failed:,}"),
        ("not finished", f"{totals.unfinished:,}"),
        ("video made", _format_duration(totals.video_seconds)),
        ("frames", f"{totals.frames:,}"),
        ("frames per second of work", f"{speed:.1f}"),
        ("last run", _format_duration(wall_seconds)),
    ]
    # Counts of failures and the like are left out where they are zero.
    kept = [(name, value) for name, value in facts if value != "0" or name in {"jobs", "done"}]
    return "\n".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in kept)


def _render_row(job: BatchJob, entry: JobRecord, picture: str | None) -> str:
    image = f'<img src="{picture}" alt="">' if picture else ""
    speed = f"{entry.frames / entry.seconds:.1f}" if entry.seconds and entry.state is JobState.DONE else ""
    made = f"{entry.width}×{entry.height}" if entry.width else ""
    told = [entry.reason] if entry.reason else list(entry.notes)
    cells = [
        ("picture", image),
        ("name", f"<strong>{escape(entry.name)}</strong>{_render_inputs(job)}"),
        ("state", f'<span class="{entry.state}">{entry.state}</span>'),
        ("number", f"{entry.frames:,}" if entry.frames else ""),
        ("number", made),
        ("number", f"{entry.seconds:.1f}" if entry.seconds else ""),
        ("number", speed),
        ("number", str(entry.attempts) if entry.attempts else ""),
        ("told", "<br>".join(escape(sentence) for sentence in told)),
    ]
    return "<tr>" + "".join(f'<td class="{kind}">{cell}</td>' for kind, cell in cells) + "</tr>"


def _render_inputs(job: BatchJob) -> str:
    reference, driving = (escape(storage.file_name(place)) for place in (job.reference, job.driving))
    full = escape(f"{job.reference}\n{job.driving}", quote=True)
    return f'<small title="{full}">{reference} with {driving}</small>'


def _read_thumbnails(out: str, names: Sequence[str]) -> dict[str, str]:
    """Return the thumbnails that exist, as data URIs."""
    with ThreadPoolExecutor(_READ_THREADS) as pool:
        found = pool.map(lambda name: storage.read_bytes(_thumbnail_uri(out, name)), names)
        return {
            name: "data:image/jpeg;base64," + base64.b64encode(data).decode()
            for name, data in zip(names, found, strict=True)
            if data
        }


def _thumbnail_uri(out: str, name: str) -> str:
    return storage.join(out, THUMBNAILS_FOLDER, hashlib.sha256(name.encode()).hexdigest()[:24] + ".jpg")


def _format_duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"
