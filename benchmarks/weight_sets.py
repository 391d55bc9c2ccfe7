"""The weights that a benchmark runs with: a folder, random ones in it, or those that are installed."""

from __future__ import annotations

import argparse
import contextlib
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from personalive.pipelines.diffusion.pipeline import PersonaLivePipeline


def add_options(parser: argparse.ArgumentParser) -> None:
    """Return the options `--weights` and `--random`."""
    parser.add_argument(
        "--weights", type=Path, metavar="DIR", help="the weights; default: the installed ones"
    )
    parser.add_argument(
        "--random",
        choices=("released", "small"),
        help="write random weights of this size into DIR, unless a set is there already; without DIR into a "
        "folder that is removed in the end (see TMPDIR; released: 6 GB)",
    )


@contextlib.contextmanager
def weights(args: argparse.Namespace) -> Iterator[Path | None]:
    """Return the folder that was asked for, for the time of a block; None for the installed weights."""
    with contextlib.ExitStack() as stack:
        folder: Path | None = args.weights
        if args.random is not None:
            folder = folder or Path(stack.enter_context(tempfile.TemporaryDirectory())) / "weights"
            if not PersonaLivePipeline.availability_with({"weights": folder}).ready:
                _write(folder, args.random)
        yield None if folder is None else folder.resolve()


def _write(folder: Path, size: str) -> None:
    import torch

    from personalive.pipelines.diffusion.checkpoints.random_weights import write_random_weights

    print(f"writing random weights of the {size} size", file=sys.stderr, flush=True)
    # In half precision they are half the bytes, and what a GPU computes in anyway.
    dtype = torch.float16 if size == "released" else torch.float32
    write_random_weights(folder, variant=size, dtype=dtype)
