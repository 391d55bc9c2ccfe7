from __future__ import annotations

import asyncio
from importlib.resources import files
from pathlib import Path

import pytest

from personalive.errors import InputError, MediaError, PipelineUnavailableError
from personalive.server.server import Server
from personalive.server.settings import read_settings
from personalive.server.state import startup

PORTRAIT = Path(str(files("personalive") / "samples" / "portrait.jpg"))
SMALL = {"width": 256, "height": 256}


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"pipeline": "personalive"}, PipelineUnavailableError, "weights"),
        ({"pipeline": "nonesuch"}, InputError, "no pipeline 'nonesuch'"),
        ({"pipeline": "preview", "load_params": {"width": 3}}, InputError, "width = 3"),
        (
            {"pipeline": "preview", "load_params": {"nonesuch": 3}},
            InputError,
            "'nonesuch'; there are: .*width",
        ),
        ({"pipeline": "personalive", "load_params": {"sed": 3}}, InputError, "'sed'; there are: .*seed"),
        ({"pipeline": "auto", "load_params": {"sed": 3}}, InputError, "'sed'; there are: "),
        ({"load_params": {"width": 256}}, InputError, "set width of: name one with --pipeline.*: .*weights"),
        ({"pipeline": "preview", "reference": Path("nonesuch.png")}, MediaError, "does not exist"),
    ],
)
def test_what_cannot_be_is_said_before_anything_is_begun(
    given: dict[str, object], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        startup.check_settings(read_settings(given))


def test_a_place_may_be_set_for_pipelines_that_are_loaded_later(tmp_path: Path) -> None:
    startup.check_settings(read_settings({"load_params": {"weights": str(tmp_path)}}))


@pytest.mark.slow
@pytest.mark.parametrize("portrait", [PORTRAIT, None])
def test_pipeline_and_portrait_are_there_soon(portrait: Path | None, tmp_path: Path) -> None:
    given: dict[str, object] = {"pipeline": "preview", "load_params": SMALL, "recordings_dir": tmp_path}
    settings = read_settings(given | ({"reference": portrait} if portrait else {}))

    async def begin() -> tuple[str, bool]:
        server = Server(settings)
        startup.check_settings(settings)
        await server.start()
        for _ in range(300):
            if server.pipelines.pipeline and (portrait is None or server.references.default_id):
                break
            await asyncio.sleep(0.1)
        told = server.pipelines.get_status().status, server.references.default_id is not None
        await server.stop()
        return told

    assert asyncio.run(begin()) == ("loaded", portrait is not None)


def test_a_portrait_without_a_face_is_logged_and_the_server_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    import PIL.Image

    PIL.Image.new("RGB", (300, 300), "grey").save(tmp_path / "grey.png")
    settings = read_settings(
        {
            "pipeline": "preview",
            "load_params": SMALL,
            "reference": tmp_path / "grey.png",
            "recordings_dir": tmp_path,
        }
    )

    async def begin() -> bool:
        server = Server(settings)
        await server.start()
        for _ in range(300):
            if server.pipelines.pipeline and not server.pipelines.on_loaded:
                break
            await asyncio.sleep(0.1)
        for _ in range(300):
            if "reference_rejected" in caplog.text:
                break
            await asyncio.sleep(0.1)
        alive = await server.workers[0].is_responsive()
        await server.stop()
        return alive

    with caplog.at_level("INFO"):
        assert asyncio.run(begin())
    assert "reference_rejected" in caplog.text
