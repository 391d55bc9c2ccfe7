"""Loading a set of weights: seconds, and peak memory beside the weights themselves.

    personalive weights make-test /tmp/released --size released     # 13 GB of random weights
    personalive weights convert /tmp/converted --from /tmp/released --dtype float16
    python -m benchmarks.loading /tmp/released /tmp/converted

Each set is loaded in a separate process, whose peak resident size the system keeps; the libraries' own
share is in it. The first reading of a set also measures the disk: give `--repeat 2` and look at the second.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

ALLOWANCE_GB = 1.5


def load(directory: Path, dtype: str, device: str) -> None:
    """Load the set here and print what it took."""
    import torch

    from personalive.pipelines.diffusion.checkpoints.loader import build_components, prepare_networks
    from personalive.process_memory import peak_rss_bytes

    begun = time.perf_counter()
    models = build_components(prepare_networks(directory), device=device, dtype=getattr(torch, dtype))
    seconds = time.perf_counter() - begun
    print(json.dumps({"seconds": seconds, "peak": peak_rss_bytes() / 1e9, "weights": models.nbytes / 1e9}))


def measure(directory: Path, dtype: str, device: str) -> dict[str, float]:
    """Measure in a fresh process."""
    command = [sys.executable, "-m", "benchmarks.loading", str(directory), "--dtype", dtype]
    ran = subprocess.run(
        [*command, "--device", device, "--run"], check=True, stdout=subprocess.PIPE, text=True
    )
    result: dict[str, float] = json.loads(ran.stdout.splitlines()[-1])
    return result


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("sets", type=Path, nargs="+", metavar="DIR")
    parser.add_argument("--dtype", default="float16", choices=("float16", "bfloat16", "float32"))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--repeat", type=int, default=1)
    parser.add_argument("--run", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.run:
        load(args.sets[0], args.dtype, args.device)
        return 0
    width = max(len(str(directory)) for directory in args.sets)
    print(f"{'set':{width}}  {'seconds':>7}  {'weights':>8}  {'peak':>8}  {'beside':>8}")
    over = False
    for directory in args.sets * args.repeat:
        result = measure(directory, args.dtype, args.device)
        beside = result["peak"] - (result["weights"] if args.device == "cpu" else 0)
        over |= beside > ALLOWANCE_GB
        sizes = "  ".join(f"{size:>5.2f} GB" for size in (result["weights"], result["peak"], beside))
        print(f"{directory!s:{width}}  {result['seconds']:>7.1f}  {sizes}", flush=True)
    print(f"at most {ALLOWANCE_GB} GB beside the weights: {'missed' if over else 'kept'}")
    return over


if __name__ == "__main__":
    sys.exit(main())
