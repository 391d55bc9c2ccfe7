"""Whoever has one machine must not need Ray, nor wait for its import."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import runpy, sys
import personalive.cli.app
try:
    sys.argv = ["personalive", *{arguments}]
    personalive.cli.app.main()
except SystemExit:
    pass
assert "personalive.{expected}" in sys.modules, sorted(sys.modules)
assert not [name for name in sys.modules if name == "ray" or name.startswith("ray.")]
assert not [name for name in sys.modules if name.startswith("personalive.server.cluster")]
print("clean")
"""
NO_FILE = '["animate", "none.jpg", "none.mp4"]'
NO_PORT = '["serve", "--host", "203.0.113.1", "--insecure"]'


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "expected"),
    [(NO_FILE, "jobs"), (NO_PORT, "server.app"), ('["cluster", "serve", "-h"]', "cli")],
)
def test_one_machine_does_without_ray(arguments: str, expected: str) -> None:
    program = PROGRAM.format(arguments=arguments, expected=expected)
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.stdout.strip().endswith("clean"), done.stderr


def test_without_ray_it_says_how_to_get_it() -> None:
    hide = """
import importlib.util
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, package=None: None if name == "ray" else find(name, package)
"""
    program = (
        hide
        + "from personalive.cli.app import main; import sys; sys.argv = ['personalive', 'cluster', 'serve']; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 2
    assert "pip install" in done.stderr
    assert "cluster" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
