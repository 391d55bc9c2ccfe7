"""Which files make up a set of weights, where they lie on disk, and where they are published.

A set is a folder laid out like the research code's `pretrained_weights/`:

    personalive/                     reference_unet, denoising_unet, temporal_module,
                                     motion_encoder, motion_extractor, pose_guider (.safetensors or .pth)
    sd-image-variations-diffusers/   image_encoder/ and unet/, each with its config.json
    sd-vae-ft-mse/                   the autoencoder and its config.json
    taesd/                           optional: the tiny autoencoder and its config.json
    model.json                       optional: the networks' sizes, where they are not the released ones

Where a weights file lies there twice, the safetensors one is taken: it holds no code.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from personalive.folders import cache_folder, expanded

SIZES = "model.json"
FOLDER = "pretrained_weights"


@dataclass(frozen=True, slots=True)
class Repository:
    """A repository on the hub at the revision this version was written against."""

    name: str
    revision: str


@dataclass(frozen=True, slots=True)
class PublishedFile:
    """One file of a set and its source.

    `folder` is relative to the set's own folder. `remote` lists the paths it may have in its repository, the
    preferred one first; on disk it keeps that path's last part. `optional` files are fetched only when asked
    for, and a set is complete without them.
    """

    folder: PurePosixPath
    repository: Repository
    remote: tuple[str, ...]
    optional: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        """The names the file may have in its folder, the preferred one first."""
        return tuple(PurePosixPath(path).name for path in self.remote)

    def find(self, root: Path) -> Path | None:
        """The file in the set at `root`, under the first of its names that is there; None when missing."""
        paths = (root / self.folder / name for name in self.names)
        return next((path for path in paths if path.is_file()), None)


_PERSONALIVE = Repository("huaichang/PersonaLive", "b247581c0361b8bee0aa7232eea6e3fdd6e38e60")
_VARIATIONS = Repository("lambdalabs/sd-image-variations-diffusers", "v2.0")
_VAE = Repository("stabilityai/sd-vae-ft-mse", "31f26fdeee1355a5c34592e401dd41e45d25a493")
_TINY_VAE = Repository("madebyollin/taesd", "614f76814bbe30edbe2e627ace1c2234c81a2c0e")


def _own(name: str) -> PublishedFile:
    stem = f"pretrained_weights/personalive/{name}"
    return PublishedFile(PurePosixPath("personalive"), _PERSONALIVE, (f"{stem}.safetensors", f"{stem}.pth"))


def _library(
    repository: Repository, folder: str, inside: str, names: tuple[str, ...], *, optional: bool = False
) -> tuple[PublishedFile, PublishedFile]:
    """The weights and the config.json of a network that a library defines."""
    local, remote = PurePosixPath(folder, inside), PurePosixPath(inside)
    return (
        PublishedFile(local, repository, tuple(str(remote / name) for name in names), optional),
        PublishedFile(local, repository, (str(remote / "config.json"),), optional),
    )


_DIFFUSERS = ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin")
_TRANSFORMERS = ("model.safetensors", "pytorch_model.bin")

REFERENCE_UNET = _own("reference_unet")
DENOISING_UNET = _own("denoising_unet")
TEMPORAL_MODULE = _own("temporal_module")
MOTION_ENCODER = _own("motion_encoder")
MOTION_EXTRACTOR = _own("motion_extractor")
POSE_GUIDER = _own("pose_guider")
IMAGE_ENCODER, IMAGE_ENCODER_CONFIG = _library(
    _VARIATIONS, "sd-image-variations-diffusers", "image_encoder", _TRANSFORMERS
)
BASE_UNET, BASE_UNET_CONFIG = _library(_VARIATIONS, "sd-image-variations-diffusers", "unet", _DIFFUSERS)
VAE, VAE_CONFIG = _library(_VAE, "sd-vae-ft-mse", "", _DIFFUSERS)
TINY_VAE, TINY_VAE_CONFIG = _library(_TINY_VAE, "taesd", "", _DIFFUSERS, optional=True)

FILES = (
    REFERENCE_UNET,
    DENOISING_UNET,
    TEMPORAL_MODULE,
    MOTION_ENCODER,
    MOTION_EXTRACTOR,
    POSE_GUIDER,
    IMAGE_ENCODER,
    IMAGE_ENCODER_CONFIG,
    BASE_UNET,
    BASE_UNET_CONFIG,
    VAE,
    VAE_CONFIG,
    TINY_VAE,
    TINY_VAE_CONFIG,
)
"""Every file of a set, in the order they are fetched."""


def home() -> Path:
    """The folder that holds what PersonaLive downloads; see `cache_folder`."""
    return cache_folder()


def default_root() -> Path:
    """The set that is used when none is named."""
    return home() / FOLDER


def resolve(directory: Path) -> Path:
    """The set's own folder, given it or the folder around it (a checkout of the research code, say)."""
    inner = directory / FOLDER
    return inner if inner.is_dir() and not (directory / "personalive").is_dir() else directory


def root_of(directory: Path | None) -> Path:
    """The folder of the set that is named, or of the one that is used when none is."""
    return resolve(expanded(directory)) if directory else default_root()
