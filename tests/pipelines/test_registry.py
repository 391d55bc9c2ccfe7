from __future__ import annotations

import re
from collections.abc import Callable
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from personalive.errors import PipelineUnavailableError, UnknownPipelineError
from personalive.pipelines import registry


@pytest.fixture
def register(plugins: None, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Put what the argument names, "module:Class", in the diffusion pipeline's place."""

    def install(target: str) -> None:
        point = EntryPoint(registry.DIFFUSION, target, registry.ENTRY_POINT_GROUP)
        monkeypatch.setitem(registry._entry_points(), registry.DIFFUSION, point)

    return install


def test_our_own_is_registered() -> None:
    assert {"personalive", "preview"} <= set(registry.pipeline_names())
    assert registry.get_pipeline("preview").info.id == "preview"
    assert registry.get_pipeline("personalive").info.id == "personalive"


@pytest.mark.usefixtures("plugins")
def test_a_strangers_pipeline_is_found() -> None:
    assert {"echo", "preview"} <= set(registry.pipeline_names())
    assert registry.get_pipeline("echo").info.id == "echo"
    choice = registry.choose_pipeline("echo")
    assert (choice.pipeline.info.id, choice.reason) == ("echo", "asked for")


@pytest.mark.usefixtures("plugins")
def test_an_unknown_name_lists_the_known() -> None:
    with pytest.raises(UnknownPipelineError, match=r"no pipeline 'ecko'\. Known: .*echo.*preview"):
        registry.choose_pipeline("ecko")


@pytest.mark.usefixtures("plugins")
def test_what_is_no_pipeline_is_refused_by_name() -> None:
    with pytest.raises(PipelineUnavailableError, match="echo_pipeline:not_a_pipeline"):
        registry.get_pipeline("function")


@pytest.mark.usefixtures("plugins")
def test_an_unavailable_one_says_how_to_mend_it() -> None:
    with pytest.raises(PipelineUnavailableError, match=r"weights are missing\. Run `download_models"):
        registry.choose_pipeline("missing")


@pytest.mark.usefixtures("plugins")
def test_a_broken_package_does_not_take_the_rest_down() -> None:
    with pytest.raises(PipelineUnavailableError, match="ModuleNotFoundError"):
        registry.get_pipeline("broken")
    with pytest.warns(RuntimeWarning) as seen:
        found = registry.all_pipelines()
    assert {"echo", "missing", "paced", "personalive", "preview"} == set(found)
    assert sorted(str(warning.message).split("'")[1] for warning in seen) == ["broken", "function"]


def test_auto_falls_back_and_says_why() -> None:
    choice = registry.choose_pipeline()
    assert choice.pipeline.info.id == "preview"
    assert choice.reason.startswith("the diffusion pipeline cannot run here: there are no weights in ")
    assert choice.reason.endswith(". Run: personalive download")


def test_auto_takes_the_diffusion_pipeline_where_it_can_run(register: Callable[[str], None]) -> None:
    register("echo_pipeline:EchoPipeline")
    choice = registry.choose_pipeline("auto")
    assert (choice.pipeline.info.id, choice.reason) == ("echo", "it only echoes")


def test_auto_says_why_the_diffusion_pipeline_cannot_run(register: Callable[[str], None]) -> None:
    register("echo_pipeline:MissingPipeline")
    choice = registry.choose_pipeline("auto")
    assert choice.pipeline.info.id == "preview"
    assert "its weights are missing" in choice.reason


def test_the_diffusion_pipeline_asked_for_without_weights_says_where_they_belong(empty_home: Path) -> None:
    folder = re.escape(str(empty_home / "pretrained_weights"))
    with pytest.raises(
        PipelineUnavailableError, match=f"there are no weights in {folder}. Run: personalive download"
    ):
        registry.choose_pipeline("personalive")


def test_weights_that_are_named_decide_whether_the_diffusion_pipeline_is_ready(tmp_path: Path) -> None:
    with pytest.raises(PipelineUnavailableError, match=f"no weights in {re.escape(str(tmp_path))}"):
        registry.choose_pipeline("auto", {"weights": tmp_path})
    file = tmp_path / "personalive" / "pose_guider.pth"
    file.parent.mkdir()
    file.touch()
    choice = registry.choose_pipeline("auto", {"weights": str(tmp_path)})
    assert (choice.pipeline.info.id, choice.reason) == ("personalive", f"its weights are in {tmp_path}")
    assert registry.choose_pipeline("personalive", {"weights": tmp_path}).reason == "asked for"
    assert registry.choose_pipeline("auto", {"weights": None}).pipeline.info.id == "preview"
