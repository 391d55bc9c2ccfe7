from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from personalive.errors import FaceChoiceError, InputError, NoFaceError
from personalive.jobs.session_runner import run_session
from personalive.media import VideoFrame
from personalive.pipelines import registry
from tests.integrations.comfyui.conftest import FOLDER, FRAMES, progress_hook
from tests.server.parts import two_faces

WORKFLOWS = sorted((FOLDER / "workflows").glob("*.json"))


def fuse(comfy: Any, pipeline: Any, portrait: torch.Tensor) -> Any:
    return comfy.execute_node(
        "PersonaLiveFuseReference", pipeline=pipeline, image=portrait, crop=True, face="auto"
    )


def run(comfy: Any, name: str, **inputs: Any) -> Any:
    """Run a node as ComfyUI does, in inference mode, with its own exceptions."""
    instance = comfy.create_node_instance(name)
    with torch.inference_mode():
        return getattr(instance, instance.FUNCTION)(**inputs)


def test_every_pipeline_has_a_loader_and_parameters(comfy: Any) -> None:
    for name, pipeline in registry.all_pipelines().items():
        inputs = comfy.get_node_info(f"PersonaLiveLoad_{name}")["input_types"]["optional"]
        assert set(inputs) == set(pipeline.load_parameters.model_fields) - {"seed", "batch_sessions"}
        inputs = comfy.get_node_info(f"PersonaLiveParameters_{name}")["input_types"]["optional"]
        assert list(inputs) == list(pipeline.run_parameters.model_fields)


def test_a_parameter_that_a_saved_prompt_lacks_has_its_default(comfy: Any) -> None:
    for name, pipeline in registry.all_pipelines().items():
        (built,) = run(comfy, f"PersonaLiveParameters_{name}")
        assert built == pipeline.run_parameters()


def test_one_of_several_faces_is_chosen(comfy: Any, preview: Any) -> None:
    image = torch.from_numpy(two_faces().astype(np.float32) / 255)[None]
    given = {"pipeline": preview, "image": image, "crop": True}
    with pytest.raises(FaceChoiceError):
        run(comfy, "PersonaLiveFuseReference", **given, face="auto")
    left, right = (run(comfy, "PersonaLiveFuseReference", **given, face=face) for face in ("left", "2"))
    assert left[0].face_box is not None
    assert not torch.equal(left[1], right[1])


def test_a_clip_gives_the_pipelines_own_frames(
    comfy: Any, preview: Any, portrait_tensor: torch.Tensor, clip_tensor: torch.Tensor
) -> None:
    seen: list[tuple[int, int]] = []
    reference, image = fuse(comfy, preview, portrait_tensor)
    parameters = comfy.execute_node(
        "PersonaLiveParameters_preview",
        motion="relative",
        expression=1.5,
        pose=1.0,
        translation=0.5,
        smoothing=0.2,
    )[0]
    given = {"pipeline": preview, "reference": reference, "images": clip_tensor, "fps": 25.0, "seed": 1}
    with progress_hook(lambda done, total, *_, **__: seen.append((done, total))):
        images, report = run(comfy, "PersonaLiveAnimate", **given, parameters=parameters)

    pipeline = preview.load()
    fused = pipeline.fuse(reference.image)
    driving = (clip_tensor * 255).round().to(torch.uint8).numpy()
    frames = [VideoFrame(picture, k / 25, k, 1 / 25) for k, picture in enumerate(driving)]
    with pipeline.open_session(fused, parameters, seed=1) as session:
        expected = np.stack([result.animated for result in run_session(session, pipeline.info, frames)])
    assert np.array_equal((images * 255).round().to(torch.uint8).numpy(), expected)
    assert np.array_equal((image[0] * 255).round().to(torch.uint8).numpy(), fused.image)
    assert images.dtype == torch.float32
    assert images.shape == (FRAMES, 256, 256, 3)
    assert f"{FRAMES} animated" in report
    assert seen[-1] == (FRAMES, FRAMES)


def test_an_interruption_ends_the_run_within_a_chunk(
    comfy: Any, preview: Any, portrait_tensor: torch.Tensor, clip_tensor: torch.Tensor
) -> None:
    import comfy.model_management as management

    reference, _ = fuse(comfy, preview, portrait_tensor)
    done: list[int] = []

    def interrupt(frames: int, *_: Any, **__: Any) -> None:
        done.append(frames)
        management.interrupt_current_processing(True)

    given = {"pipeline": preview, "reference": reference, "images": clip_tensor, "fps": 25.0, "seed": 1}
    with progress_hook(interrupt), pytest.raises(management.InterruptProcessingException):
        run(comfy, "PersonaLiveAnimate", **given)
    assert done == [1]
    assert not management.processing_interrupted()
    assert len(run(comfy, "PersonaLiveAnimate", **given)[0]) == FRAMES


def test_errors_are_sentences(
    comfy: Any, preview: Any, portrait_tensor: torch.Tensor, clip_tensor: torch.Tensor
) -> None:
    with pytest.raises(InputError, match="width = 500: Input should be a multiple of 64"):
        run(comfy, "PersonaLiveLoad_preview", width=500, height=512)
    with pytest.raises(NoFaceError, match="No face was found in the picture"):
        run(comfy, "PersonaLiveFuseReference", pipeline=preview, image=torch.zeros(1, 256, 256, 3), crop=True)
    with pytest.raises(InputError, match="The preview pipeline has no motion"):
        run(comfy, "PersonaLiveExtractMotion", pipeline=preview, images=clip_tensor, fps=25.0)
    reference, _ = fuse(comfy, preview, portrait_tensor)
    given = {"reference": reference, "images": clip_tensor, "fps": 25.0, "seed": 1}
    other = comfy.execute_node("PersonaLiveParameters_personalive", expression=1.0)[0]
    with pytest.raises(InputError, match="connect the node Parameters: preview"):
        run(comfy, "PersonaLiveAnimate", **given, pipeline=preview, parameters=other)
    larger = comfy.execute_node("PersonaLiveLoad_preview", width=320, height=256)[0]
    with pytest.raises(InputError, match="frames of 256×256 and this pipeline makes 320×256"):
        run(comfy, "PersonaLiveAnimate", **given, pipeline=larger)
    with pytest.raises(InputError, match="at least one"):
        run(comfy, "PersonaLiveAnimate", **(given | {"images": clip_tensor[:0]}), pipeline=preview)


@pytest.mark.slow
def test_a_motion_gives_the_frames_of_its_clip(
    comfy: Any, portrait_tensor: torch.Tensor, clip_tensor: torch.Tensor, test_weights: Path
) -> None:
    given = {"weights": str(test_weights), "width": 64, "height": 64, "device": "cpu", "latency": "lowest"}
    pipeline = run(comfy, "PersonaLiveLoad_personalive", **given)[0]
    reference, _ = run(comfy, "PersonaLiveFuseReference", pipeline=pipeline, image=portrait_tensor, crop=True)
    # Five frames, so that the last chunk of four is filled up.
    clip = {"images": clip_tensor[:5], "fps": 25.0}
    motion = run(comfy, "PersonaLiveExtractMotion", pipeline=pipeline, **clip)[0]
    shared = {"pipeline": pipeline, "reference": reference, "seed": 3}
    by_clip, _ = run(comfy, "PersonaLiveAnimate", **shared, **clip)
    by_motion, report = run(comfy, "PersonaLiveAnimateMotion", **shared, motion=motion)
    assert by_motion.shape == (5, 64, 64, 3)
    assert torch.equal(by_clip, by_motion)
    assert "5 frames by PersonaLive (diffusion)" in report


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_the_workflows_fit_the_nodes(comfy: Any, path: Path) -> None:
    workflow = json.loads(path.read_text(encoding="utf-8"))
    nodes = {node["id"]: node for node in workflow["nodes"]}
    for _, source, output, target, place, kind in workflow["links"]:
        assert nodes[source]["outputs"][output]["type"] == kind
        assert nodes[target]["inputs"][place]["type"] in {kind, "*"}
    ours = [node for node in nodes.values() if node["type"].startswith("PersonaLive")]
    assert len(ours) == 4
    for node in ours:
        types = comfy.get_node_info(node["type"])["input_types"]
        inputs = {**types.get("required", {}), **types.get("optional", {})}
        assert {entry["name"] for entry in node["inputs"]} == set(inputs)
        widgets = [name for name, spec in inputs.items() if len(spec) > 1 and "default" in spec[1]]
        # The page adds a choice behind a seed: what becomes of it after a run.
        values = [value for value in node["widgets_values"] if value != "fixed"]
        assert values == [inputs[name][1]["default"] for name in widgets]
