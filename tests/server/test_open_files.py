from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import resource
from personalive.server.open_files import raise_open_file_limit
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 300 if {lower_hard} else hard))
print(raise_open_file_limit({wanted}), *resource.getrlimit(resource.RLIMIT_NOFILE)[:1])
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such limit")
@pytest.mark.parametrize(
    ("wanted", "lower_hard", "granted"),
    [(200, True, 200), (1000, True, 300), (32, True, 64), (200, False, 200)],
)
def test_a_process_gets_as_many_files_as_it_may(wanted: int, lower_hard: bool, granted: int) -> None:
    program = PROGRAM.format(wanted=wanted, lower_hard=lower_hard)
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert said.split() == [str(granted)] * 2
