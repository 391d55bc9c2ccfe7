"""The layout of a set of weights: its files, where they are on disk, and where they are published.

A set is a folder laid out like the research code's `pretrained_weights/`:

    personalive/                     reference_unet, denoising_unet, temporal_module,
                                     motion_encoder, motion_extractor, pose_guider (.safetensors or .pth)
    sd-image-variations-diffusers/   image_encoder/ and unet/, each with its config.json
    sd-vae-ft-mse/                   the autoencoder and its config.json
    taesd/                           optional: the tiny autoencoder and its config.json
    model.json                       optional: the networks' sizes, where they are not the released ones

Where a weights file exists in both formats, the safetensors one is used, since it holds no code.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from personalive.paths import cache_dir, expand_user

MODEL_CONFIG = "model.json"
WEIGHTS_FOLDER = "pretrained_weights"
INDEX_SUFFIX = ".index.json"
"""The suffix of an index, which lists the files of weights that are split into several."""
_SHARDED_SUFFIXES = (".safetensors", ".bin")


@dataclass(frozen=True, slots=True)
class Repository:
    """A repository on the hub, at the revision this version was written for."""

    name: str
    revision: str


@dataclass(frozen=True, slots=True)
class FileDigest:
    """The size in bytes and the SHA-256 of a published file."""

    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class PublishedFile:
    """One file of a set and its source.

    `folder` is relative to the set's folder. `remote` lists the paths it may have in its repository, the
    preferred one first; on disk it keeps that path's last part. `optional` files are fetched only when asked
    for, and a set is complete without them. It may be complete without `fallback` files too, which are fetched
    where the others lack entries.
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

    def known_digest(self, name: str) -> FileDigest | None:
        """Return the known digest of the published file of that name, at this revision; None if unknown."""
        remote = next((path for path in self.remote if PurePosixPath(path).name == name), None)
        return None if remote is None else KNOWN_DIGESTS.get((self.repository, remote))

    def find_in(self, root: Path) -> Path | None:
        """Return the file in the set at `root`, under the first of its names that exists; None when missing.

        Weights in several files are found by their index.
        """
        indexed = (each for name in self.names for each in _index_names(name))
        paths = (root / self.folder / name for name in indexed)
        return next((path for path in paths if path.is_file()), None)


def _index_names(name: str) -> tuple[str, ...]:
    return (name, f"{name}{INDEX_SUFFIX}") if name.endswith(_SHARDED_SUFFIXES) else (name,)


_PERSONALIVE = Repository("huaichang/PersonaLive", "b247581c0361b8bee0aa7232eea6e3fdd6e38e60")
_VARIATIONS = Repository("lambda/sd-image-variations-diffusers", "42bc0ee1726b141d49f519a6ea02ccfbf073db2e")
_VAE = Repository("stabilityai/sd-vae-ft-mse", "31f26fdeee1355a5c34592e401dd41e45d25a493")
_TINY_VAE = Repository("madebyollin/taesd", "614f76814bbe30edbe2e627ace1c2234c81a2c0e")


def _personalive_file(name: str) -> PublishedFile:
    stem = f"pretrained_weights/personalive/{name}"
    return PublishedFile(PurePosixPath("personalive"), _PERSONALIVE, (f"{stem}.safetensors", f"{stem}.pth"))


def _library_files(
    repository: Repository,
    folder: str,
    inside: str,
    names: tuple[str, ...],
    *,
    optional: bool = False,
    fallback: bool = False,
) -> tuple[PublishedFile, PublishedFile]:
    """Return the weights and the config.json of a network that a library defines."""
    local, remote = PurePosixPath(folder, inside), PurePosixPath(inside)
    return (
        PublishedFile(local, repository, tuple(str(remote / name) for name in names), optional, fallback),
        PublishedFile(local, repository, (str(remote / "config.json"),), optional, fallback),
    )


_DIFFUSERS = ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin")
_TRANSFORMERS = ("model.safetensors", "pytorch_model.bin")

REFERENCE_UNET = _personalive_file("reference_unet")
DENOISING_UNET = _personalive_file("denoising_unet")
TEMPORAL_MODULE = _personalive_file("temporal_module")
MOTION_ENCODER = _personalive_file("motion_encoder")
MOTION_EXTRACTOR = _personalive_file("motion_extractor")
POSE_GUIDER = _personalive_file("pose_guider")
IMAGE_ENCODER, IMAGE_ENCODER_CONFIG = _library_files(
    _VARIATIONS, "sd-image-variations-diffusers", "image_encoder", _TRANSFORMERS
)
BASE_UNET, BASE_UNET_CONFIG = _library_files(
    _VARIATIONS, "sd-image-variations-diffusers", "unet", _DIFFUSERS, fallback=True
)
VAE, VAE_CONFIG = _library_files(_VAE, "sd-vae-ft-mse", "", _DIFFUSERS)
TINY_VAE, TINY_VAE_CONFIG = _library_files(_TINY_VAE, "taesd", "", _DIFFUSERS, optional=True)

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
"""Every file of a set, in the order in which they are fetched."""

KNOWN_DIGESTS = {
    (_VARIATIONS, "unet/diffusion_pytorch_model.bin"): FileDigest(
        3_438_354_725, "ee23e3368e4e7c0e4ef636ed61923609c97fcaa583f8bb416e3e0986d4a0cfc6"
    ),
    (_VARIATIONS, "image_encoder/pytorch_model.bin"): FileDigest(
        1_215_993_967, "89d2aa29b5fdf64f3ad4f45fb4227ea98bc45156bbae673b85be1af7783dbabb"
    ),
    (_VAE, "diffusion_pytorch_model.safetensors"): FileDigest(
        334_643_276, "a1d993488569e928462932c8c38a0760b874d166399b14414135bd9c42df5815"
    ),
    (_VAE, "diffusion_pytorch_model.bin"): FileDigest(
        334_707_217, "1b4889b6b1d4ce7ae320a02dedaeff1780ad77d415ea0d744b476155c6377ddc"
    ),
    (_TINY_VAE, "diffusion_pytorch_model.safetensors"): FileDigest(
        9_793_292, "db169d69145ec4ff064e49d99c95fa05d3eb04ee453de35824a6d0f325513549"
    ),
}
"""Digests of published files, which take precedence over what a mirror reports or a local copy holds."""

LICENCES = (
    "The weights have licences of their own: PersonaLive's were trained from X-NeMo's, which are CC BY-NC 4.0, for "
    "academic use only; image variations (CLIP, base UNet): CreativeML OpenRAIL-M; VAE, TAESD and LivePortrait's "
    "motion extractor: MIT. This code: Apache-2.0."
)


def default_weights_dir() -> Path:
    """Return the folder of the set that is used when none is named."""
    return cache_dir() / WEIGHTS_FOLDER


def resolve_weights_dir(directory: Path) -> Path:
    """Return the set's folder, given it or its parent folder (such as a checkout of the research code)."""
    inner = directory / WEIGHTS_FOLDER
    return inner if inner.is_dir() and not (directory / "personalive").is_dir() else directory


def find_weights_dir(directory: Path | None) -> Path:
    """Return the folder of the set that is named, or of the default one if `directory` is None."""
    return resolve_weights_dir(expand_user(directory)) if directory else default_weights_dir()
