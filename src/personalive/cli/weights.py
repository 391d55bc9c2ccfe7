"""`personalive weights`: check a set of weights, convert it, make one of random weights."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from personalive.cli import console
from personalive.cli.text_layout import columns, table
from personalive.errors import PipelineUnavailableError

if TYPE_CHECKING:
    from personalive.pipelines.diffusion.checkpoints.loader import Prepared

_MB = 1e6

app = typer.Typer(
    name="weights",
    help="Check, convert or make the weights of the personalive pipeline.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


class Dtype(StrEnum):
    """Floating types that weights can be stored in."""

    FLOAT32 = "float32"
    FLOAT16 = "float16"
    BFLOAT16 = "bfloat16"


class Size(StrEnum):
    """Sizes that random weights come in."""

    SMALL = "small"
    RELEASED = "released"


_CHECK_EPILOG = """Examples:

personalive weights check

personalive weights check ~/PersonaLive/pretrained_weights
"""
_CONVERT_EPILOG = """Examples:

personalive weights convert fast

personalive weights convert fast --from ~/PersonaLive/pretrained_weights --dtype float16

Half the size with --dtype float16, which is what a GPU computes in anyway.
"""
_MAKE_TEST_EPILOG = """Examples:

personalive weights make-test /tmp/weights

personalive weights check /tmp/weights

What such weights animate looks like coloured noise; everything around it is the real thing.
"""

_Directory = Annotated[
    Path | None,
    typer.Argument(metavar="[DIR]", help="The set. Default: where `personalive download` puts it."),
]
_Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print errors only.")]


@app.command(epilog=_CHECK_EPILOG)
def check(directory: _Directory = None, *, quiet: _Quiet = False) -> None:
    """Verify that a set can be loaded: every file, every entry, every number that is used.

    Exits with 2 and names the file and the entry where something is missing, left over, misshapen or not finite,
    and the file whose checksums say that it was harmed.
    What is left over is no hindrance to loading, which warns of it.
    """
    torch = _torch()
    from personalive.cli.progress import show_bytes
    from personalive.pipelines.diffusion.checkpoints.loader import check_sums, prepare, read

    networks = prepare(_set(directory), strict=True)
    rows = [_row(prepared) for prepared in networks]
    notes: list[str] = []
    with show_bytes(quiet=quiet) as progress:
        check_sums(networks, progress)
    with show_bytes(quiet=quiet) as progress:
        for prepared in read(networks, torch.device("cpu"), torch.float32, progress):
            prepared.module.to_empty(device="meta")  # read and found sound: make room for the next
            notes.extend(prepared.notes)
    _warn(notes)
    if not quiet:
        head = ("network", "parameters", "stored as", "MB", "files")
        typer.echo(table([head, *rows], columns(sys.stdout)))
        console.tell("Every entry is there and finite.")


@app.command(epilog=_CONVERT_EPILOG)
def convert(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The new set's folder; it must not exist.")],
    *,
    source: Annotated[
        Path | None,
        typer.Option("--from", metavar="DIR", help="The set. Default: where `personalive download` puts it."),
    ] = None,
    dtype: Annotated[
        Dtype | None, typer.Option(help="Store weights as this. Default: as they are.", show_default=False)
    ] = None,
    quiet: _Quiet = False,
) -> None:
    """Write a set anew as safetensors, one file a network: no pickle, and half the bytes in float16."""
    torch = _torch()
    from personalive.cli.progress import show_bytes
    from personalive.pipelines.diffusion.checkpoints.convert import convert as write

    notes: list[str] = []
    with show_bytes(quiet=quiet) as progress:
        write(
            _set(source),
            out,
            dtype=getattr(torch, dtype) if dtype else None,
            progress=progress,
            note=notes.append,
        )
    _warn(notes)
    if not quiet:
        console.tell(f"The converted set is at {out}: {_size_on_disk(out) / _MB:,.0f} MB.")


@app.command("make-test", epilog=_MAKE_TEST_EPILOG)
def make_test(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="The set's folder: new or empty.")],
    *,
    size: Annotated[
        Size, typer.Option(help="small: seconds on a CPU. released: as large as the real ones, 12 GB.")
    ] = Size.SMALL,
    seed: Annotated[int, typer.Option(help="Seed of the weights.")] = 0,
    dtype: Annotated[Dtype, typer.Option(help="Store weights as this.")] = Dtype.FLOAT32,
    quiet: _Quiet = False,
) -> None:
    """Make a set of seeded random weights, laid out like the released ones: to try everything but the picture."""
    torch = _torch()
    from personalive.pipelines.diffusion.checkpoints.random_weights import write_random_set

    report = (lambda name: None) if quiet else (lambda name: console.say(f"writing {name}"))
    write_random_set(directory, variant=size, seed=seed, dtype=getattr(torch, dtype), progress=report)
    if not quiet:
        console.tell(f"Random weights, good for tests only, are in {directory}.")


def _warn(notes: list[str]) -> None:
    for note in notes:
        console.say(f"warning: {note}")


def _torch() -> Any:
    try:
        import torch
    except ImportError:
        from personalive.installation import install_command

        raise PipelineUnavailableError(
            f"Weights need PyTorch, which is not installed. Run: {install_command('diffusion')}"
        ) from None
    return torch


def _set(directory: Path | None) -> Path:
    from personalive.pipelines.diffusion.checkpoints.layout import default_root

    return directory or default_root()


def _row(prepared: Prepared) -> tuple[str, ...]:
    entries = [source.file.entries[source.name] for source in prepared.plan.sources.values()]
    kinds = sorted(
        {str(entry.dtype).removeprefix("torch.") for entry in entries if entry.dtype.is_floating_point}
    )
    files = dict.fromkeys(source.file.path.name for source in prepared.plan.sources.values())
    parameters = sum(entry.nbytes // entry.dtype.itemsize for entry in entries)
    return (
        prepared.network.name,
        f"{parameters / 1e6:,.1f} M",
        ", ".join(kinds),
        f"{prepared.plan.nbytes / _MB:,.1f}",
        ", ".join(files),
    )


def _size_on_disk(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
