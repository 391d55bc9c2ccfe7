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

from personalive.paths import cache_folder, expanded

SIZES = "model.json"
FOLDER = "pretrained_weights"
INDEX = ".index.json"
"""What the name of a list ends with that stands for weights in several files."""
_INDEXED = (".safetensors", ".bin")


@dataclass(frozen=True, slots=True)
class Repository:
    """A repository on the hub at the revision this version was written against."""

    name: str
    revision: str


@dataclass(frozen=True, slots=True)
class Known:
    """Size in bytes and SHA-256 of a published file."""

    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class PublishedFile:
    """One file of a set and its source.

    `folder` is relative to the set's own folder. `remote` lists the paths it may have in its repository, the
    preferred one first; on disk it keeps that path's last part. `optional` files are fetched only when asked
    for, and a set is complete without them; it may be without `fallback` ones too, which are fetched where the
    others leave entries open.
    """

    folder: PurePosixPath
    repository: Repository
    remote: tuple[str, ...]
    optional: bool = False
    fallback: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        """The names the file may have in its folder, the preferred one first."""
        return tuple(PurePosixPath(path).name for path in self.remote)

    def known(self, name: str) -> Known | None:
        """What is known of the published file of that name, at the revision that is wanted."""
        remote = next((path for path in self.remote if PurePosixPath(path).name == name), None)
        return None if remote is None else KNOWN.get((self.repository, remote))

    def find(self, root: Path) -> Path | None:
        """The file in the set at `root`, under the first of its names that is there; None when missing.

        Weights in several files are found by their index.
        """
        indexed = (each for name in self.names for each in _with_index(name))
        paths = (root / self.folder / name for name in indexed)
        return next((path for path in paths if path.is_file()), None)


def _with_index(name: str) -> tuple[str, ...]:
    return (name, f"{name}{INDEX}") if name.endswith(_INDEXED) else (name,)


_PERSONALIVE = Repository("huaichang/PersonaLive", "b247581c0361b8bee0aa7232eea6e3fdd6e38e60")
_VARIATIONS = Repository("lambda/sd-image-variations-diffusers", "42bc0ee1726b141d49f519a6ea02ccfbf073db2e")
_VAE = Repository("stabilityai/sd-vae-ft-mse", "31f26fdeee1355a5c34592e401dd41e45d25a493")
_TINY_VAE = Repository("madebyollin/taesd", "614f76814bbe30edbe2e627ace1c2234c81a2c0e")


def _own(name: str) -> PublishedFile:
    stem = f"pretrained_weights/personalive/{name}"
    return PublishedFile(PurePosixPath("personalive"), _PERSONALIVE, (f"{stem}.safetensors", f"{stem}.pth"))


def _library(
    repository: Repository,
    folder: str,
    inside: str,
    names: tuple[str, ...],
    *,
    optional: bool = False,
    fallback: bool = False,
) -> tuple[PublishedFile, PublishedFile]:
    """The weights and the config.json of a network that a library defines."""
    local, remote = PurePosixPath(folder, inside), PurePosixPath(inside)
    return (
        PublishedFile(local, repository, tuple(str(remote / name) for name in names), optional, fallback),
        PublishedFile(local, repository, (str(remote / "config.json"),), optional, fallback),
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
BASE_UNET, BASE_UNET_CONFIG = _library(
    _VARIATIONS, "sd-image-variations-diffusers", "unet", _DIFFUSERS, fallback=True
)
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

KNOWN = {
    (_VARIATIONS, "unet/diffusion_pytorch_model.bin"): Known(
        3_438_354_725, "ee23e3368e4e7c0e4ef636ed61923609c97fcaa583f8bb416e3e0986d4a0cfc6"
    ),
    (_VARIATIONS, "image_encoder/pytorch_model.bin"): Known(
        1_215_993_967, "89d2aa29b5fdf64f3ad4f45fb4227ea98bc45156bbae673b85be1af7783dbabb"
    ),
    (_VAE, "diffusion_pytorch_model.safetensors"): Known(
        334_643_276, "a1d993488569e928462932c8c38a0760b874d166399b14414135bd9c42df5815"
    ),
    (_VAE, "diffusion_pytorch_model.bin"): Known(
        334_707_217, "1b4889b6b1d4ce7ae320a02dedaeff1780ad77d415ea0d744b476155c6377ddc"
    ),
    (_TINY_VAE, "diffusion_pytorch_model.safetensors"): Known(
        9_793_292, "db169d69145ec4ff064e49d99c95fa05d3eb04ee453de35824a6d0f325513549"
    ),
}
"""What published files are, whoever says otherwise: a mirror, or a copy on this machine."""

LICENCES = (
    "The weights have licences of their own: PersonaLive's were trained from X-NeMo's, which are CC BY-NC 4.0, for "
    "academic use only; image variations (CLIP, base UNet): CreativeML OpenRAIL-M; VAE, TAESD and LivePortrait's "
    "motion extractor: MIT. This code: Apache-2.0."
)


def default_root() -> Path:
    """The set that is used when none is named."""
    return cache_folder() / FOLDER


def resolve(directory: Path) -> Path:
    """The set's own folder, given it or the folder around it (a checkout of the research code, say)."""
    inner = directory / FOLDER
    return inner if inner.is_dir() and not (directory / "personalive").is_dir() else directory


def root_of(directory: Path | None) -> Path:
    """The folder of the set that is named, or of the one that is used when none is."""
    return resolve(expanded(directory)) if directory else default_root()
