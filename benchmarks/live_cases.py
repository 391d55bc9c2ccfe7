"""What `benchmarks.live` runs, what it makes of what the clients were told, and the bars that must be met."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from personalive.server.telemetry.session_stats import DELAY_PARTS
from tests.server.report import Message, Report, quantile

FAST = {"dtype": "float8", "vae": "tiny"}
"""Load parameters of the fast mode; the exact one is the default."""
LATENCIES = ("balanced", "low", "lowest")
"""Latency modes beside the default, `quality`, which is the case `camera 30`."""

_COVERED = 0.8
"""Share of the time that counts of which the server must have told."""

Load = tuple[tuple[str, str], ...]
"""Load parameters, sorted by name."""


@dataclass(frozen=True)
class Case:
    """`sessions` cameras of `fps` frames per second each, on a server with those load parameters.

    `gpus`: one of the sessions is meant for each GPU.
    """

    name: str
    fps: float
    sessions: int = 1
    load: Load = ()
    gpus: bool = False

    @property
    def bar(self) -> str:
        """Which bar it must meet: camera, lowest, full or shared; empty where there is none."""
        if dict(self.load).get("latency") == "lowest":
            return "lowest"
        if self.load and "latency" in dict(self.load):
            return ""
        if self.fps == 30 and (self.sessions == 1 or self.gpus):
            return "camera"
        if self.fps == 60 and self.sessions == 1 and self.load:
            return "full"
        return "shared" if self.sessions == 2 and not self.gpus else ""


def all_cases(gpus: int) -> list[Case]:
    """Every case there is, in order; with more than one of `gpus`, also those of one camera on each."""
    cases = []
    for prefix, mode in (("", {}), ("fast ", FAST)):
        load = tuple(sorted(mode.items()))
        cases += [Case(f"{prefix}camera {fps}", fps, load=load) for fps in (25, 30, 60)]
        cases += [Case(f"{prefix}sessions {count}", 30, count, load) for count in (2, 4)]
        if gpus > 1:
            cases += [Case(f"{prefix}gpus camera {fps}", fps, gpus, load, True) for fps in (30, 60)]
    return cases + [Case(f"latency {mode}", 30, load=(("latency", mode),)) for mode in LATENCIES]


def chosen(names: Sequence[str], cases: Sequence[Case], *, diffusion: bool) -> list[Case]:
    """Those of these names; without names all, or those without load parameters where they are another pipeline's.

    Raises `SystemExit` for a name that there is not.
    """
    if not names:
        return [case for case in cases if diffusion or not case.load]
    known = {case.name: case for case in cases}
    for name in names:
        if name not in known:
            raise SystemExit(f"There is no case {name!r}. There are: {', '.join(known)}.")
    return [known[name] for name in dict.fromkeys(names)]


@dataclass(frozen=True)
class SessionFigures:
    """What one session came to: rates per second, delays from capture to send in ms, frames lost in that time.

    `received` is of the client, all else of the server. `step_ms` and what is in `delay_ms`, by name, are medians.
    """

    fps_in: float
    fps_out: float
    received: float
    dropped_in: int
    dropped_out: int
    faceless: int
    keyframes: int
    step_ms: float
    p50_ms: float
    p95_ms: float
    delay_ms: dict[str, float] = field(default_factory=dict)

    @property
    def dropped(self) -> int:
        """Frames that never came out, on either side of the pipeline."""
        return self.dropped_in + self.dropped_out


def evaluate(report: Report, begin: float, end: float) -> SessionFigures:
    """Return the figures of a session between two times of the clients' clock.

    Rates and losses are differences of the server's counts between its first and last message in that time. p50 is
    the median of those told each second; p95 is that of ten seconds, which one second in twenty exceeds. Raises
    `ValueError` where it told of less than most of that time, or sent no driven frame.
    """
    part = report.within(begin, end)
    told = [(at, message) for at, message in part.messages if message.get("type") == "stats"]
    if not told or told[-1][0] - told[0][0] < _COVERED * (end - begin):
        raise ValueError(
            f"{len(told)} messages of figures came in {end - begin:.0f} s: the session began too late"
        )
    (first_at, first), (last_at, last) = told[0], told[-1]
    messages = [message for _, message in told]
    middles = [message["latency_ms"]["p50"] for message in messages]
    middles = [float(value) for value in middles if value is not None]
    if not middles:
        raise ValueError(f"no frame that shows the driver was sent; last: {last}")

    def counted(name: str) -> int:
        return int(last[name] - first[name])

    return SessionFigures(
        fps_in=counted("frames_in") / (last_at - first_at),
        fps_out=counted("frames_out") / (last_at - first_at),
        received=part.rate,
        dropped_in=counted("dropped_in"),
        dropped_out=counted("dropped_out"),
        faceless=counted("frames_without_face"),
        keyframes=int(last["keyframes"]),
        step_ms=statistics.median(float(message["chunk_ms"]) for message in messages),
        p50_ms=statistics.median(middles),
        p95_ms=1000 * quantile(part.latencies, 0.95),
        delay_ms=_delays(messages),
    )


def _delays(messages: Iterable[Message]) -> dict[str, float]:
    """Medians of where the delay comes from, by name; of servers that do not tell it, nothing."""
    told = [message.get("delay_ms") or {} for message in messages]
    found = {name: [float(each[name]) for each in told if each.get(name) is not None] for name in DELAY_PARTS}
    return {name: statistics.median(values) for name, values in found.items() if values}


@dataclass(frozen=True)
class Row:
    """A case, and what each of its sessions came to."""

    case: Case
    sessions: tuple[SessionFigures, ...]

    @property
    def least_out(self) -> float:
        """Frames per second out of the session that has the fewest."""
        return min(each.fps_out for each in self.sessions)

    @property
    def worst_p95(self) -> float:
        """The longest p95 of its sessions, ms."""
        return max(each.p95_ms for each in self.sessions)


@dataclass(frozen=True)
class Bar:
    """What must be, in words, and whether it is."""

    text: str
    met: bool


def bars(row: Row, rows: Sequence[Row], networks_fps: float | None) -> list[Bar]:
    """Return what a row must meet beside all rows of the run; `networks_fps`: the fast mode's, if known."""
    match row.case.bar:
        case "camera":
            return _camera_bars(row)
        case "lowest":
            return [Bar("p95 ≤ 250 ms", row.worst_p95 <= 250)]
        case "full" if networks_fps is not None:
            return [_at_least(row, 0.93 * min(networks_fps, row.case.fps))]
        case "shared" if (alone := _alone(row.case, rows)) is not None:
            return [_at_least(row, 0.46 * alone)]
    return []


def _camera_bars(row: Row) -> list[Bar]:
    slowest = max(each.step_ms for each in row.sessions)
    allowed = 15 * 1000 / row.case.fps + slowest + 60
    dropped = sum(each.dropped for each in row.sessions)
    return [
        _at_least(row, 29.5),
        Bar("nothing dropped", dropped == 0),
        Bar(f"p95 ≤ {allowed:.0f} ms", row.worst_p95 <= allowed),
    ]


def _at_least(row: Row, fps: float) -> Bar:
    each = " each" if row.case.sessions > 1 else ""
    return Bar(f"out ≥ {fps:.1f} fps{each}", row.least_out >= fps)


def _alone(case: Case, rows: Sequence[Row]) -> float | None:
    """Return the most frames per second that one session alone had of the same pipeline in this run."""
    alone = [
        row.least_out for row in rows if (row.case.load, row.case.sessions) == (case.load, 1)
    ]  # with the fastest camera, if that was measured: what the pipeline can do
    return max(alone, default=None)


def table(rows: Sequence[Row], networks_fps: float | None = None) -> str:
    """Markdown. Where a case has several sessions, each has its figure."""
    names = [
        "case", "camera", "fps in", "fps out", "received", "dropped in, out", "faceless", "keyframes",
        "step", "p50", "p95", f"delay: {' + '.join(DELAY_PARTS)}", "bars",
    ]  # fmt: skip
    lines = [names, ["---", *["--:"] * (len(names) - 2), "---"]]
    lines += [_cells(row, bars(row, rows, networks_fps)) for row in rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _cells(row: Row, required: Sequence[Bar]) -> list[str]:
    def each(*values: str) -> str:
        return ", ".join(values if len(set(values)) > 1 else values[:1])

    sessions = row.sessions
    many = f"{row.case.sessions} × " if row.case.sessions > 1 else ""
    return [
        row.case.name,
        f"{many}{row.case.fps:g} fps",
        each(*(f"{one.fps_in:.1f}" for one in sessions)),
        each(*(f"{one.fps_out:.1f}" for one in sessions)),
        each(*(f"{one.received:.1f}" for one in sessions)),
        each(*(f"{one.dropped_in} + {one.dropped_out}" for one in sessions)),
        each(*(str(one.faceless) for one in sessions)),
        each(*(str(one.keyframes) for one in sessions)),
        each(*(f"{one.step_ms:.1f} ms" for one in sessions)),
        each(*(f"{one.p50_ms:.0f} ms" for one in sessions)),
        each(*(f"{one.p95_ms:.0f} ms" for one in sessions)),
        each(*(_parts(one.delay_ms) for one in sessions)),
        "; ".join(f"{bar.text} {'✓' if bar.met else '✗'}" for bar in required),
    ]


def _parts(delay_ms: Mapping[str, float]) -> str:
    """Return the parts of the delay in order, – for one that is not told; nothing where none is."""
    parts = (f"{delay_ms[name]:.0f}" if name in delay_ms else "–" for name in DELAY_PARTS)
    return " + ".join(parts) if delay_ms else ""


def by_server(cases: Iterable[Case]) -> list[tuple[Load, list[Case]]]:
    """Return the cases in groups that share a server, in order."""
    ordered = sorted(cases, key=lambda case: case.load)
    return [(load, list(group)) for load, group in itertools.groupby(ordered, key=lambda case: case.load)]
