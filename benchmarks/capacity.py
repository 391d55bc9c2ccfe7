"""What a cluster of a given size can carry, what it costs, and what gives way first as users become many.

    python -m benchmarks.capacity               # a day at 10, 1,000 and 100,000 users: docs/how-to/capacity.md
    python -m benchmarks.capacity --users 5000 --sessions-per-gpu 4 --gpu-hour 1.1
    python -m benchmarks.capacity --recorded day.txt    # new sessions in each minute of a real day, a line each

`--users` are sessions at once in the busiest hour, bursts apart. Arrivals follow the hour of the day (a sine, from
`--trough` of that at four in the morning to all of it at four in the afternoon) times bursts (a lognormal factor
of spread `--burst`, correlated over `--burst-minutes`); sessions' lengths are lognormal. The service is simulated
second by second as it behaves: a session takes a slot of the emptier of two replicas chosen at random; without one
it is refused, and tries again after `--retry` seconds, `--tries` times; every few seconds the number of replicas
follows the used slots as Ray Serve's autoscaler does it (average over a look-back, target share, delays); a replica
needs `--start` seconds to be there, and one that is to go waits for its sessions. One replica holds one GPU.

Every number is an assumption that can be set; docs/how-to/capacity.md says where the defaults come from.
"""

from __future__ import annotations

import argparse
import heapq
import math
import random
import sys
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

DAY = 86_400
FILL = 3 * 3600
"""Seconds before the day in which the service fills."""
LOOK_BACK = 15
_DRAINING = 1 << 20
DECIDE = 5
"""Seconds between two decisions on the number of replicas."""


@dataclass(frozen=True)
class World:
    """What is assumed. Times in seconds, rates in Mbit/s, money in the currency of `gpu_hour`."""

    users: int = 1000
    length_median: float = 300.0
    length_spread: float = 1.0
    trough: float = 0.2
    burst: float = 0.3
    burst_minutes: float = 10.0
    sessions_per_gpu: int = 2
    target: float = 0.8
    start: float = 90.0
    upscale_delay: float = 5.0
    downscale_delay: float = 300.0
    most: int = 1_000_000
    retry: float = 10.0
    tries: int = 6
    mbit_in: float = 1.5
    mbit_out: float = 1.5
    cores_per_session: float = 0.5
    turn_share: float = 0.15
    gpu_hour: float = 2.0
    gigabyte: float = 0.05
    seed: int = 7


@dataclass
class Day:
    """What a day came to. `used` and `there` are slots, second by second."""

    asked: int
    at_once: int
    waited: list[float]
    lost: int
    used: NDArray[np.int32]
    there: NDArray[np.int32]
    busiest_second: int

    @property
    def served_hours(self) -> float:
        """Hours of video that were animated."""
        return float(self.used.sum()) / 3600


def arrivals(world: World) -> NDArray[np.int64]:
    """How many sessions are asked for in each second of a day."""
    rng = np.random.default_rng(world.seed)
    middle = (1 + world.trough) / 2
    hours = middle - (1 - middle) * np.cos(2 * np.pi * (np.arange(DAY) / DAY - 4 / 24))
    factors = np.empty(DAY // 60)
    keep, level = math.exp(-1 / world.burst_minutes), 0.0
    for minute in range(len(factors)):
        level = keep * level + math.sqrt(1 - keep**2) * rng.normal(0, world.burst)
        factors[minute] = math.exp(level - world.burst**2 / 2)  # of mean 1
    mean_length = world.length_median * math.exp(world.length_spread**2 / 2)
    return rng.poisson(hours * np.repeat(factors, 60) * world.users / mean_length)


class Pick:
    """Numbers of which one is picked at random; adding and taking out cost the same however many there are."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._numbers: list[int] = []
        self._place: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self._numbers)

    def any(self) -> int:
        """One of them."""
        return self._numbers[int(self._rng.random() * len(self._numbers))]

    def add(self, number: int) -> None:
        """One more; it must not be there yet."""
        self._place[number] = len(self._numbers)
        self._numbers.append(number)

    def drop(self, number: int) -> None:
        """Take it out, if it is there."""
        place = self._place.pop(number, None)
        if place is None:
            return
        last = self._numbers.pop()
        if last != number:
            self._numbers[place] = last
            self._place[last] = place


class Replicas:
    """Slots of replicas as they come, fill up, drain and go."""

    def __init__(self, slots: int, rng: random.Random) -> None:
        self._slots = slots
        self._used: list[int] = []
        self._open, self._free = Pick(rng), Pick(rng)
        self.there = 0
        """Replicas that hold a GPU, those that drain too."""

    @property
    def open(self) -> int:
        """Replicas that take sessions."""
        return len(self._open)

    def add(self) -> None:
        """One more is there."""
        number = len(self._used)
        self._used.append(0)
        self._open.add(number)
        self._free.add(number)
        self.there += 1

    def drain(self) -> None:
        """One that is chosen at random takes no more sessions, and goes when it has none."""
        number = self._open.any()
        self._open.drop(number)
        self._free.drop(number)
        self.there -= self._used[number] == 0
        self._used[number] -= _DRAINING  # so it is never full again, and empty at minus this

    def take(self) -> int | None:
        """Return a slot of the emptier of two that have one: the replica's number; None if there is none."""
        if not len(self._free):
            return None
        number = min(self._free.any(), self._free.any(), key=self._used.__getitem__)
        self._used[number] += 1
        if self._used[number] == self._slots:
            self._free.drop(number)
        return number

    def give_back(self, number: int) -> None:
        """Note that a session has ended."""
        if self._used[number] == self._slots:
            self._free.add(number)
        self._used[number] -= 1
        self.there -= self._used[number] == -_DRAINING


class Scaler:
    """How many replicas there are to be, as Ray Serve decides: average, target, and a delay in each direction."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._seen: deque[int] = deque(maxlen=LOOK_BACK)
        self._since: tuple[int, int] | None = None

    def see(self, demand: int) -> None:
        """Sessions that stream or wait in this second."""
        self._seen.append(demand)

    def wanted(self, now: int, planned: int) -> int:
        """Return the number to have, given how many are there or on their way."""
        world = self._world
        mean = sum(self._seen) / max(len(self._seen), 1)
        need = min(max(math.ceil(mean / (world.target * world.sessions_per_gpu)), 1), world.most)
        direction = (need > planned) - (need < planned)
        if direction == 0:
            self._since = None
            return planned
        if self._since is None or self._since[0] != direction:
            self._since = (direction, now)
        delay = world.upscale_delay if direction > 0 else world.downscale_delay
        return need if now - self._since[1] >= delay else planned


def recorded(path: Path, seed: int) -> NDArray[np.int64]:
    """Arrivals in each second of a day, from a file with those of each of its 1440 minutes."""
    minutes = np.loadtxt(path, dtype=np.int64)
    if minutes.shape != (DAY // 60,) or minutes.min() < 0:
        raise SystemExit(f"{path} must have {DAY // 60} lines, each with the new sessions of a minute.")
    return np.random.default_rng(seed).multinomial(minutes, np.full(60, 1 / 60)).reshape(-1)


def simulate(world: World, curve: NDArray[np.int64]) -> Day:
    """Return a day, second by second, from midnight to midnight; its last hours fill the service before it.

    `curve` has the new sessions of each second.
    """
    rng = random.Random(world.seed)
    replicas, scaler = Replicas(world.sessions_per_gpu, rng), Scaler(world)
    replicas.add()
    starting: deque[int] = deque()
    ends: list[tuple[float, int]] = []
    again: list[tuple[float, float, int]] = []  # when, since when, which try
    day = Day(0, 0, [], 0, np.zeros(DAY, np.int32), np.zeros(DAY, np.int32), int(curve.max()))
    for second in range(-FILL, DAY):
        now, counts = float(second), second >= 0
        while starting and starting[0] <= now:
            starting.popleft()
            replicas.add()
        while ends and ends[0][0] <= now:
            replicas.give_back(heapq.heappop(ends)[1])
        asked = [(now, 0)] * int(curve[second % DAY])
        while again and again[0][0] <= now:
            _, since, attempt = heapq.heappop(again)
            asked.append((since, attempt))
        for since, attempt in asked:
            day.asked += counts and attempt == 0
            number = replicas.take()
            if number is not None:
                length = rng.lognormvariate(math.log(world.length_median), world.length_spread)
                heapq.heappush(ends, (now + length, number))
                if counts:
                    day.at_once += attempt == 0
                    day.waited.append(now - since)
            elif attempt < world.tries:
                heapq.heappush(again, (now + world.retry * rng.uniform(0.8, 1.2), since, attempt + 1))
            else:
                day.lost += counts
        scaler.see(len(ends) + len(again))
        if second % DECIDE == 0:
            planned = replicas.open + len(starting)
            target = scaler.wanted(second, planned)
            starting.extend([second + round(world.start)] * (target - planned))
            for _ in range(min(planned - target, replicas.open - 1)):
                replicas.drain()
        if counts:
            day.used[second] = len(ends)
            day.there[second] = (replicas.there + len(starting)) * world.sessions_per_gpu
    return day


def table(days: Mapping[str, tuple[World, Day]]) -> str:
    """Return what each day came to, under its name, as Markdown."""
    lines = ["| | " + " | ".join(days) + " |", "|---|" + "--:|" * len(days)]
    for name, tell in ROWS:
        lines.append(f"| {name} | " + " | ".join(tell(world, day) for world, day in days.values()) + " |")
    return "\n".join(lines)


def _peak(day: Day) -> int:
    return int(day.used.max())


def _gpu_hours(world: World, day: Day) -> float:
    return float(day.there.sum()) / 3600 / world.sessions_per_gpu


def _cost(world: World, day: Day) -> float:
    """Of a stream-hour: GPUs, also those that start, wait and drain, and what leaves by TURN."""
    gigabytes = world.mbit_out * 3600 / 8 / 1000
    turn = world.turn_share * (world.mbit_in + world.mbit_out) * 3600 / 8 / 1000
    hours = max(day.served_hours, 1e-9)
    return _gpu_hours(world, day) * world.gpu_hour / hours + (gigabytes + turn) * world.gigabyte


def _share(part: float, whole: float) -> str:
    return f"{100 * part / max(whole, 1):.2f} %"


def _wait(day: Day) -> str:
    return f"{np.quantile(day.waited, 0.99):.0f} s" if day.waited else "–"


ROWS: tuple[tuple[str, Callable[[World, Day], str]], ...] = (
    ("sessions at once, peak", lambda _, day: f"{_peak(day):,}"),
    ("sessions at once, mean", lambda _, day: f"{day.used.mean():,.1f}"),
    ("new sessions in the busiest second", lambda _, day: f"{day.busiest_second:,}"),
    ("GPUs, peak", lambda world, day: f"{int(day.there.max()) // world.sessions_per_gpu:,}"),
    ("slots used, of those paid for", lambda _, day: _share(float(day.used.sum()), float(day.there.sum()))),
    ("given a slot at once", lambda _, day: _share(day.at_once, day.asked)),
    ("99 % had one within", lambda _, day: _wait(day)),
    ("gave up", lambda _, day: _share(day.lost, day.asked)),
    (
        "Gbit/s in + out, peak",
        lambda world, day: f"{_peak(day) * (world.mbit_in + world.mbit_out) / 1000:,.2f}",
    ),
    (
        "Gbit/s through TURN, peak",
        lambda world, day: (
            f"{_peak(day) * world.turn_share * 2 * (world.mbit_in + world.mbit_out) / 1000:,.2f}"
        ),
    ),
    ("cores for video, peak", lambda world, day: f"{_peak(day) * world.cores_per_session:,.0f}"),
    ("a stream-hour costs", lambda world, day: f"{_cost(world, day):,.2f}"),
)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--recorded", type=Path, metavar="FILE", help="arrivals of a real day")
    given = World()
    for name, kind in World.__annotations__.items():
        flag = "--" + name.replace("_", "-")
        take = int if kind == "int" else float
        if name == "users":
            parser.add_argument(flag, type=take, nargs="+", default=[10, 1000, 100_000])
        else:
            parser.add_argument(flag, type=take, default=getattr(given, name))
    return parser


def main() -> int:
    args = vars(_parser().parse_args())
    path, numbers = args.pop("recorded"), args.pop("users")
    if path is not None:
        world = World(**args)
        print(table({path.name: (world, simulate(world, recorded(path, world.seed)))}))
        return 0
    worlds = [World(**args, users=users) for users in numbers]
    print(table({f"{world.users:,}": (world, simulate(world, arrivals(world))) for world in worlds}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
