"""From files to files: `personalive animate`, and a batch on one GPU against several, beside the networks' rate.

    python -m benchmarks.jobs --random released --weights DIR                 # 1,500 frames of the shipped clip
    python -m benchmarks.jobs --weights DIR --set max_keyframes=0             # without keyframes, as the first row
    python -m benchmarks.jobs --weights DIR --frames 0 --clips 40 --gpus 2    # a batch of 40 on one GPU, on two
    python -m benchmarks.jobs --pipeline preview --frames 200 --clips 4 --gpus 2    # needs no GPU

Everything runs as commands, with every default. `animate` is timed by its own report: from opening the session to
the finished file, so decoding, looking for faces, filling and emptying the window, composing and encoding are part
of it, and starting, loading and fusing are not. The networks' rate is that of `personalive bench --networks` in
the same run, without keyframes and with three: how many a job takes depends on weights and clip. Without
`animate`, with `--frames 0`, it is not measured, and the table has no shares of it.

A batch's rate is, summed over its workers, of the frames of all jobs after a worker's first, by the time from its
first finished output to its last: loading is left out, what happens between jobs is not. Beside it is the rate by
the whole command's time. On several GPUs there is one worker on each: of one `personalive batch --workers N`, which
needs Ray; without Ray, or with `--without-ray`, of N commands with a part of the clips, a folder and a GPU each.
"""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.weight_sets import add_options, weights
from personalive.media import Provenance, open_driving, open_writer
from personalive.server.state.hardware import read_hardware_info
from tests.server.client import CLIP, PORTRAIT
from tests.server.running import PROGRAM

_MADE = re.compile(r": (\d+) frames? .*; made in ([\d.]+) s, ([\d.]+) frames per second")


@dataclass(frozen=True)
class Measured:
    """A row: `fps` of `frames` frames in `seconds`; `whole_fps` with starting and loading, where that is known."""

    name: str
    fps: float
    frames: int | None = None
    seconds: float | None = None
    whole_fps: float | None = None


@dataclass(frozen=True)
class Finished:
    """A job that is done: which worker did it, how many frames it has, and when its output was complete."""

    worker: str
    frames: int
    at: float


def throughput(jobs: Sequence[Finished]) -> float:
    """Frames per second of all workers together, each from its first finished job on.

    Raises `ValueError` where a worker did one job only: loading could not be left out.
    """
    total = 0.0
    for worker, group in itertools.groupby(sorted(jobs, key=_by_worker), key=lambda job: job.worker):
        first, *later = group
        if not later:
            raise ValueError(f"worker {worker} did one job only: more clips are needed")
        total += sum(job.frames for job in later) / (later[-1].at - first.at)
    return total


def _by_worker(job: Finished) -> tuple[str, float]:
    return job.worker, job.at


def make_clip(path: Path, frames: int) -> None:
    """Write `frames` frames of the shipped clip, forwards and backwards in turn."""
    with open_driving(CLIP) as source:
        info = source.info
        images = [frame.image for frame in source]
    cycle = itertools.cycle([*images, *images[-2:0:-1]])
    provenance = Provenance("benchmark", "copy")
    with open_writer(
        path, width=info.width, height=info.height, fps=info.fps, provenance=provenance
    ) as writer:
        for image in itertools.islice(cycle, frames):
            writer.write(image)


class Commands:
    """The command line with the pipeline and the parameters that were asked for."""

    def __init__(self, args: argparse.Namespace, weights: Path | None) -> None:
        self._diffusion = args.pipeline == "personalive"
        self._steps = args.steps
        self._settings = [part for setting in args.set for part in ("--set", setting)]
        if weights is not None:
            self._settings += ["--weights", str(weights)]
        self._pipeline = ["--pipeline", args.pipeline]

    def networks(self, folder: Path) -> list[Measured]:
        """Return the networks' rate without keyframes and with as many as may be; of other pipelines nothing."""
        if not self._diffusion:
            return []
        file = folder / "bench.json"
        numbers = (
            ("--keyframes", "0")
            if "max_keyframes=0" in self._settings
            else ("--keyframes", "0", "--keyframes", "3")
        )
        flags = ("--steps", str(self._steps), "--json", str(file))
        finish(self.start("bench", "--networks", *numbers, *flags, *self._settings))
        rows = (row["networks"] for row in json.loads(file.read_text())["steps"])
        return [Measured(f"networks, {row['keyframes']} keyframes", row["fps_each"]) for row in rows]

    def animate(self, clip: Path, output: Path) -> Measured:
        """One job."""
        begun = time.perf_counter()
        job = ("animate", str(PORTRAIT), str(clip), "-o", str(output), "--overwrite")
        said = finish(self.start(*job, *self._pipeline, *self._settings))
        took = time.perf_counter() - begun
        found = _MADE.search(said)
        if found is None:
            raise RuntimeError(f"animate did not say how long it took: {said}")
        frames = int(found[1])
        return Measured("animate", float(found[3]), frames, float(found[2]), frames / took)

    def batch(self, clips: Path, out: Path, *flags: str, gpu: str | None = None) -> subprocess.Popen[str]:
        """Start a batch on the GPU of that number if one is named."""
        job = ("batch", str(PORTRAIT), str(clips), "--out", str(out), *flags)
        environment = {} if gpu is None else {"CUDA_VISIBLE_DEVICES": gpu}
        return self.start(*job, *self._pipeline, *self._settings, environment=environment)

    def start(self, *arguments: str, environment: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
        """Start a command."""
        return subprocess.Popen(
            [sys.executable, "-c", PROGRAM, *arguments],
            env={**os.environ, **(environment or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )


def finish(process: subprocess.Popen[str]) -> str:
    """Return what a command printed in the end. Raises `RuntimeError` where it failed."""
    out, errors = process.communicate()
    if process.returncode != 0:
        raise RuntimeError(f"exit code {process.returncode}: {errors[-3000:]}")
    return out


def on_one(commands: Commands, clips: Sequence[Path], folder: Path) -> Measured:
    """Run the batch on the first GPU."""
    return _timed("batch, 1 GPU", commands, [_share(clips, folder, 0)], folder, devices(1))


def on_several(commands: Commands, clips: Sequence[Path], folder: Path, gpus: int, *, ray: bool) -> Measured:
    """Run the batch on the first `gpus` GPUs."""
    if ray:
        flags = ("--workers", str(gpus))
        return _timed(
            f"batch, {gpus} GPUs by Ray", commands, [_share(clips, folder, 0)], folder, [None], flags
        )
    shares = [_share(clips[first::gpus], folder, first) for first in range(gpus)]
    return _timed(f"batch, {gpus} GPUs by {gpus} commands", commands, shares, folder, devices(gpus))


def _share(clips: Sequence[Path], folder: Path, number: int) -> Path:
    """Return a folder with those clips."""
    share = folder / f"clips-{number}"
    share.mkdir(parents=True)
    for clip in clips:
        (share / clip.name).hardlink_to(clip)
    return share


def devices(count: int) -> list[str | None]:
    """Return the first GPUs that this process may use, as `CUDA_VISIBLE_DEVICES` names them."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = (
        given.split(",")
        if given
        else [str(number) for number in range(max(count, read_hardware_info().gpu_count))]
    )
    if len(names) < count:
        raise SystemExit(f"CUDA_VISIBLE_DEVICES names {len(names)} GPUs, not {count}.")
    return list(names[:count])


def _timed(
    name: str,
    commands: Commands,
    shares: Sequence[Path],
    folder: Path,
    gpus: Sequence[str | None],
    flags: Sequence[str] = (),
) -> Measured:
    """Run the commands of all shares at once."""
    outs = [folder / f"out-{number}" for number in range(len(shares))]
    begun = time.perf_counter()
    running = [
        commands.batch(share, out, *flags, gpu=gpu)
        for share, out, gpu in zip(shares, outs, gpus, strict=True)
    ]
    for process in running:
        finish(process)
    took = time.perf_counter() - begun
    jobs = [job for number, out in enumerate(outs) for job in finished(out, number)]
    frames = sum(job.frames for job in jobs)
    return Measured(name, throughput(jobs), frames, took, frames / took)


def finished(out: Path, number: int) -> list[Finished]:
    """Return the jobs that a batch's report says are done; `number` tells apart the workers of several batches."""
    told: list[dict[str, Any]] = json.loads((out / "report.json").read_text())["jobs"]
    return [
        Finished(f"{number}/{job['worker']}", int(job["frames"]), Path(job["output"]).stat().st_mtime)
        for job in told
        if job["state"] == "done"
    ]


def table(rows: Sequence[Measured]) -> str:
    """Markdown, each rate also as a share of the networks' rates in the first rows."""
    networks = [row for row in rows if row.name.startswith("networks")]
    names = ["", "frames", "seconds", "fps", *(f"of {row.name}" for row in networks), "fps with starting"]
    lines = [names, ["---", *["--:"] * (len(names) - 1)]]
    for row in rows:
        shares = [f"{row.fps / each.fps:.2f}" if row.frames else "" for each in networks]
        lines.append(
            [
                row.name,
                str(row.frames or ""),
                "" if row.seconds is None else f"{row.seconds:.1f}",
                f"{row.fps:.1f}",
                *shares,
                "" if row.whole_fps is None else f"{row.whole_fps:.1f}",
            ]
        )
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def run(args: argparse.Namespace, commands: Commands, folder: Path) -> list[Measured]:
    """All rows, each told as it comes."""
    rows: list[Measured] = []

    def add(*measured: Measured) -> None:
        rows.extend(measured)
        for row in measured:
            print(row, file=sys.stderr, flush=True)

    if args.frames:
        add(*commands.networks(folder))
        make_clip(folder / "long.mp4", args.frames)
        for _ in range(args.repeat):
            add(commands.animate(folder / "long.mp4", folder / "animated.mp4"))
    if args.clips:
        clips = [folder / f"clip-{number:03}.mp4" for number in range(args.clips)]
        make_clip(clips[0], args.clip_frames)
        for clip in clips[1:]:
            clip.hardlink_to(clips[0])
        add(on_one(commands, clips, folder / "one"))
        if args.gpus > 1:
            ray = not args.without_ray and importlib.util.find_spec("ray") is not None
            add(on_several(commands, clips, folder / "several", args.gpus, ray=ray))
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--pipeline", default="personalive")
    parser.add_argument("--frames", type=int, default=1500, help="of the one job; 0 for none")
    parser.add_argument("--repeat", type=int, default=1, help="how often to do it")
    parser.add_argument("--steps", type=int, default=30, help="that the networks' rate is the median of")
    parser.add_argument("--clips", type=int, default=0, help="of the batch; 0 for none")
    parser.add_argument("--clip-frames", type=int, default=225, help="of each")
    parser.add_argument("--gpus", type=int, default=1, help="to compare with one")
    parser.add_argument("--without-ray", action="store_true", help="use no Ray even where it is installed")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="a load parameter")
    parser.add_argument("--json", type=Path, metavar="FILE")
    add_options(parser)
    args = parser.parse_args()
    with weights(args) as weights_folder, tempfile.TemporaryDirectory() as folder:
        rows = run(args, Commands(args, weights_folder), Path(folder))
    here = read_hardware_info()
    print(f"{here.gpu_name or 'no GPU'}, {here.cpu_count} cores; {', '.join([args.pipeline, *args.set])}\n")
    print(table(rows))
    if args.json is not None:
        facts = {"hardware": here.model_dump(), "set": args.set, "rows": [asdict(row) for row in rows]}
        args.json.write_text(json.dumps(facts, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
