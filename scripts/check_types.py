"""Check the types for Linux, Windows and macOS, at the same time and each with a separate cache."""

from __future__ import annotations

import argparse
import subprocess
import sys

PLATFORMS = ("linux", "win32", "darwin")


def main() -> int:
    argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0]).parse_args()
    command = [sys.executable, "-m", "mypy"]
    running = {
        platform: subprocess.Popen(
            [*command, "--platform", platform, "--cache-dir", f".mypy_cache/{platform}"],
            stdout=subprocess.PIPE,
            text=True,
            encoding="utf-8",
        )
        for platform in PLATFORMS
    }
    for platform, process in running.items():
        print(f"{platform}: {process.communicate()[0].strip()}")
    return max(process.returncode for process in running.values())


if __name__ == "__main__":
    sys.exit(main())
