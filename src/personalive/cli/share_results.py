"""`personalive bench --share`: what was measured as rows of a Markdown table, to be sent to the project.

What a row may hold is listed here, and nothing else gets into it: no names of people, machines or folders, no
serial numbers, no addresses.
"""

from __future__ import annotations

import platform
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, metadata, version
from typing import TYPE_CHECKING

import personalive
from personalive.cli.gpu_info import ask_driver

if TYPE_CHECKING:
    from personalive.pipelines.diffusion.profiling.benchmark import BenchResult, BenchRow

COLUMNS = (
    "card",
    "capability",
    "GiB",
    "driver",
    "system",
    "Python",
    "PyTorch",
    "Triton",
    "personalive",
    "weights",
    "compile",
    "memory plan",
    "settings",
    "sessions",
    "keyframes",
    "step, ms",
    "p95, ms",
    "fps",
    "networks alone, ms",
    "held, GB",
)
ADVICE = """The row above has these columns:

{columns}

It names nobody, no machine and no folder. Send it, with what else you want to say, to {place}."""
_SYSTEMS = {"Darwin": "macOS"}
_PLACES = ("discussions", "issues", "issue tracker", "bug tracker", "tracker", "bugs", "repository", "source")
"""Labels of a project's URLs, the best place for a row first."""
_NOWHERE = "the issues of the repository that you have personalive from"
_PLAIN = re.compile(r"[^\w .,+×=():/–-]")
"""What is taken out of a cell: nothing that a card, a driver or a version has, and all that breaks a table."""


@dataclass(frozen=True, slots=True)
class Machine:
    """What may be told of a machine."""

    card: str
    capability: str
    memory_gib: float | None
    driver: str
    system: str
    python: str
    torch: str
    triton: str


def machine(device: str) -> Machine:
    """This machine; `device` is the load parameter of that name. Needs PyTorch."""
    import torch

    from personalive.pipelines.diffusion.device.devices import device_of

    place = device_of(device)
    card, capability, memory = place.type, "–", None
    driver = None
    if place.type == "cuda":
        about = torch.cuda.get_device_properties(place)
        card, capability = about.name, f"{about.major}.{about.minor}"
        memory = about.total_memory / 2**30
        told = ask_driver()
        driver = told.gpus[0].driver if told is not None and told.gpus else None
    return Machine(
        card,
        capability,
        memory,
        driver or "–",
        _SYSTEMS.get(platform.system(), platform.system()),
        platform.python_version(),
        torch.__version__,
        _version("triton") or _version("triton-windows") or "–",
    )


def head() -> str:
    """The table's first two lines."""
    return f"{_row(COLUMNS)}\n{'|---' * len(COLUMNS)}|"


def rows(result: BenchResult, on: Machine) -> list[str]:
    """A row for each number of sessions and keyframes that was measured."""
    return [_row(_cells(result, each, on)) for each in result.steps]


def _cells(result: BenchResult, row: BenchRow, on: Machine) -> Sequence[str]:
    times = row.whole or row.networks
    return (
        on.card,
        on.capability,
        "–" if on.memory_gib is None else f"{on.memory_gib:.1f}",
        on.driver,
        on.system,
        on.python,
        on.torch,
        on.triton,
        personalive.__version__,
        result.weights,
        result.mode,
        result.memory_plan,
        _settings(result.settings),
        f"{times.sessions}",
        f"{times.keyframes}",
        f"{times.median_ms:.1f}",
        f"{times.p95_ms:.1f}",
        f"{times.fps_each:.1f}",
        f"{row.networks.median_ms:.1f}",
        f"{result.held_gb:.2f}" if result.held_gb else "–",
    )


def _settings(settings: Mapping[str, object]) -> str:
    """Those that are not at their default; folders are never among them."""
    return " ".join(f"{name}={value}" for name, value in settings.items() if name != "weights") or "default"


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(_PLAIN.sub('', cell) for cell in cells)} |"


def place() -> str:
    """Where a row is sent: what the installed package's URLs say."""
    try:
        urls = metadata("personalive").get_all("Project-URL") or []
    except PackageNotFoundError:
        return _NOWHERE
    return best_place(urls)


def best_place(urls: Sequence[str]) -> str:
    """The best of "Label, address" lines, as a package's metadata has them."""
    known = {
        label.strip().lower(): address.strip() for label, _, address in (each.partition(",") for each in urls)
    }
    return next((known[label] for label in _PLACES if label in known), _NOWHERE)


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
