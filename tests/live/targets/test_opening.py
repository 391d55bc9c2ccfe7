from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from personalive.errors import InputError
from personalive.live.targets.opening import check_targets, make_target
from personalive.media import Provenance
from tests.live.targets.events import Events

MARK = Provenance(software="test", pipeline="none")


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("camera", "VirtualCameraTarget"),
        ("camera:/dev/video9", "VirtualCameraTarget"),
        ("window", "WindowTarget"),
        ("out.mp4", "RecordingTarget"),
        ("whip:https://server/whip", "WhipTarget"),
    ],
)
def test_each_kind_is_made(text: str, kind: str) -> None:
    async def act() -> None:
        check_targets((text,))
        target = make_target(text, Events(), size=(64, 48), fps=30, provenance=MARK, overwrite=False)
        assert type(target).__name__ == kind
        assert target.name == (str(Path(text)) if kind == "RecordingTarget" else text)

    asyncio.run(act())


@pytest.mark.parametrize(
    "targets", [("out.avi",), ("whip:server",), ("camara",), ("",), ("camera", "out.mp4", "camera")]
)
def test_others_and_repeated_ones_are_refused(targets: tuple[str, ...]) -> None:
    with pytest.raises(InputError):
        check_targets(targets)
