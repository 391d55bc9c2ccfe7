from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from personalive.errors import DeviceOutOfMemoryError, InputError, NoFaceError, PipelineUnavailableError
from personalive.media.types import Image
from personalive.pipelines.base import Reference
from personalive.pipelines.diffusion.components import Components
from personalive.pipelines.diffusion.memory import allocator
from personalive.pipelines.diffusion.memory.planner import make_plans_for_components
from personalive.pipelines.diffusion.parameters import PersonaLiveLoadParameters
from personalive.pipelines.diffusion.pipeline import PersonaLivePipeline
from personalive.pipelines.diffusion.sampling.reference import FusedReference
from personalive.pipelines.preview import PreviewLoadParameters, PreviewPipeline
from tests.pipelines.diffusion.streams import GREY, SIDE, chunk, picture


@pytest.fixture
def looking(models: Components, set_to: PersonaLiveLoadParameters) -> Iterator[PersonaLivePipeline]:
    """The pipeline with face detection."""
    with PersonaLivePipeline(models, set_to.model_copy(update={"face_detection": True})) as own:
        yield own


def test_a_picture_is_fused_once(pipeline: PersonaLivePipeline, reference: FusedReference) -> None:
    assert pipeline.fuse(picture(1)) is reference
    assert pipeline.fuse(picture(2)) is not reference


def test_the_references_used_last_are_kept(models: Components, set_to: PersonaLiveLoadParameters) -> None:
    with PersonaLivePipeline(models, set_to) as own:
        first, second = own.fuse(picture(10)), own.fuse(picture(11))
        for seed in range(12, 18):
            own.fuse(picture(seed))
        assert own.fuse(picture(10)) is first
        own.fuse(picture(18))
        assert own.fuse(picture(10)) is first
        again = own.fuse(picture(11))
        assert again is not second
        assert again.id == second.id


def test_a_picture_without_a_face_is_refused_unless_allowed(looking: PersonaLivePipeline) -> None:
    with pytest.raises(NoFaceError, match="No face was found in the reference"):
        looking.fuse(GREY)
    assert looking.fuse(GREY, allow_no_face=True).face is None
    with pytest.raises(NoFaceError, match="No face was found in the reference"):
        looking.fuse(GREY)


def test_a_face_is_told_in_the_given_pictures_pixels(looking: PersonaLivePipeline, portrait: Image) -> None:
    reference = looking.fuse(portrait, allow_no_face=True)
    assert reference.image.shape == (SIDE, SIDE, 3)
    assert reference.face is not None
    left, top, right, bottom = reference.face.box
    assert left < 225 < right
    assert top < 125 < bottom
    assert 0 < reference.face.score <= 1


def test_other_settings_than_trained_are_warned_about(
    models: Components, set_to: PersonaLiveLoadParameters
) -> None:
    def warned(**given: object) -> tuple[str, ...]:
        return PersonaLivePipeline(models, set_to.model_copy(update=given)).warnings

    (size,) = warned(height=128)
    assert size.startswith("The released weights were trained at 512×512; 64×128 is experimental.")
    assert warned(height=512, width=512) == ()
    (window,) = warned(height=512, width=512, experimental=True)
    assert "Window settings" in window


def test_what_is_unusual_about_the_files_is_warned_about(
    models: Components, set_to: PersonaLiveLoadParameters
) -> None:
    said = "denoising_unet.pth: 'module.' in its entries' names is taken off."
    own = PersonaLivePipeline(
        replace(models, warnings=(said,)), set_to.model_copy(update={"height": 512, "width": 512})
    )
    assert own.warnings == (said,)


def test_loading_reports_every_network(set_to: PersonaLiveLoadParameters) -> None:
    reports: list[tuple[str, float]] = []
    with PersonaLivePipeline.load(set_to, lambda stage, done: reports.append((stage, done))) as own:
        assert own.parameters is set_to
    assert {"loading denoising_unet", "loading vae"} <= {stage for stage, _ in reports}
    assert all(0 <= done <= 1 for _, done in reports)


def test_without_weights_it_says_how_to_get_them(
    set_to: PersonaLiveLoadParameters, tmp_path: Path, empty_home: Path
) -> None:
    state = PersonaLivePipeline.availability()
    assert not state.ready
    assert state.reason == f"there are no weights in {empty_home / 'pretrained_weights'}"
    assert state.remedy == "Run: personalive download"
    with pytest.raises(PipelineUnavailableError, match="cannot be loaded: there are no weights in"):
        PersonaLivePipeline.load(set_to.model_copy(update={"weights": tmp_path}))


def test_a_device_that_is_not_there_is_refused(set_to: PersonaLiveLoadParameters) -> None:
    with pytest.raises(PipelineUnavailableError, match="There is no cuda:77 here"):
        PersonaLivePipeline.load(set_to.model_copy(update={"device": "cuda:77"}))


def test_a_reference_of_another_pipeline_is_refused(
    pipeline: PersonaLivePipeline, reference: FusedReference, portrait: Image
) -> None:
    with PreviewPipeline.load(PreviewLoadParameters(height=256, width=256)) as preview:
        foreign: Reference = preview.fuse(portrait)
    with pytest.raises(InputError, match="fused by another pipeline"):
        pipeline.open_session(foreign)
    with pipeline.open_session(reference) as session, pytest.raises(InputError, match="another pipeline"):
        session.switch_reference(foreign)


def test_a_closed_pipeline_says_so(
    models: Components, set_to: PersonaLiveLoadParameters, reference: FusedReference
) -> None:
    own = PersonaLivePipeline(models, set_to)
    own.close()
    own.close()
    for act in (
        lambda: own.fuse(picture(1)),
        lambda: own.open_session(reference),
        lambda: own.extract_motion([], 25.0),
    ):
        with pytest.raises(InputError, match="This pipeline is closed"):
            act()


def test_frames_are_of_the_loaded_size(models: Components, set_to: PersonaLiveLoadParameters) -> None:
    wide = set_to.model_copy(update={"width": 128})
    with PersonaLivePipeline(models, wide) as own, own.open_session(own.fuse(picture(1))) as session:
        shown = session.step(chunk(1, 0))
    assert shown.images.shape == (4, 64, 128, 3)
    assert shown.images.dtype == np.uint8


def test_on_a_gpu_the_memory_plan_is_told_unless_it_was_asked_for(
    models: Components, set_to: PersonaLiveLoadParameters, monkeypatch: pytest.MonkeyPatch
) -> None:
    plans = {plan.name: plan for plan in make_plans_for_components(models, set_to)}
    with PersonaLivePipeline(models, set_to) as own:
        assert not own.notes
        monkeypatch.setattr(allocator, "total_bytes", lambda device: 24 * 2**30)
        assert own.notes == ("24 GB card: nothing is given up (low_vram=off).",)
    with PersonaLivePipeline(models, set_to, plans["on"]) as own:
        (said,) = own.notes
        assert said.startswith("24 GB card: references wait on the host")
        assert own.session_batch_size == 1
    asked = set_to.model_copy(update={"low_vram": "on"})
    with PersonaLivePipeline(models, asked) as own:
        assert own.notes == ()


def test_a_session_that_was_not_planned_for_needs_room(
    models: Components,
    set_to: PersonaLiveLoadParameters,
    reference: FusedReference,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with PersonaLivePipeline(models, set_to) as own:
        monkeypatch.setattr(allocator, "unused_bytes", lambda device: own.engine.plan.session - 1)
        first = own.open_session(reference)
        with pytest.raises(DeviceOutOfMemoryError, match="too little GPU memory for another session"):
            own.open_session(reference)
        first.close()
        with own.open_session(reference):
            monkeypatch.setattr(allocator, "unused_bytes", lambda device: own.engine.plan.session)
            own.open_session(reference).close()
