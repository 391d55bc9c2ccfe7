"""The product as it is used live: a server, cameras that show a face, and what the server says of each session.

    python -m benchmarks.live --random released --weights DIR --json live.json     # every case of the diffusion one
    python -m benchmarks.live --weights DIR --case "camera 30" --case "fast camera 60" --networks-fps 58
    python -m benchmarks.live --weights DIR --gpus 0,1 --case "gpus camera 30"     # one camera on each GPU at once
    python -m benchmarks.live --pipeline preview --case "camera 30" --seconds 20   # needs no GPU
    python -m benchmarks.live --list

`personalive serve` runs in a process as the console script starts it, with its defaults but for what a case sets.
Each session has a client in a separate process: a peer connection as a browser makes one, whose camera shows the
beginning of the shipped clip forwards and backwards at 640×480, so faces are really looked for and found. On eight
cores or more the clients are kept on the last quarter of them, so that encoding their cameras does not disturb the
server, which may use all. Cases with the same load parameters share a server, which loads once.

What counts begins twelve seconds after all sessions have sent their first frame, because delays are told over ten
seconds, and lasts for `--seconds`. Columns: frames per second that the server got, sent, and the client received;
frames dropped before and behind the pipeline; frames in which no face was found; history keyframes in the end; the
pipeline's step; p50 and p95 from a frame's arrival at the server to the sending of the frame that shows it (see
`live_cases.evaluate`); where that comes from, as far as the server tells. A bar that is missed is marked with ✗ and
makes the exit code 1. Where fps in is below the camera's, the client was too slow.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import httpx

from benchmarks.live_cases import Case, Row, all_cases, bars, by_server, chosen, evaluate, table
from benchmarks.weight_sets import add_options, weights
from personalive.cli.set_options import parse_settings
from personalive.server.state.hardware import read_hardware_info
from tests.server.client import PORTRAIT
from tests.server.report import Report
from tests.server.running import ClientProcess, RunningServer, running

SETTLE = 12.0
"""Seconds after the last session's first frame that do not count."""
CONNECT = 2.0
"""Seconds by which one client may be connected later than another, for each that starts beside it."""
START = 5.0
"""Seconds that a session may take from being connected to its first frame."""
LOAD_LIMIT = 900.0
CAMERA = "640x480"
"""What the page asks a camera for."""
_MANY_CORES = 8


def measure(server: RunningServer, case: Case, seconds: float) -> Row:
    """Run a case on a server that has loaded. Raises `RuntimeError` or `ValueError` where a session breaks down."""
    longer = START + SETTLE + seconds + CONNECT * case.sessions
    flags = ("--fps", case.fps, "--seconds", longer, "--size", CAMERA, "--face", "--no-reference")
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(ClientProcess(server.url, *flags)) for _ in range(case.sessions)]
        for client in clients:
            _keep_apart(client.process.pid)
        for client in clients:
            client.wait_until_connected(60 + CONNECT * case.sessions)
        reports = [client.report(longer + 60) for client in clients]
    server.wait_for_sessions(0)
    return Row(case, tuple(evaluate(report, *_counting(reports, seconds)) for report in reports))


def _counting(reports: Sequence[Report], seconds: float) -> tuple[float, float]:
    """When what counts begins and ends. The clients' clocks are that of their one machine."""
    if not all(report.seen for report in reports):
        raise ValueError("a session sent no frame at all")
    begin = max(report.seen[0].received for report in reports) + SETTLE
    return begin, begin + seconds


def _keep_apart(process: int) -> None:
    """Keep a client that has just begun, and so all its threads, on the last quarter of many cores."""
    if sys.platform != "linux":
        return
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) >= _MANY_CORES:
        os.sched_setaffinity(process, cores[-(len(cores) // 4) :])


@contextlib.contextmanager
def serving(args: argparse.Namespace, load: Mapping[str, object], sessions: int) -> Iterator[RunningServer]:
    """Run a loaded server for that many sessions on each GPU, with the sample portrait as its reference."""
    settings = {
        "pipeline": args.pipeline,
        "load_params": dict(load),
        "max_sessions": sessions,
        "log_level": "warning",
    }
    flags = () if args.gpus is None else ("--gpus", args.gpus)
    # Tests keep servers to one thread; here it is what the shell says, by default nothing.
    threads = {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS")}
    with running(settings, *flags, environment=threads) as server:
        server.wait_until_loaded(LOAD_LIMIT)
        answer = server.post("/api/v1/personalive/reference", content=PORTRAIT.read_bytes())
        answer.raise_for_status()
        yield server


def run(args: argparse.Namespace, cases: Sequence[Case], folder: Path | None) -> tuple[list[Row], list[str]]:
    """All rows, each printed as it comes, and what broke down: cases, and servers by the first case on them."""
    rows: list[Row] = []
    broken: list[str] = []
    common = parse_settings(args.set) | ({} if folder is None else {"weights": str(folder)})
    for load, group in by_server(cases):
        most = max(1 if case.gpus else case.sessions for case in group)
        with (
            broken_down(f"the server of {group[0].name}", broken),
            serving(args, common | dict(load), most) as server,
        ):
            for case in group:
                with broken_down(case.name, broken):
                    rows.append(measure(server, case, args.seconds))
                    print(table(rows[-1:]).splitlines()[-1], file=sys.stderr, flush=True)
    order = [case.name for case in cases]
    return sorted(rows, key=lambda row: order.index(row.case.name)), broken


@contextlib.contextmanager
def broken_down(name: str, names: list[str]) -> Iterator[None]:
    """Say what goes wrong in the block, and add its name to `names`; others go on."""
    try:
        yield
    except (RuntimeError, ValueError, TimeoutError, AssertionError, httpx.HTTPError) as error:
        notes = getattr(error, "__notes__", [])
        print("\n".join([f"{name}: {error}", *notes]), file=sys.stderr, flush=True)
        names.append(name)


def facts(args: argparse.Namespace, rows: Sequence[Row], broken: Sequence[str]) -> dict[str, Any]:
    """All of it, for a file."""
    return {
        "pipeline": args.pipeline,
        "set": args.set,
        "gpus": args.gpus,
        "seconds": args.seconds,
        "networks_fps": args.networks_fps,
        "when": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "hardware": read_hardware_info().model_dump(),
        "rows": [
            asdict(row) | {"bars": [asdict(bar) for bar in bars(row, rows, args.networks_fps)]}
            for row in rows
        ],
        "broken": list(broken),
    }


def count_gpus(given: str | None) -> int:
    """How many GPUs `--gpus` names; 0 without it."""
    if given is None:
        return 0
    return (
        read_hardware_info().gpu_count if given == "all" else len([part for part in given.split(",") if part])
    )


def options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--pipeline", default="personalive")
    parser.add_argument(
        "--case", action="append", default=[], metavar="NAME", help="may be repeated; default: all"
    )
    parser.add_argument("--list", action="store_true", help="print the cases' names")
    parser.add_argument("--seconds", type=float, default=30, help="that count, of each case")
    parser.add_argument("--gpus", metavar="LIST", help="for `personalive serve`: 0,1 or all")
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="a load parameter for all"
    )
    parser.add_argument(
        "--networks-fps",
        type=float,
        help="of the fast mode, by `personalive bench --networks --set dtype=float8 --set vae=tiny`",
    )
    parser.add_argument("--json", type=Path, metavar="FILE")
    add_options(parser)
    return parser


def main() -> int:
    args = options().parse_args()
    known = all_cases(count_gpus(args.gpus))
    if args.list:
        print("\n".join(case.name for case in known))
        return 0
    cases = chosen(args.case, known, diffusion=args.pipeline == "personalive")
    with weights(args) as folder:
        rows, broken = run(args, cases, folder)
    here = read_hardware_info()
    chosen_here = ", ".join([args.pipeline, *args.set])
    print(f"{here.gpu_name or 'no GPU'}, {here.cpu_count} cores; {chosen_here}; {args.seconds:g} s a case\n")
    print(table(rows, args.networks_fps))
    if broken:
        print(f"\nbroke down: {', '.join(broken)}")
    if args.json is not None:
        args.json.write_text(json.dumps(facts(args, rows, broken), indent=2) + "\n")
    missed = [bar for row in rows for bar in bars(row, rows, args.networks_fps) if not bar.met]
    return int(bool(broken or missed))


if __name__ == "__main__":
    sys.exit(main())
