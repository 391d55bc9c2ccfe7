from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from personalive.errors import PipelineUnavailableError, UnknownPipelineError
from personalive.pipelines import registry


@pytest.fixture
def register(tmp_path: Path, plugins: None, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Install a package whose entry point "personalive" is what the argument names."""

    def install(target: str) -> None:
        info = tmp_path / "diffusion-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: diffusion\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[personalive.pipelines]\npersonalive = {target}\n")
        monkeypatch.syspath_prepend(str(tmp_path))
        registry._registered.cache_clear()

    return install


def test_our_own_is_registered() -> None:
    assert "preview" in registry.names()
    assert registry.get("preview").info.id == "preview"


@pytest.mark.usefixtures("plugins")
def test_a_strangers_pipeline_is_found() -> None:
    assert {"echo", "preview"} <= set(registry.names())
    assert registry.get("echo").info.id == "echo"
    choice = registry.choose("echo")
    assert (choice.pipeline.info.id, choice.why) == ("echo", "asked for")


@pytest.mark.usefixtures("plugins")
def test_an_unknown_name_lists_the_known() -> None:
    with pytest.raises(UnknownPipelineError, match=r"no pipeline 'ecko'\. Known: .*echo.*preview"):
        registry.choose("ecko")


@pytest.mark.usefixtures("plugins")
def test_what_is_no_pipeline_is_refused_by_name() -> None:
    with pytest.raises(PipelineUnavailableError, match="echo_pipeline:not_a_pipeline"):
        registry.get("function")


@pytest.mark.usefixtures("plugins")
def test_an_unavailable_one_says_how_to_mend_it() -> None:
    with pytest.raises(PipelineUnavailableError, match=r"weights are missing\. Run `download_models"):
        registry.choose("missing")


@pytest.mark.usefixtures("plugins")
def test_a_broken_package_does_not_take_the_rest_down() -> None:
    with pytest.raises(PipelineUnavailableError, match="ModuleNotFoundError"):
        registry.get("broken")
    with pytest.warns(RuntimeWarning) as seen:
        found = registry.all_pipelines()
    assert {"echo", "missing", "preview"} == set(found)
    assert sorted(str(warning.message).split("'")[1] for warning in seen) == ["broken", "function"]


def test_auto_falls_back_and_says_why() -> None:
    choice = registry.choose()
    assert choice.pipeline.info.id == "preview"
    assert "not part of this version" in choice.why


def test_auto_takes_the_diffusion_pipeline_where_it_can_run(register: Callable[[str], None]) -> None:
    register("echo_pipeline:EchoPipeline")
    choice = registry.choose("auto")
    assert (choice.pipeline.info.id, choice.why) == ("echo", "it only echoes")


def test_auto_says_why_the_diffusion_pipeline_cannot_run(register: Callable[[str], None]) -> None:
    register("echo_pipeline:MissingPipeline")
    choice = registry.choose("auto")
    assert choice.pipeline.info.id == "preview"
    assert "its weights are missing" in choice.why
