"""Against a hub on this machine: from nothing to a complete set, and on from wherever it stopped."""

from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from personalive.errors import (
    CorruptDownloadError,
    DownloadError,
    InputError,
    OfflineError,
    PipelineUnavailableError,
)
from personalive.installation import install_command
from personalive.pipelines.diffusion.checkpoints import layout
from personalive.pipelines.diffusion.checkpoints.download.downloader import download_weights, plan_download
from personalive.pipelines.diffusion.checkpoints.download.hub import HubClient, RepositoryListing
from personalive.pipelines.diffusion.checkpoints.download.retry import RetryPolicy
from personalive.pipelines.diffusion.checkpoints.download.verified_files import VERIFIED_FILES
from personalive.pipelines.diffusion.checkpoints.loader import build_components, prepare_networks
from personalive.pipelines.diffusion.checkpoints.random_weights import write_random_weights
from tests.pipelines.diffusion.checkpoints.download.hub_server import (
    COMMIT,
    HubServer,
    Watcher,
    assert_complete,
    files,
)
from tests.pipelines.diffusion.checkpoints.sets import edit

REQUIRED = [file for file in layout.FILES if not file.optional and not file.fallback]
REPOSITORIES = {file.repository.name for file in REQUIRED}
PTH = "personalive/pose_guider.pth"
FIRST = "personalive/reference_unet.pth"


def test_from_nothing_to_a_complete_set(
    hub: HubServer, root: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    outcome = download_weights(root)
    assert_complete(root, hub)
    assert set(outcome.fetched) == files(root)
    assert len(outcome.fetched) == len(REQUIRED)
    assert (outcome.kept, outcome.asked, outcome.checked) == ((), True, True)
    assert outcome.size == sum((root / name).stat().st_size for name in outcome.fetched)
    assert len(hub.of("api")) == len(REPOSITORIES)
    assert len(hub.of("resolve")) == len(REQUIRED)
    assert hub.of("other") == []
    assert capfd.readouterr() == ("", "")


def test_the_preferred_kind_is_fetched_and_another_where_there_is_none(hub: HubServer, root: Path) -> None:
    download_weights(root)
    assert {PTH, "sd-vae-ft-mse/diffusion_pytorch_model.safetensors"} <= files(root)
    assert "sd-vae-ft-mse/diffusion_pytorch_model.bin" not in files(root)
    assert hub.of("resolve", "diffusion_pytorch_model.bin") == []


def test_the_second_run_asks_nobody(hub: HubServer, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = download_weights(root)
    hub.requests.clear()
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    second = download_weights(root)
    assert hub.requests == []
    assert (second.kept, second.fetched, second.asked) == (first.fetched, (), False)
    assert second.checked


def test_the_tiny_autoencoder_comes_when_asked_for(hub: HubServer, root: Path) -> None:
    download_weights(root)
    hub.requests.clear()
    outcome = download_weights(root, tiny=True)
    assert outcome.fetched == ("taesd/diffusion_pytorch_model.safetensors", "taesd/config.json")
    assert_complete(root, hub, tiny=True)
    assert len(hub.of("api")) == 1


def test_it_goes_where_weights_are_looked_for(
    hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PERSONALIVE_HOME", str(tmp_path / "home"))
    assert download_weights().root == tmp_path / "home" / "pretrained_weights"
    assert_complete(layout.default_weights_dir(), hub)


def test_whole_files_without_a_receipt_are_kept_and_others_replaced(hub: HubServer, root: Path) -> None:
    download_weights(root)
    (root / VERIFIED_FILES).unlink()
    config = root / "sd-vae-ft-mse" / "config.json"
    config.write_bytes(config.read_bytes().replace(b"made", b"fake"))
    weights = root / PTH
    weights.write_bytes(weights.read_bytes()[:-1])
    hub.requests.clear()
    watcher = Watcher()
    assert set(download_weights(root, progress=watcher).fetched) == {PTH, "sd-vae-ft-mse/config.json"}
    assert_complete(root, hub)
    assert len(hub.of("resolve")) == 2
    assert any(f"{weights} is not the published file" in note for note in watcher.notes)
    hub.requests.clear()
    assert not download_weights(root).asked


def test_a_touched_file_is_hashed_again_and_kept(hub: HubServer, root: Path) -> None:
    download_weights(root)
    (root / PTH).touch()
    hub.requests.clear()
    outcome = download_weights(root)
    assert (outcome.fetched, outcome.asked) == ((), True)
    assert {request.kind for request in hub.requests} == {"api"}
    assert not download_weights(root).asked


@pytest.mark.parametrize("text", ["", "[]", "{", '{"a": 1}', '{"a": {"size": 1}}', "\x00"])
def test_a_damaged_receipt_knows_nothing(hub: HubServer, root: Path, text: str) -> None:
    download_weights(root)
    (root / VERIFIED_FILES).write_text(text)
    assert download_weights(root).fetched == ()
    assert json.loads((root / VERIFIED_FILES).read_text())[PTH]["commit"] == COMMIT
    assert hub.of("other") == []


def test_a_conversion_of_ones_own_is_kept(hub: HubServer, root: Path) -> None:
    """Loaders prefer it to the published .pth, so that fetching that would be no use."""
    own = root / "personalive" / "pose_guider.safetensors"
    own.parent.mkdir(parents=True)
    own.write_bytes(b"mine")
    outcome = download_weights(root)
    assert outcome.kept == ("personalive/pose_guider.safetensors",)
    assert own.read_bytes() == b"mine"
    assert PTH not in files(root)
    assert hub.of("resolve", "pretrained_weights/" + PTH) == []
    assert not download_weights(root).asked


def test_another_revision(hub: HubServer, root: Path) -> None:
    hub.revisions = {"main"}
    revisions = dict.fromkeys(REPOSITORIES, "main")
    download_weights(root, revisions=revisions)
    assert all("/revision/main?" in request.path for request in hub.of("api"))
    assert not download_weights(root, revisions=revisions).asked
    hub.revisions = {file.repository.revision for file in REQUIRED}
    assert download_weights(root).asked  # what was fetched is not known to be that of the pinned revision
    with pytest.raises(InputError, match=r"No weights come from 'some/one'; they come from .*PersonaLive"):
        download_weights(root, revisions={"some/one": "main"})


def test_progress_counts_every_byte_once(hub: HubServer, root: Path, patience: RetryPolicy) -> None:
    hub.cut_after, hub.cuts = 50_000, 4
    watcher = Watcher()
    outcome = download_weights(root, progress=watcher, retry=patience)
    last = watcher.steps[-1]
    assert last.all_done == last.all_size == outcome.size
    counts = [step.all_done for step in watcher.steps]
    assert counts == sorted(counts)
    assert all(step.done <= step.size for step in watcher.steps)
    assert {step.stage for step in watcher.steps} == {"fetching", "checking"}
    assert watcher.notes[0] == layout.LICENCES
    assert watcher.notes[1].startswith(f"fetching {len(REQUIRED)} files into {root}: 1.")
    assert " (150.0 kB more if they leave entries to the base UNet); " in watcher.notes[1]
    assert "trying again in 1 s" in watcher.notes[2]


def test_a_preview_writes_nothing(hub: HubServer, root: Path) -> None:
    plan = plan_download(root, tiny=True)
    assert [item.file for item in plan.items] == [file for file in layout.FILES if not file.fallback]
    assert plan.later == 150_000
    assert plan.size == sum(len(hub.content(item.name)) for item in plan.items)
    assert (plan.kept, plan.staged) == ((), 0)
    assert not root.exists()
    assert hub.of("resolve") == []
    download_weights(root)
    (root / VERIFIED_FILES).unlink()
    before = files(root)
    assert plan_download(root).items == ()
    assert files(root) == before
    assert not (root / VERIFIED_FILES).exists()


def test_a_complete_set_is_previewed_without_the_hub(hub: HubServer, root: Path) -> None:
    download_weights(root)
    hub.requests.clear()
    assert len(plan_download(root).kept) == len(REQUIRED)
    assert hub.requests == []


@pytest.mark.parametrize("offline", ["variable", "unreachable"])
def test_without_the_hub_it_says_what_to_copy_where(
    hub: HubServer, root: Path, monkeypatch: pytest.MonkeyPatch, patience: RetryPolicy, offline: str
) -> None:
    download_weights(root)
    hub.requests.clear()
    (root / PTH).unlink()
    (root / "sd-vae-ft-mse" / "config.json").unlink()
    (root / FIRST).touch()
    if offline == "variable":
        monkeypatch.setenv("HF_HUB_OFFLINE", "yes")
    else:
        monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    for act in (download_weights, plan_download):
        with pytest.raises(OfflineError) as caught:
            act(root, retry=patience)
        message = str(caught.value)
        assert (
            f"into {root}/personalive: pretrained_weights/personalive/pose_guider.safetensors or " in message
        )
        assert "from stabilityai/sd-vae-ft-mse (revision 31f26" in message
        assert f"into {root}/sd-vae-ft-mse: config.json" in message
        assert "reference_unet" not in message
        assert "--from FOLDER" in message
    assert hub.requests == []


def test_unchecked_files_will_do_without_the_hub(
    hub: HubServer, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    download_weights(root)
    (root / VERIFIED_FILES).unlink()
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    watcher = Watcher()
    outcome = download_weights(root, progress=watcher)
    assert (len(outcome.kept), outcome.asked, outcome.checked) == (len(REQUIRED), False, False)
    assert "HF_HUB_OFFLINE is set" in watcher.notes[0]
    plan = plan_download(root)
    assert (plan.kept, plan.items) == (outcome.kept, ())
    assert len(hub.of("resolve")) == len(REQUIRED)


def test_the_token_goes_to_the_hub_and_nowhere_else(
    hub: HubServer, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    download_weights(root)
    sent = {
        kind: {r.headers.get("authorization") for r in hub.of(kind)} for kind in ("api", "resolve", "cdn")
    }
    assert sent == {"api": {"Bearer hf_secret"}, "resolve": {"Bearer hf_secret"}, "cdn": {None}}


def test_it_tells_nothing_of_this_machine(hub: HubServer, root: Path) -> None:
    download_weights(root)
    for request in hub.requests:
        assert request.headers["user-agent"].startswith("personalive/")
        assert "torch" not in request.headers["user-agent"]


@pytest.mark.parametrize(
    "address",
    ["mirror.example", "ftp://mirror.example", "https://", "http://[bad", "http://a:99999", "http://a b"],
)
def test_an_address_that_is_none(root: Path, monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    monkeypatch.setenv("HF_ENDPOINT", address)
    with pytest.raises(InputError, match="HF_ENDPOINT must be an address such as https://"):
        download_weights(root)
    assert not root.exists()


@pytest.mark.parametrize(
    "address", ["http://user:s3cret@127.0.0.1:9", "http://user:s3/c@ret@a:x", "user:s3cret@mirror.example"]
)
def test_a_password_in_the_address_is_never_shown(
    root: Path, monkeypatch: pytest.MonkeyPatch, patience: RetryPolicy, address: str
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", address)
    watcher = Watcher()
    with pytest.raises((InputError, OfflineError)) as caught:
        download_weights(root, retry=patience, progress=watcher)
    for said in (str(caught.value), *watcher.notes):
        assert not any(secret in said for secret in ("user:", "s3", "@"))


def test_a_password_in_the_address_is_used(
    hub: HubServer, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", hub.address.replace("//", "//user:s3cret@"))
    download_weights(root)
    assert_complete(root, hub)


def test_a_converted_denoising_unet_is_left_without_what_it_holds(hub: HubServer, root: Path) -> None:
    """The released temporal module would be laid over it."""
    own = root / "personalive" / "denoising_unet.safetensors"
    own.parent.mkdir(parents=True)
    names = ("conv_in.weight", "down_blocks.0.temporal_modules.0.norm.weight")
    save_file({name: torch.zeros(1) for name in names}, own)
    assert len(plan_download(root).items) == len(REQUIRED) - 2
    assert len(download_weights(root).fetched) == len(REQUIRED) - 2
    assert "personalive/temporal_module.pth" not in files(root)
    assert not download_weights(root).asked
    save_file({names[0]: torch.zeros(1)}, own)
    assert download_weights(root).fetched == ("personalive/temporal_module.pth",)


def test_a_file_that_changes_while_the_hub_is_asked(
    hub: HubServer, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    download_weights(root)
    (root / PTH).touch()
    ask = HubClient.list_files

    def change(*arguments: Any) -> RepositoryListing:
        (root / "sd-vae-ft-mse" / "config.json").touch()
        return ask(*arguments)

    monkeypatch.setattr(HubClient, "list_files", change)
    with pytest.raises(DownloadError, match=r"config.json was changed meanwhile: run the same command again"):
        download_weights(root)


@pytest.mark.usefixtures("hub")
def test_without_the_libraries_it_names_the_command(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    match = re.escape(f"huggingface_hub: run {install_command('diffusion')}")
    with pytest.raises(PipelineUnavailableError, match=match):
        download_weights(root)


def test_a_mirror_that_lists_names_alone_is_asked_for_each_file(hub: HubServer, root: Path) -> None:
    hub.lists_names_only = True
    outcome = download_weights(root)
    assert_complete(root, hub)
    assert len(outcome.fetched) == len(REQUIRED)


def publish(hub: HubServer, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the hub have a set that can be loaded, and a base UNet with all that a UNet has."""
    hub.repositories = {}
    for file in layout.FILES:
        path = file.find_in(root)
        if path is not None:
            remote = next(name for name in file.remote if name.endswith(path.name))
            hub.repositories.setdefault(file.repository.name, {})[remote] = path.read_bytes()
    base = hub.repositories["lambda/sd-image-variations-diffusers"]
    base["unet/config.json"] = b"{}"
    base["unet/diffusion_pytorch_model.bin"] = (root / "personalive/reference_unet.pth").read_bytes()
    hub.make_known(monkeypatch)


@pytest.mark.slow
def test_what_was_downloaded_can_be_loaded(
    hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A set of small random weights, published, fetched from an empty cache, and loaded."""
    published, root = write_random_weights(tmp_path / "published"), tmp_path / "cache"
    publish(hub, published, monkeypatch)
    root.mkdir()
    shutil.copy(published / layout.MODEL_CONFIG, root)  # the released sizes need none
    download_weights(root, tiny=True)
    assert_complete(root, hub, tiny=True)
    fetched, original = (
        build_components(prepare_networks(root)),
        build_components(prepare_networks(published)),
    )
    for name, network in original.networks().items():
        stored = network.state_dict()
        for key, value in fetched.networks()[name].state_dict().items():
            assert torch.equal(value, stored[key]), f"{name}: {key}"


@pytest.mark.slow
def test_the_base_is_fetched_where_the_others_leave_entries_open(
    hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    published, root = write_random_weights(tmp_path / "published"), tmp_path / "cache"
    edit(published, layout.DENOISING_UNET, lambda entries: entries.pop("mid_block.resnets.0.conv1.bias"))
    publish(hub, published, monkeypatch)
    root.mkdir()
    shutil.copy(published / layout.MODEL_CONFIG, root)
    watcher = Watcher()
    outcome = download_weights(root, progress=watcher)
    assert_complete(root, hub, base=True)
    assert set(outcome.fetched) == files(root) - {layout.MODEL_CONFIG}
    assert (len(outcome.fetched), outcome.kept) == (len(REQUIRED) + 2, ())
    assert outcome.size == sum((root / name).stat().st_size for name in outcome.fetched)
    assert watcher.notes.count(layout.LICENCES) == 1
    assert "the denoising UNet leaves entries to the base UNet, so that is fetched too" in watcher.notes
    build_components(prepare_networks(root))
    assert not download_weights(root).asked
    (root / "sd-image-variations-diffusers/unet/diffusion_pytorch_model.bin").unlink()
    assert [item.name for item in plan_download(root).items] == [
        "sd-image-variations-diffusers/unet/diffusion_pytorch_model.bin"
    ]
    download_weights(root)
    assert_complete(root, hub, base=True)


def test_whether_a_base_is_needed_is_found_out_once(
    hub: HubServer, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    download_weights(root)
    monkeypatch.setitem(sys.modules, "personalive.pipelines.diffusion.checkpoints.loader", None)
    assert not download_weights(root).asked
    (root / "personalive" / "denoising_unet.pth").touch()
    download_weights(root)  # without the loader nobody can tell
    assert_complete(root, hub, base=True)


def test_a_base_that_is_there_is_kept(hub: HubServer, root: Path) -> None:
    unet = root / "sd-image-variations-diffusers" / "unet" / "diffusion_pytorch_model.safetensors"
    unet.parent.mkdir(parents=True)
    unet.write_bytes(hub.content("sd-image-variations-diffusers/unet/diffusion_pytorch_model.safetensors"))
    assert plan_download(root).later == 0
    download_weights(root)
    assert_complete(root, hub, base=True)


def test_without_a_base_the_rest_is_12_1_gigabytes_and_it_3_4() -> None:
    assert layout.BASE_UNET.fallback
    assert layout.BASE_UNET_CONFIG.fallback
    known = layout.BASE_UNET.known_digest("diffusion_pytorch_model.bin")
    assert known is not None
    assert 3.4e9 < known.size < 3.5e9


@pytest.mark.parametrize("lists_names_only", [False, True])
def test_a_mirror_that_has_another_file_is_found_out(
    hub: HubServer, root: Path, lists_names_only: bool
) -> None:
    path = "image_encoder/pytorch_model.bin"
    mine = hub.repositories["lambda/sd-image-variations-diffusers"]
    mine.pop("image_encoder/model.safetensors")
    mine[path] = mine[path][::-1]
    hub.lists_names_only = lists_names_only
    if lists_names_only:  # it is found out when the file has come
        with pytest.raises(CorruptDownloadError, match=r"pytorch_model\.bin arrived damaged twice"):
            download_weights(root)
        return
    match = f"has another {path} of lambda/sd-image-variations-diffusers than the one that is published at "
    with pytest.raises(DownloadError, match=match):
        download_weights(root)
    hub.revisions.add("main")
    download_weights(root, revisions={"lambda/sd-image-variations-diffusers": "main"})
    assert_complete(root, hub)


def test_a_known_file_needs_no_hash_of_a_mirror(hub: HubServer, root: Path) -> None:
    hub.lists_names_only = True
    download_weights(root)
    heads = {request.path for request in hub.of("resolve") if request.method == "HEAD"}
    assert "vae" not in heads
    assert "image_encoder/pytorch_model.bin" not in heads
    assert "pretrained_weights/" + PTH in heads
