"""`personalive bench --share`: formats the measurements as rows of a Markdown table to be sent to the project.

A row holds only what is listed here: no names of people, machines or folders, no serial numbers, no addresses.
"""

from __future__ import annotations

import platform
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import personalive
from personalive.cli.gpu_info import query_driver
from personalive.installation import find_distribution

if TYPE_CHECKING:
    from personalive.pipelines.diffusion.profiling.benchmark import BenchmarkResult, BenchmarkRow

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


def describe_machine(device: str) -> dict[str, str]:
    """Return what may be shared about this machine, by column. `device` is the load parameter. Needs PyTorch."""
    import torch

    from personalive.pipelines.diffusion.device.devices import resolve_device

    place = resolve_device(device)
    card, capability, memory, driver = place.type, "–", "–", None
    if place.type == "cuda":
        about = torch.cuda.get_device_properties(place)
        card, capability = about.name, f"{about.major}.{about.minor}"
        memory = f"{about.total_memory / 2**30:.1f}"
        report = query_driver()
        driver = report.gpus[0].driver if report is not None and report.gpus else None
    triton = find_distribution("triton") or find_distribution("triton-windows")
    return {
        "card": card,
        "capability": capability,
        "GiB": memory,
        "driver": driver or "–",
        "system": _SYSTEMS.get(platform.system(), platform.system()),
        "Python": platform.python_version(),
        "PyTorch": torch.__version__,
        "Triton": triton.version if triton else "–",
    }


def table_rows(result: BenchmarkResult, machine: Mapping[str, str]) -> list[dict[str, str]]:
    """Return a row, its cells by column, for each measured number of sessions and keyframes."""
    return [{**machine, **_row_cells(result, each)} for each in result.steps]


def _row_cells(result: BenchmarkResult, row: BenchmarkRow) -> dict[str, str]:
    times = row.whole or row.networks
    return {
        "personalive": personalive.__version__,
        "weights": result.weights,
        "compile": result.mode,
        "memory plan": result.memory_plan,
        "settings": _format_settings(result.settings),
        "sessions": f"{times.sessions}",
        "keyframes": f"{times.keyframes}",
        "step, ms": f"{times.median_ms:.1f}",
        "p95, ms": f"{times.p95_ms:.1f}",
        "fps": f"{times.fps_each:.1f}",
        "networks alone, ms": f"{row.networks.median_ms:.1f}",
        "held, GB": f"{result.held_gb:.2f}" if result.held_gb else "–",
    }


def _format_settings(settings: Mapping[str, object]) -> str:
    """Format the settings that differ from their defaults, without folders."""
    return " ".join(f"{name}={value}" for name, value in settings.items() if name != "weights") or "default"


def format_header(columns: Collection[str]) -> str:
    """Return the table's first two lines."""
    return f"{format_row(columns)}\n{'|---' * len(columns)}|"


def format_row(cells: Iterable[str]) -> str:
    """Return a line of the table."""
    return f"| {' | '.join(_UNSAFE_CHARACTERS.sub('', cell) for cell in cells)} |"


def issue_tracker() -> str:
    """Return where to send a row, by the URLs of the installed package."""
    found = find_distribution()
    return pick_tracker_url(found.metadata.get_all("Project-URL") or []) if found else _UNKNOWN_TRACKER


def pick_tracker_url(urls: Sequence[str]) -> str:
    """Return the issue tracker's address, or the next best, of metadata lines, "Label, address" each."""
    known = {
        label.strip().lower(): address.strip() for label, _, address in (each.partition(",") for each in urls)
    }
    return next((known[label] for label in _URL_LABELS if label in known), _UNKNOWN_TRACKER)
