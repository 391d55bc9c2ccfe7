"""Conversion of a loaded picture of any mode to plain RGB, with its palette, profile and transparency applied."""

from __future__ import annotations

import io

import numpy as np
import PIL.Image
from PIL import ImageCms

_PROFILE_SPACES = {"RGB": "RGB", "CMYK": "CMYK", "L": "GRAY"}


def flatten(picture: PIL.Image.Image) -> PIL.Image.Image:
    """Convert a loaded picture of any mode to mode RGB: 16 bits to 8, sRGB, transparency composited on white."""
    profile = picture.info.get("icc_profile")
    if picture.mode.startswith("I"):
        return _from_16_bits(picture)
    if picture.has_transparency_data:
        rgba = picture.convert("RGBA")
        colours = _to_srgb(rgba.convert("RGB"), profile)
        white = PIL.Image.new("RGB", rgba.size, (255, 255, 255))
        white.paste(colours, mask=rgba.getchannel("A"))
        return white
    if picture.mode in {"1", "LA", "P", "PA"}:
        picture = picture.convert("RGB")
    return _to_srgb(picture, profile)


def _from_16_bits(picture: PIL.Image.Image) -> PIL.Image.Image:
    # Pillow's own conversion clips at 255 instead of scaling.
    levels = np.asarray(picture).astype(np.int64)
    grey = np.clip(levels >> 8, 0, 255).astype(np.uint8)
    transparent = picture.info.get("transparency")
    if isinstance(transparent, int):
        grey[levels == transparent] = 255
    return PIL.Image.fromarray(grey).convert("RGB")


def _to_srgb(picture: PIL.Image.Image, profile: object) -> PIL.Image.Image:
    if isinstance(profile, bytes) and profile:
        try:
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            if source.profile.xcolor_space.strip() == _PROFILE_SPACES.get(picture.mode):
                target = ImageCms.createProfile("sRGB")
                converted = ImageCms.profileToProfile(picture, source, target, outputMode="RGB")
                if converted is not None:
                    return converted
        except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
            # Without the profile colours are slightly off, which is no reason to refuse the picture.
            pass
    return picture.convert("RGB")
