from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from personalive.errors import MissingWeightsError, WeightsError
from personalive.pipelines.diffusion.checkpoints import layout
from personalive.pipelines.diffusion.checkpoints.checkpoint_file import CheckpointFile
from personalive.pipelines.diffusion.checkpoints.layout import PublishedFile
from personalive.pipelines.diffusion.checkpoints.loader import (
    PreparedNetwork,
    build_components,
    fill_networks,
    needs_base_unet,
    prepare_networks,
)
from personalive.pipelines.diffusion.checkpoints.model_config import read_model_config
from personalive.pipelines.diffusion.checkpoints.network_specs import NETWORKS, TINY_VAE
from personalive.pipelines.diffusion.checkpoints.state_dict import plan_loading
from tests.pipelines.diffusion.checkpoints.forged import CPU
from tests.pipelines.diffusion.checkpoints.sets import as_kept, edit, replaced, split_up, stored

NAMED = {network.name: network for network in (*NETWORKS, TINY_VAE)}
ENTRY = "down_blocks.0.resnets.0.conv1.bias"


def prepared(root: Path, name: str) -> PreparedNetwork:
    """One network of a set, planned."""
    network = NAMED[name]
    module = network.build(root, read_model_config(root))
    files = [CheckpointFile.open(path) for path in network.find_files(root)]
    made = plan_loading(name, module, files, rename=network.rename, ignored_prefixes=network.ignored_prefixes)
    return PreparedNetwork(network, module, made, made.notes)


def loaded(root: Path, name: str, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    """The state of one network of a set."""
    made = prepared(root, name)
    (network,) = fill_networks([made], CPU, dtype, None)
    state: dict[str, Tensor] = network.module.state_dict()
    return state


def refusal(root: Path, name: str, dtype: torch.dtype = torch.float32) -> str:
    with pytest.raises(WeightsError) as caught:
        loaded(root, name, dtype)
    return str(caught.value)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_every_number_of_a_set_is_in_its_network(small_set: Path, dtype: torch.dtype) -> None:
    told: list[tuple[str, int, int]] = []
    models = build_components(
        prepare_networks(small_set), dtype=dtype, progress=lambda *report: told.append(report)
    )
    networks = models.networks()
    assert networks.keys() == NAMED.keys()
    assert (models.device, models.dtype) == (CPU, dtype)
    for name, network in networks.items():
        state = network.state_dict()
        entries = {
            entry: value
            for path in NAMED[name].find_files(small_set)
            for entry, value in stored(path).items()
        }
        assert {NAMED[name].restore_name(entry) for entry in state} == entries.keys()
        for entry, tensor in state.items():
            expected = as_kept(entries[NAMED[name].restore_name(entry)], name, entry, dtype)
            assert tensor.dtype == expected.dtype
            assert torch.equal(tensor, expected)
        for entry, tensor in (*network.named_parameters(), *network.named_buffers()):
            assert tensor.device == CPU
            assert tensor.dtype == NAMED[name].resolve_dtype(entry, dtype) or not tensor.is_floating_point()
            assert not tensor.requires_grad
        assert not any(module.training for module in network.modules())
    assert models.nbytes == sum(
        value.nbytes for network in networks.values() for value in network.state_dict().values()
    )
    done = [count for _, count, _ in told]
    assert list(dict.fromkeys(name for name, _, _ in told)) == list(NAMED)
    assert done == sorted(set(done))
    assert {total for _, _, total in told} == {done[-1]}


@pytest.mark.slow
def test_the_tiny_autoencoder_may_be_left_out(own_set: Path) -> None:
    (own_set / "taesd" / "diffusion_pytorch_model.bin").unlink()
    models = build_components(prepare_networks(own_set))
    assert models.tiny_vae is None
    assert list(models.networks()) == [network.name for network in NETWORKS]


def test_the_folder_around_a_set_is_accepted(own_set: Path, tmp_path: Path) -> None:
    own_set.rename(tmp_path / "pretrained_weights")
    paths = {source.file.path for made in prepare_networks(tmp_path) for source in made.plan.sources.values()}
    assert {path.relative_to(tmp_path).parts[0] for path in paths} == {"pretrained_weights"}


def test_safetensors_are_preferred(own_set: Path) -> None:
    folder = own_set / "personalive"
    weights = {name: value + 1 for name, value in stored(folder / "pose_guider.pth").items()}
    save_file(weights, folder / "pose_guider.safetensors")
    replaced(folder / "pose_guider.pth", b"damaged, but nobody looks")
    state = loaded(own_set, "pose_guider")
    assert all(torch.equal(state[name], value) for name, value in weights.items())


def base(root: Path, weights: dict[str, Tensor]) -> Path:
    """Put a base UNet into a set."""
    folder = root / layout.BASE_UNET.folder
    folder.mkdir(parents=True)
    torch.save(weights, folder / "diffusion_pytorch_model.bin")
    return folder / "diffusion_pytorch_model.bin"


def test_an_entry_that_only_the_base_has_comes_from_there(own_set: Path) -> None:
    path = edit(own_set, layout.DENOISING_UNET, lambda entries: entries.pop(ENTRY))
    said = refusal(own_set, "denoising_unet")
    assert f"{ENTRY} is missing from {path} or " in said
    assert "temporal_module.pth" in said
    value = torch.rand(32)
    base(own_set, {ENTRY: value})
    assert torch.equal(loaded(own_set, "denoising_unet")[ENTRY], value)


def test_temporal_lies_over_denoising_over_base(own_set: Path) -> None:
    names = [f"mid_block.resnets.{index}.conv{conv}.bias" for index in (0, 1) for conv in (1, 2)]
    base(own_set, {name: torch.full((64,), 1.0) for name in names})

    def change(entries: dict[str, Tensor]) -> None:
        del entries[names[0]]
        entries[names[1]] = torch.full((64,), 2.0)

    edit(own_set, layout.DENOISING_UNET, change)
    over = {name: torch.full((64,), 3.0) for name in names[2:]}
    edit(own_set, layout.TEMPORAL_MODULE, lambda entries: entries.update(over))
    state = loaded(own_set, "denoising_unet")
    assert [state[name].unique().tolist() for name in names] == [[1.0], [2.0], [3.0], [3.0]]


def test_entries_that_belong_nowhere_are_warned_of_and_left_out(own_set: Path) -> None:
    path = base(own_set, {"time_proj.weight": torch.zeros(1)})
    warning = f"{path}: left out, as nothing in the denoising_unet has such a name: time_proj.weight."
    assert build_components(prepare_networks(own_set)).warnings == (warning,)
    with pytest.raises(WeightsError, match=f"{path}: time_proj.weight belongs to no entry of this network"):
        prepare_networks(own_set, strict=True)


def test_position_codes_that_went_through_half_precision_are_warned_of_and_taken(own_set: Path) -> None:
    def once_rounded(entries: dict[str, Tensor]) -> None:
        for name, value in entries.items():
            entries[name] = value.half().float() if name.endswith(".pe") else value

    path = edit(own_set, layout.TEMPORAL_MODULE, once_rounded)
    models = build_components(prepare_networks(own_set))
    (warning,) = models.warnings
    assert warning.startswith(f"{path}: the file's values are taken for ")
    assert " more, off by up to 0.0002 from what the method computes" in warning
    state, kept = models.denoising_unet.state_dict(), stored(path)
    codes = [name for name in state if name.endswith(".pe")]
    assert codes
    assert all(torch.equal(state[name], kept[name]) for name in codes)
    prepare_networks(own_set, strict=True)


@pytest.mark.slow
def test_an_unusual_set_loads_and_says_what_is_unusual(own_set: Path) -> None:
    def wrap(file: PublishedFile, change: Callable[[dict[str, Tensor]], object]) -> Path:
        path = own_set / file.folder / file.names[-1]
        entries = dict(stored(path))
        path.unlink()
        torch.save(change(entries), path)
        return path

    before = build_components(prepare_networks(own_set))
    lightning = wrap(
        layout.POSE_GUIDER, lambda entries: {"state_dict": entries, "epoch": np.float64(3), "optimizer": {}}
    )
    parallel = wrap(
        layout.DENOISING_UNET, lambda entries: {f"module.{name}": value for name, value in entries.items()}
    )
    compiled = wrap(
        layout.MOTION_ENCODER, lambda entries: {f"_orig_mod.{name}": value for name, value in entries.items()}
    )
    counted = wrap(layout.REFERENCE_UNET, lambda entries: {**entries, "step": np.int64(7), "lr": 1e-5})
    after = build_components(prepare_networks(own_set))
    assert after.warnings == (
        f"{counted}: skipped, as they are no tensors: step, lr.",
        f"{parallel}: 'module.' in its entries' names is taken off.",
        f"{compiled}: '_orig_mod.' in its entries' names is taken off.",
        f"{lightning}: the network is taken from 'state_dict' in it.",
    )
    prepare_networks(own_set, strict=True)
    for name, network in before.networks().items():
        state = after.networks()[name].state_dict()
        assert all(torch.equal(state[entry], value) for entry, value in network.state_dict().items())


def test_weights_in_several_files_are_read_by_their_index(own_set: Path) -> None:
    path = own_set / "personalive" / "denoising_unet.pth"
    before = loaded(own_set, "denoising_unet")
    entries = {name: value.clone() for name, value in stored(path).items()}
    path.unlink()
    split_up(path.with_suffix(".safetensors"), entries)
    after = {prepared.spec.name: prepared for prepared in prepare_networks(own_set)}["denoising_unet"]
    files = {source.file.path.name for source in after.plan.sources.values()}
    assert len(files) == 4  # three parts, and the temporal module
    assert after.notes == ()
    state = after.fill(CPU, torch.float32, lambda nbytes: None).module.state_dict()
    assert all(torch.equal(state[name], value) for name, value in before.items())


def test_whether_a_base_is_needed(own_set: Path) -> None:
    assert not needs_base_unet(own_set)
    edit(own_set, layout.DENOISING_UNET, lambda entries: entries.pop(ENTRY))
    assert needs_base_unet(own_set)
    base(own_set, {ENTRY: torch.rand(32)})
    assert not needs_base_unet(own_set)


def test_a_base_is_no_help_for_modules_that_it_has_not(own_set: Path) -> None:
    edit(own_set, layout.TEMPORAL_MODULE, lambda entries: entries.pop(next(iter(entries))))
    assert not needs_base_unet(own_set)
    (own_set / "personalive" / "denoising_unet.pth").unlink()
    (own_set / "personalive" / "temporal_module.pth").unlink()
    with pytest.raises(MissingWeightsError):
        needs_base_unet(own_set)


def test_a_wrong_constant_is_named_with_its_file(own_set: Path) -> None:
    name = next(
        name for name in stored(own_set / "personalive" / "temporal_module.pth") if name.endswith(".pe")
    )
    path = edit(own_set, layout.TEMPORAL_MODULE, lambda entries: entries[name].mul_(1.1))
    assert refusal(own_set, "denoising_unet") == (
        f"{path}: {name} is a constant of the method, but holds other values."
    )


def test_the_motion_extractor_is_forgiven_what_others_are_not(own_set: Path) -> None:
    for file in (layout.MOTION_EXTRACTOR, layout.POSE_GUIDER):
        edit(own_set, file, lambda entries: entries.update({"head.weight": torch.zeros(2)}))
    edit(own_set, layout.MOTION_EXTRACTOR, lambda entries: entries.pop("idx_tensor"))
    state = loaded(own_set, "motion_extractor", torch.float16)
    assert "head.weight" not in state
    assert torch.equal(state["idx_tensor"], torch.arange(66, dtype=torch.float32))
    with pytest.raises(WeightsError, match=r"pose_guider\.pth: head\.weight belongs to no entry"):
        prepare_networks(own_set, strict=True)
    edit(own_set, layout.POSE_GUIDER, lambda entries: entries.pop("head.weight"))
    prepare_networks(own_set, strict=True)


@pytest.mark.parametrize("convolutions", [True, False])
def test_old_names_of_the_autoencoder_are_read(own_set: Path, convolutions: bool) -> None:
    before = loaded(own_set, "vae")

    def age(entries: dict[str, Tensor]) -> None:
        for name in [name for name in entries if ".attentions.0.to_" in name]:
            value = entries.pop(name)
            for new, old in (
                ("to_q", "query"),
                ("to_k", "key"),
                ("to_v", "value"),
                ("to_out.0", "proj_attn"),
            ):
                name = name.replace(f".{new}.", f".{old}.")  # noqa: PLW2901
            entries[name] = value[..., None, None] if convolutions and value.ndim == 2 else value

    edit(own_set, layout.VAE, age)
    after = loaded(own_set, "vae")
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize(
    "file", [layout.POSE_GUIDER, layout.VAE, layout.IMAGE_ENCODER], ids=lambda file: file.names[1]
)
@pytest.mark.parametrize(
    ("value", "said"),
    [
        (float("nan"), "values that are not finite"),
        (float("inf"), "values that are not finite"),
        (1e6, "values too large for torch.float16"),
    ],
)
def test_numbers_that_cannot_be_used_name_file_entry_and_reason(
    own_set: Path, file: PublishedFile, value: float, said: str
) -> None:
    network = next(network for network in NETWORKS if network.converted_file is file)
    names: list[str] = []

    def spoil(entries: dict[str, Tensor]) -> None:
        names.append(list(entries)[-1])
        entries[names[0]].view(-1)[0] = value

    path = edit(own_set, file, spoil)
    assert refusal(own_set, network.name, torch.float16) == f"{path}: {names[0]} holds {said}."


def test_no_set_at_all_says_how_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(
        MissingWeightsError, match=r"nowhere is not there\. Get .* with: personalive download"
    ):
        prepare_networks(tmp_path / "nowhere")
    (tmp_path / "file").touch()
    with pytest.raises(MissingWeightsError, match="file is not there"):
        prepare_networks(tmp_path / "file")
    with pytest.raises(MissingWeightsError, match="There is no reference_unet in"):
        prepare_networks(tmp_path)


def test_a_missing_file_of_several_is_named(own_set: Path) -> None:
    path = own_set / "personalive" / "temporal_module.pth"
    path.unlink()
    with pytest.raises(WeightsError, match=f"{path}.* not there: get .* with: personalive download"):
        prepare_networks(own_set)


@pytest.mark.parametrize("name", ["motion_encoder", "denoising_unet"])
def test_a_folder_in_place_of_a_file_is_no_file(own_set: Path, name: str) -> None:
    for path in NAMED[name].find_files(own_set):
        path.unlink()
        path.mkdir()
    with pytest.raises(MissingWeightsError, match=f"There is no {name} in .*{name}.pth is missing"):
        prepare_networks(own_set)


def test_sizes_that_are_not_those_of_the_files_are_named(own_set: Path) -> None:
    path = own_set / layout.MODEL_CONFIG
    sizes = json.loads(path.read_text())
    sizes["motion_extractor"]["bins"] = 60
    replaced(path, json.dumps(sizes).encode())
    assert "motion_extractor.pth: idx_tensor has shape [66], not [60]" in refusal(own_set, "motion_extractor")
    path.unlink()
    assert (
        "pose_guider.pth: conv_out_modify.weight has shape [32, 256, 3, 3], not [320, 256, 3, 3]"
        in refusal(own_set, "pose_guider")
    )


MEASURE = """
import resource, sys, torch
from dataclasses import replace
from pathlib import Path
from personalive.pipelines.diffusion.networks.denoising_unet import DenoisingUNetParams
from personalive.pipelines.diffusion.networks.unet import UNetParams
from personalive.pipelines.diffusion.networks.pose_guider import PoseGuiderParams
from personalive.pipelines.diffusion.checkpoints import checkpoint_file, random_weights
from personalive.pipelines.diffusion.checkpoints.loader import build_components, prepare_networks

folder, action = Path(sys.argv[1]), sys.argv[2]
if action == "write":
    widths = {"block_out_channels": (64, 128, 256, 256), "cross_attention_width": 256}
    small = random_weights.VARIANTS["small"]
    sizes = replace(
        small.sizes, reference_unet=UNetParams(**widths), denoising_unet=DenoisingUNetParams(**widths),
        pose_guider=PoseGuiderParams(out_channels=64),
    )
    random_weights.VARIANTS["larger"] = replace(small, sizes=sizes)
    random_weights.write_random_weights(folder / "small")
    random_weights.write_random_weights(folder / "larger", variant="larger")
else:
    checkpoint_file._BYTES_PER_MAPPING = 32 << 20
    peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    build_components(prepare_networks(folder / "small"), dtype=torch.float16)
    before = peak()
    models = build_components(prepare_networks(folder / "larger"), dtype=torch.float16)
    print(models.nbytes, peak() - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is counted in other units elsewhere")
def test_memory_stays_near_one_copy_of_the_weights(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", MEASURE, tmp_path, "write"], check=True)
    ran = subprocess.run(
        [sys.executable, "-c", MEASURE, tmp_path, "load"], check=True, stdout=subprocess.PIPE, text=True
    )
    weights, peak = map(int, ran.stdout.split())
    assert weights > 150e6
    assert peak < weights + 128e6
