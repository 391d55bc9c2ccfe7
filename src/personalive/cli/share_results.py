"""`personalive bench --share`: formats the measurements as rows of a Markdown table to be sent to the project.

A row holds only what is listed here: no names of people, machines or folders, no serial numbers, no addresses.
"""

from __future__ import annotations

import platform
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, metadata, version
from typing import TYPE_CHECKING

import personalive
from personalive.cli.gpu_info import query_driver

if TYPE_CHECKING:
    from personalive.pipelines.diffusion.profiling.benchmark import BenchmarkResult, BenchmarkRow

TABLE_COLUMNS = (
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

It contains no names of people, machines or folders. Send it, with any comments, to {place}."""
_SYSTEMS = {"Darwin": "macOS"}
_URL_LABELS = (
    "discussions",
    "issues",
    "issue tracker",
    "bug tracker",
    "tracker",
    "bugs",
    "repository",
    "source",
)
"""Labels of project URLs, the best place for a row first."""
_UNKNOWN_TRACKER = "the issue tracker of the repository that you got personalive from"
_UNSAFE_CHARACTERS = re.compile(r"[^\w .,+×=():/–-]")
"""Characters removed from cells: those that break a table; none occurs in cards, drivers or versions."""


@dataclass(frozen=True, slots=True)
class MachineInfo:
    """The facts about a machine that may be shared."""

    card: str
    capability: str
    memory_gib: float | None
    driver: str
    system: str
    python: str
    torch: str
    triton: str


def describe_machine(device: str) -> MachineInfo:
    """Describe this machine; `device` is the load parameter of that name. Needs PyTorch."""
    import torch

    from personalive.pipelines.diffusion.device.devices import resolve_device

    place = resolve_device(device)
    card, capability, memory = place.type, "–", None
    driver = None
    if place.type == "cuda":
        about = torch.cuda.get_device_properties(place)
        card, capability = about.name, f"{about.major}.{about.minor}"
        memory = about.total_memory / 2**30
        told = query_driver()
        driver = told.gpus[0].driver if told is not None and told.gpus else None
    return MachineInfo(
        card,
        capability,
        memory,
        driver or "–",
        _SYSTEMS.get(platform.system(), platform.system()),
        platform.python_version(),
        torch.__version__,
        _package_version("triton") or _package_version("triton-windows") or "–",
    )


def table_header() -> str:
    """Return the table's first two lines."""
    return f"{_format_row(TABLE_COLUMNS)}\n{'|---' * len(TABLE_COLUMNS)}|"


def table_rows(result: BenchmarkResult, info: MachineInfo) -> list[str]:
    """Return a row for each measured number of sessions and keyframes."""
    return [_format_row(_row_cells(result, each, info)) for each in result.steps]


def _row_cells(result: BenchmarkResult, row: BenchmarkRow, on: MachineInfo) -> Sequence[str]:
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
        _format_settings(result.settings),
        f"{times.sessions}",
        f"{times.keyframes}",
        f"{times.median_ms:.1f}",
        f"{times.p95_ms:.1f}",
        f"{times.fps_each:.1f}",
        f"{row.networks.median_ms:.1f}",
        f"{result.held_gb:.2f}" if result.held_gb else "–",
    )


def _format_settings(settings: Mapping[str, object]) -> str:
    """Format the settings that differ from their defaults, without folders."""
    return " ".join(f"{name}={value}" for name, value in settings.items() if name != "weights") or "default"


def _format_row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(_UNSAFE_CHARACTERS.sub('', cell) for cell in cells)} |"


def issue_tracker() -> str:
    """Return where to send a row, by the URLs of the installed package."""
    try:
        urls = metadata("personalive").get_all("Project-URL") or []
    except PackageNotFoundError:
        return _UNKNOWN_TRACKER
    return pick_tracker_url(urls)


def pick_tracker_url(urls: Sequence[str]) -> str:
    """Return the best URL of a package's metadata lines, "Label, address" each."""
    known = {
        label.strip().lower(): address.strip() for label, _, address in (each.partition(",") for each in urls)
    }
    return next((known[label] for label in _URL_LABELS if label in known), _UNKNOWN_TRACKER)


def _package_version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
