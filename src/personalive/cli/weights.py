"""`personalive weights`: checks or converts a set of weights, or makes one of random weights."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from personalive.cli import console
from personalive.cli.text_layout import format_table, terminal_width
from personalive.errors import PipelineUnavailableError

if TYPE_CHECKING:
    from personalive.pipelines.diffusion.checkpoints.loader import PreparedNetwork

_BYTES_PER_MB = 1e6

app = typer.Typer(
    name="weights",
    help="Check or convert the weights of the personalive pipeline, or make random ones.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


class DtypeOption(StrEnum):
    """Floating types for storing weights."""

    FLOAT32 = "float32"
    FLOAT16 = "float16"
    BFLOAT16 = "bfloat16"


class RandomSetSize(StrEnum):
    """Sizes of random weights."""

    SMALL = "small"
    RELEASED = "released"


_CHECK_EPILOG = """Examples:

personalive weights check

personalive weights check ~/PersonaLive/pretrained_weights
"""
_CONVERT_EPILOG = """Examples:

personalive weights convert fast

personalive weights convert fast --from ~/PersonaLive/pretrained_weights --dtype float16

--dtype float16, in which a GPU computes anyway, halves the size.
"""
_MAKE_TEST_EPILOG = """Examples:

personalive weights make-test /tmp/weights

personalive weights check /tmp/weights

The frames that such weights make look like coloured noise; everything else works as with real weights.
"""

_Directory = Annotated[
    Path | None,
    typer.Argument(metavar="[DIR]", help="The set. Default: where `personalive download` puts it."),
]
_Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print errors only.")]


@app.command(epilog=_CHECK_EPILOG)
def check(directory: _Directory = None, *, quiet: _Quiet = False) -> None:
    """Verify that a set can be loaded: every file, every entry, every number that is used.

    Exits with 2 and names the file and the entry where something is missing, unexpected, of a wrong shape or not
    finite, and the file whose checksums show damage. Unexpected entries do not prevent loading, which warns of
    them.
    """
    torch = _import_torch()
    from personalive.cli.progress import show_bytes
    from personalive.pipelines.diffusion.checkpoints.loader import (
        fill_networks,
        prepare_networks,
        verify_checksums,
    )

    networks = prepare_networks(_resolve_directory(directory), strict=True)
    rows = [_format_row(prepared) for prepared in networks]
    notes: list[str] = []
    with show_bytes(quiet=quiet) as progress:
        verify_checksums(networks, progress)
    with show_bytes(quiet=quiet) as progress:
        for prepared in fill_networks(networks, torch.device("cpu"), torch.float32, progress):
            prepared.module.to_empty(device="meta")  # it was read and checked: free its memory for the next
            notes.extend(prepared.notes)
    _print_warnings(notes)
    if not quiet:
        head = ("network", "parameters", "stored as", "MB", "files")
        typer.echo(format_table([head, *rows], terminal_width(sys.stdout)))
        console.print_result("All entries are present and finite.")


@app.command(epilog=_CONVERT_EPILOG)
def convert(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder of the new set; it must not exist.")],
    *,
    source: Annotated[
        Path | None,
        typer.Option("--from", metavar="DIR", help="The set. Default: where `personalive download` puts it."),
    ] = None,
    dtype: Annotated[
        DtypeOption | None,
        typer.Option(help="Floating type of the stored weights. Default: unchanged.", show_default=False),
    ] = None,
    quiet: _Quiet = False,
) -> None:
    """Convert a set to safetensors, one file per network: without pickle, and half as large in float16."""
    torch = _import_torch()
    from personalive.cli.progress import show_bytes
    from personalive.pipelines.diffusion.checkpoints.convert import convert as write

    notes: list[str] = []
    with show_bytes(quiet=quiet) as progress:
        write(
            _resolve_directory(source),
            out,
            dtype=getattr(torch, dtype) if dtype else None,
            progress=progress,
            report=notes.append,
        )
    _print_warnings(notes)
    if not quiet:
        console.print_result(f"The converted set is at {out}: {_size_on_disk(out) / _BYTES_PER_MB:,.0f} MB.")


@app.command("make-test", epilog=_MAKE_TEST_EPILOG)
def make_test(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of the set: new or empty.")],
    *,
    size: Annotated[
        RandomSetSize,
        typer.Option(help="small: seconds on a CPU. released: as large as the real ones, 12 GB."),
    ] = RandomSetSize.SMALL,
    seed: Annotated[int, typer.Option(help="Seed of the weights.")] = 0,
    dtype: Annotated[
        DtypeOption, typer.Option(help="Floating type of the stored weights.")
    ] = DtypeOption.FLOAT32,
    quiet: _Quiet = False,
) -> None:
    """Make a set of seeded random weights in the released layout, for tests of everything except the picture."""
    torch = _import_torch()
    from personalive.pipelines.diffusion.checkpoints.random_weights import write_random_weights

    report = (lambda name: None) if quiet else (lambda name: console.print_status(f"writing {name}"))
    write_random_weights(directory, variant=size, seed=seed, dtype=getattr(torch, dtype), progress=report)
    if not quiet:
        console.print_result(f"Random weights, for tests only, are in {directory}.")


def _print_warnings(notes: list[str]) -> None:
    for note in notes:
        console.print_status(f"warning: {note}")


def _import_torch() -> Any:
    try:
        import torch
    except ImportError:
        from personalive.installation import install_command

        raise PipelineUnavailableError(
            f"Weights need PyTorch, which is not installed. Run: {install_command('diffusion')}"
        ) from None
    return torch


def _resolve_directory(directory: Path | None) -> Path:
    from personalive.pipelines.diffusion.checkpoints.layout import default_weights_dir

    return directory or default_weights_dir()


def _format_row(prepared: PreparedNetwork) -> tuple[str, ...]:
    entries = [source.file.entries[source.name] for source in prepared.plan.sources.values()]
    kinds = sorted(
        {str(entry.dtype).removeprefix("torch.") for entry in entries if entry.dtype.is_floating_point}
    )
    files = dict.fromkeys(source.file.path.name for source in prepared.plan.sources.values())
    parameters = sum(entry.nbytes // entry.dtype.itemsize for entry in entries)
    return (
        prepared.spec.name,
        f"{parameters / 1e6:,.1f} M",
        ", ".join(kinds),
        f"{prepared.plan.nbytes / _BYTES_PER_MB:,.1f}",
        ", ".join(files),
    )


def _size_on_disk(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
