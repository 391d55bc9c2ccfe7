"""What the counted pipeline noted."""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).parent / "counted_plugin"


class Log:
    """The file that `COUNTED_LOG` names."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.touch()

    def _lines(self, what: str) -> list[list[str]]:
        return [line.split() for line in self.path.read_text().splitlines() if line.split()[0] == what]

    def count(self, what: str) -> int:
        """How often something was done, in all processes together."""
        return len(self._lines(what))

    @property
    def frames(self) -> int:
        """Driving frames that went through sessions."""
        return sum(int(line[2]) for line in self._lines("step"))
