from __future__ import annotations

import json
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import strategies as st

from personalive.errors import WeightsError
from personalive.pipelines.diffusion.checkpoints.layout import MODEL_CONFIG
from personalive.pipelines.diffusion.checkpoints.model_config import (
    ModelConfig,
    read_json_object,
    read_model_config,
    write_model_config,
)
from personalive.pipelines.diffusion.checkpoints.network_specs import NETWORKS
from personalive.pipelines.diffusion.checkpoints.random_weights import VARIANTS
from personalive.pipelines.diffusion.networks.denoising_unet import DenoisingUNetParams
from personalive.pipelines.diffusion.networks.unet import UNetParams
from tests.pipelines.diffusion.checkpoints.forged import fuzz, fuzzers
from tests.signals import IS_ROOT

OWN = {network.name for network in fields(ModelConfig)}


def said_of(folder: Path, content: object) -> str:
    """What is said of a `model.json` with that content."""
    text = content if isinstance(content, str) else json.dumps(content)
    (folder / MODEL_CONFIG).write_text(text, encoding="utf-8")
    with pytest.raises(WeightsError) as caught:
        read_model_config(folder)
    assert str(folder / MODEL_CONFIG) in str(caught.value)
    assert len(str(caught.value)) < 1000
    return str(caught.value)


def test_without_a_file_the_sizes_are_the_released_ones(tmp_path: Path) -> None:
    assert read_model_config(tmp_path) == ModelConfig()
    (tmp_path / MODEL_CONFIG).write_text('{"format": 1}')
    assert read_model_config(tmp_path) == ModelConfig()


@pytest.mark.parametrize("variant", VARIANTS)
def test_written_sizes_are_read_back(tmp_path: Path, variant: str) -> None:
    write_model_config(tmp_path, VARIANTS[variant].sizes)
    assert read_model_config(tmp_path) == VARIANTS[variant].sizes


def test_what_is_not_said_is_as_released(tmp_path: Path) -> None:
    (tmp_path / MODEL_CONFIG).write_text('{"format": 1, "motion_extractor": {"keypoints": 5}}')
    sizes = read_model_config(tmp_path)
    assert sizes == replace(
        ModelConfig(), motion_extractor=replace(ModelConfig().motion_extractor, keypoints=5)
    )
    assert sizes.motion_extractor.keypoints == 5


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "is empty"),
        ("<!DOCTYPE html>", "is a web page"),
        ("{", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ("1" * 10_000, "is not JSON"),
        ('"' + "a" * (2 << 20) + '"', "at most 1 MiB"),
        ([], "must be a JSON object"),
        (None, "must be a JSON object"),
        ({}, '"format": 1'),
        ({"format": 2}, '"format": 1'),
        ({"format": "1"}, '"format": 1'),
        ({"format": 1, "unet": {}}, "names 'unet'; known networks are reference_unet, "),
        ({"format": 1, "vae": {}}, "names 'vae'"),
        ({"format": 1, "pose_guider": []}, "pose_guider must be an object"),
        ({"format": 1, "pose_guider": {"width": 3}}, "pose_guider has no size 'width'; it has channels, "),
        ({"format": 1, "pose_guider": {"\x1b": 3}}, r"'\x1b'"),
        ({"format": 1, "pose_guider": {"channels": []}}, "pose_guider.channels lists 0 sizes"),
        ({"format": 1, "pose_guider": {"channels": [8] * 7}}, "pose_guider.channels lists 7 sizes"),
        ({"format": 1, "pose_guider": {"channels": [8, "8"]}}, "pose_guider.channels is [8, '8']"),
        ({"format": 1, "pose_guider": {"channels": [[8]]}}, "pose_guider.channels is [[8]]"),
        ({"format": 1, "pose_guider": {"channels": 8}}, "channels: "),
        ({"format": 1, "pose_guider": {"in_channels": [3]}}, "in_channels: "),
        ({"format": 1, "pose_guider": {"in_channels": 0}}, "pose_guider.in_channels is 0"),
        ({"format": 1, "pose_guider": {"in_channels": -3}}, "pose_guider.in_channels is -3"),
        ({"format": 1, "pose_guider": {"in_channels": 3.0}}, "pose_guider.in_channels is 3.0"),
        ({"format": 1, "pose_guider": {"in_channels": True}}, "pose_guider.in_channels is True"),
        ({"format": 1, "pose_guider": {"in_channels": None}}, "pose_guider.in_channels is None"),
        ({"format": 1, "pose_guider": {"in_channels": 10**12}}, "from 1 to 4096"),
        ({"format": 1, "pose_guider": {"in_channels": float("nan")}}, "pose_guider.in_channels is nan"),
        ({"format": 1, "pose_guider": {"out_channels": 64}}, "pose guider's out_channels is not"),
        ({"format": 1, "motion_encoder": {"token_width": 32}}, "token_width is not the denoising UNet's"),
        ({"format": 1, "motion_encoder": {"norm_groups": 7}}, "7 groups"),
        ({"format": 1, "motion_extractor": {"bins": 10**9}}, "motion_extractor.bins"),
        ({"format": 1, "motion_extractor": {"depths": [10**6, 1, 1, 1]}}, "from 1 to 64"),
        ({"format": 1, "reference_unet": {"layers_per_block": 1000}}, "from 1 to 8"),
        ({"format": 1, "reference_unet": {"cross_attention_width": 64}}, "differ in cross_attention_width"),
        ({"format": 1, "denoising_unet": {"max_frames": 10**6}}, "from 1 to 128"),
        ({"format": 1, "denoising_unet": {"heads": 7}}, "7 heads"),
    ],
    ids=range(38),
)
def test_what_is_wrong_is_named(tmp_path: Path, content: object, said: str) -> None:
    assert said in said_of(tmp_path, content)


def test_a_file_that_is_no_text(tmp_path: Path) -> None:
    (tmp_path / MODEL_CONFIG).write_bytes(b"\xff\xfe\x00")
    with pytest.raises(WeightsError, match=r"model\.json is not JSON"):
        read_model_config(tmp_path)
    with pytest.raises(WeightsError, match="cannot be read"):
        read_json_object(tmp_path)


@pytest.mark.skipif(IS_ROOT, reason="root may read everything")
def test_a_file_that_may_not_be_read(tmp_path: Path) -> None:
    (tmp_path / MODEL_CONFIG).touch(mode=0o000)
    with pytest.raises(WeightsError, match=r"model\.json cannot be read"):
        read_model_config(tmp_path)


def test_networks_that_do_not_fit_together_cannot_be_described() -> None:
    with pytest.raises(ValueError, match="differ in block_out_channels"):
        ModelConfig(
            reference_unet=UNetParams(block_out_channels=(32, 64)),
            denoising_unet=DenoisingUNetParams(block_out_channels=(32, 32)),
        )


RELEASED: dict[str, dict[str, Any]] = {
    name: section for name, section in json.loads(json.dumps(asdict(ModelConfig()))).items() if name in OWN
}
NUMBERS = st.integers(-2, 70) | st.sampled_from([128, 4096, 4097, 10**6, 2**31, 2**63, 10**30]) | st.floats()
VALUES = (
    NUMBERS
    | st.none()
    | st.booleans()
    | st.text(max_size=3)
    | st.lists(NUMBERS, max_size=8)
    | st.just({"a": 1})
)
ANYTHING = st.recursive(
    VALUES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
)


def section(released: dict[str, Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Some of a network's sizes, each its released one or any other value."""
    return st.fixed_dictionaries(
        {}, optional={name: st.just(size) | VALUES for name, size in released.items()}
    )


@fuzzers
def test_arbitrary_sizes_are_built_or_named(tmp_path: Path, examples: int) -> None:
    sections = st.fixed_dictionaries(
        {"format": st.just(1)}, optional={name: section(sizes) for name, sizes in RELEASED.items()}
    )

    def check(content: object) -> None:
        (tmp_path / MODEL_CONFIG).write_text(json.dumps(content))
        try:
            sizes = read_model_config(tmp_path)
            for network in NETWORKS:
                if network.name in OWN and getattr(sizes, network.name) != getattr(
                    ModelConfig(), network.name
                ):
                    network.build(tmp_path, sizes)
        except WeightsError as error:
            assert MODEL_CONFIG in str(error)  # noqa: PT017 - both outcomes are right

    fuzz(examples, check, sections | ANYTHING)


@fuzzers
def test_one_wrong_size_in_a_sound_file_is_built_or_named(tmp_path: Path, examples: int) -> None:
    write_model_config(tmp_path, VARIANTS["small"].sizes)
    small = read_json_object(tmp_path / MODEL_CONFIG)
    places = [(name, size) for name in sorted(OWN) for size in small[name]]

    def check(place: tuple[str, str], value: object) -> None:
        name, size = place
        content = {**small, name: {**small[name], size: value}}
        (tmp_path / MODEL_CONFIG).write_text(json.dumps(content))
        try:
            sizes = read_model_config(tmp_path)
            next(network for network in NETWORKS if network.name == name).build(tmp_path, sizes)
        except WeightsError as error:
            assert MODEL_CONFIG in str(error)  # noqa: PT017 - both outcomes are right

    fuzz(examples, check, st.sampled_from(places), VALUES)
