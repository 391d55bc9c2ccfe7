"""The mark that says an output is synthetic: writing and reading.

Every output carries it as its format allows: container tags and an XMP packet in MP4 and MOV, tags in WebM, a
comment and an XMP packet in GIF, text chunks and XMP in PNG, XMP in JPEG and WebP. The kind of synthesis is a term
of the IPTC's "digital source type" vocabulary, which platforms look for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Literal

import av.error
import PIL.Image
from PIL.PngImagePlugin import PngInfo

from personalive.errors import InputError, MediaError
from personalive.media import gif_metadata, xmp
from personalive.media.containers import open_container
from personalive.media.image import suppress_pillow_warnings
from personalive.media.output import OutputFile, translate_write_errors
from personalive.media.picture_header import detect_image_type
from personalive.media.types import Image
from personalive.media.user_paths import check_is_file_or_folder, is_folder, translate_read_errors

_SOURCE_TYPE_PREFIX = "http://cv.iptc.org/newscodes/digitalsourcetype/"
TRAINED_ALGORITHMIC_MEDIA = _SOURCE_TYPE_PREFIX + "trainedAlgorithmicMedia"
"""Made by a generative model: what a diffusion pipeline writes."""
COMPOSITE_SYNTHETIC = _SOURCE_TYPE_PREFIX + "compositeSynthetic"
"""Composed of elements of which at least one is synthetic: a photograph warped to another's motion."""

_TITLE = "AI-animated portrait (synthetic)"
_COMMENT = "Synthetic media: AI-animated portrait, made with {software} (pipeline {pipeline})."
_IMAGE_FORMATS: dict[str, Literal["PNG", "JPEG", "WEBP"]] = {
    ".png": "PNG",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".webp": "WEBP",
}


@dataclass(frozen=True)
class Provenance:
    """The origin of an output.

    Args:
        software: Name and version, such as "personalive 0.1.0".
        pipeline: Name of the pipeline that made the frames.
        reference_sha256: Hex digest of the portrait's file; None leaves it out.
        digital_source_type: URI of an IPTC term, such as `TRAINED_ALGORITHMIC_MEDIA`.
        extra: More to record. Keys are made of letters, digits and underscores.

    """

    software: str
    pipeline: str
    reference_sha256: str | None = None
    digital_source_type: str = TRAINED_ALGORITHMIC_MEDIA
    extra: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for key in self.extra:
            if not (key.isascii() and key.replace("_", "a").isalnum() and key[0].isalpha()):
                raise InputError(f"{key!r} cannot name a piece of provenance: use letters, digits and _.")

    @property
    def comment(self) -> str:
        """The mark as one readable sentence."""
        return _COMMENT.format(software=self.software, pipeline=self.pipeline)

    def metadata(self) -> dict[str, str]:
        """Return all that is recorded, as lower-case keys and text."""
        values = {key.lower(): value for key, value in self.extra.items()}
        values |= {
            "title": _TITLE,
            "comment": self.comment,
            "synthetic": "true",
            "digital_source_type": self.digital_source_type,
            "software": self.software,
            "pipeline": self.pipeline,
        }
        if self.reference_sha256 is not None:
            values["reference_sha256"] = self.reference_sha256
        return values


def read_provenance(path: str | Path) -> dict[str, str] | None:
    """Read the mark of a file, or of the first picture of a folder, that this package wrote.

    Returns lower-case keys and text, at least `synthetic` and `comment`; None if the file carries no mark.

    Raises:
        MediaError: the file cannot be read at all.

    """
    path = Path(path)
    check_is_file_or_folder(path)
    if is_folder(path):
        pictures = sorted(path.glob("*.png"))
        return read_provenance(pictures[0]) if pictures else None
    with translate_read_errors(path), path.open("rb") as file:
        head = file.read(16)
    if detect_image_type(head) in {"JPEG", "PNG", "WEBP"}:
        return _only_if_marked(_read_image_metadata(path))
    if head[:3] == b"GIF":
        return _only_if_marked(xmp.parse_packet(gif_metadata.read_xmp(path)))
    return _only_if_marked(_read_container_metadata(path))


def save_image(path: str | Path, image: Image, provenance: Provenance, *, overwrite: bool = False) -> None:
    """Write one picture, (height, width, 3) uint8 RGB, with its mark, as PNG, JPEG or WebP by its suffix.

    Raises:
        OutputExistsError: the file exists and `overwrite` is False.
        InputError: a suffix that is none of these.
        MediaError: the file cannot be written; nothing is left behind.

    """
    path = Path(path)
    kind = _IMAGE_FORMATS.get(path.suffix.lower())
    if kind is None:
        raise InputError(f"{path.name}: pictures are written as .png, .jpg, .jpeg or .webp.")
    with OutputFile(path, overwrite=overwrite) as output, translate_write_errors(path):
        encode_image(output.partial, image, kind, provenance)


def encode_image(
    path: Path | BinaryIO, image: Image, kind: Literal["PNG", "JPEG", "WEBP"], provenance: Provenance
) -> None:
    """Write a marked picture to `path`, or to an open file, directly. Raises what Pillow raises."""
    values = provenance.metadata()
    picture = PIL.Image.fromarray(image)
    packet = xmp.build_packet(values)
    if kind == "PNG":
        text = PngInfo()
        for key, value in values.items():
            text.add_itxt(key.capitalize() if key in {"title", "comment", "software"} else key, value)
        text.add_itxt("XML:com.adobe.xmp", packet.decode())
        picture.save(path, format=kind, pnginfo=text, compress_level=3)
    elif kind == "JPEG":
        picture.save(path, format=kind, quality=95, subsampling=0, xmp=packet, comment=values["comment"])
    else:
        picture.save(path, format=kind, quality=95, method=4, xmp=packet)


def _read_image_metadata(path: Path) -> dict[str, str]:
    try:
        with suppress_pillow_warnings(), PIL.Image.open(path, formats=("PNG", "JPEG", "WEBP")) as picture:
            packet = picture.info.get("xmp") or picture.info.get("XML:com.adobe.xmp") or b""
    except MediaError:
        raise
    except Exception as error:
        # Pillow may raise any exception on hostile bytes.
        raise MediaError(f"{path.name} is damaged and cannot be read.") from error
    return xmp.parse_packet(packet.encode() if isinstance(packet, str) else packet)


def _read_container_metadata(path: Path) -> dict[str, str]:
    container = open_container(path)
    try:
        # Matroska writes its keys in capitals.
        return {key.lower(): value for key, value in container.metadata.items()}
    except (av.error.FFmpegError, ValueError) as error:
        raise MediaError(f"{path.name} is damaged and cannot be read.") from error
    finally:
        container.close()


def _only_if_marked(values: dict[str, str]) -> dict[str, str] | None:
    return values if values.get("synthetic") == "true" else None
