from __future__ import annotations

import io
import zlib
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from PIL import ImageCms
from PIL.PngImagePlugin import PngInfo

from personalive.errors import MediaError, MediaTooLargeError, UnsupportedMediaError
from personalive.media import MAX_IMAGE_BYTES, Image, decode_image, fit_image, is_image_file, read_image

from .clips import COLOURS, patch_colours, patches


def encode(picture: PIL.Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def picture() -> PIL.Image.Image:
    return PIL.Image.fromarray(patches())


def assert_patches(image: Image, tolerance: int = 4) -> None:
    assert image.dtype == np.uint8
    assert image.flags.c_contiguous
    assert image.flags.writeable
    assert np.abs(patch_colours(image) - COLOURS).max() <= tolerance


@pytest.mark.parametrize(("kind", "options"), [("PNG", {}), ("JPEG", {"quality": 98, "subsampling": 0})])
def test_decodes(kind: str, options: dict[str, object]) -> None:
    image = decode_image(encode(picture(), kind, **options))
    assert image.shape == (48, 64, 3)
    assert_patches(image)


def test_decodes_lossless_webp() -> None:
    assert np.array_equal(decode_image(encode(picture(), "WEBP", lossless=True)), patches())


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_honoured(orientation: int) -> None:
    undo = {
        2: PIL.Image.Transpose.FLIP_LEFT_RIGHT,
        3: PIL.Image.Transpose.ROTATE_180,
        4: PIL.Image.Transpose.FLIP_TOP_BOTTOM,
        5: PIL.Image.Transpose.TRANSPOSE,
        6: PIL.Image.Transpose.ROTATE_90,
        7: PIL.Image.Transpose.TRANSVERSE,
        8: PIL.Image.Transpose.ROTATE_270,
    }
    stored = picture().transpose(undo[orientation]) if orientation > 1 else picture()
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    image = decode_image(encode(stored, "JPEG", quality=98, subsampling=0, exif=exif.tobytes()))
    assert image.shape == (48, 64, 3)
    assert_patches(image)


def test_broken_exif_is_no_reason_to_refuse() -> None:
    data = encode(picture(), "JPEG", quality=98, subsampling=0, exif=b"Exif\0\0II*\0\xff\xff\xff\x7f")
    assert_patches(decode_image(data))


STORED = [
    *(("PNG", mode) for mode in ("1", "L", "LA", "P", "RGBA", "I;16")),
    *(("JPEG", mode) for mode in ("L", "CMYK")),
    *(("WEBP", mode) for mode in ("L", "LA", "P", "RGBA")),
]


@pytest.mark.parametrize(("kind", "mode"), STORED)
def test_every_mode_becomes_rgb(kind: str, mode: str) -> None:
    grey = np.full((48, 64), 150, np.uint8)
    if mode == "I;16":
        source = PIL.Image.fromarray(grey.astype(np.uint16) * 257)
    else:
        source = PIL.Image.fromarray(grey).convert("RGB").convert(mode)
    image = decode_image(encode(source, kind))
    assert image.shape == (48, 64, 3)
    expected = 150 if mode == "I;16" else np.asarray(source.convert("RGB")).mean()
    assert abs(float(image.mean()) - float(expected)) < 3


def test_transparency_is_laid_on_white() -> None:
    rgba = np.zeros((16, 16, 4), np.uint8)
    rgba[:, 8:] = (10, 20, 30, 255)
    rgba[:2, :8] = (0, 0, 0, 128)
    image = decode_image(encode(PIL.Image.fromarray(rgba), "PNG"))
    assert image[5, 1].tolist() == [255, 255, 255]
    assert image[5, 12].tolist() == [10, 20, 30]
    assert abs(int(image[0, 0, 0]) - 127) <= 1


def test_palette_and_grey_transparency_are_laid_on_white() -> None:
    palette = PIL.Image.fromarray(patches()).quantize(4)
    clear = palette.getpixel((0, 0))
    for data in (
        encode(palette, "PNG", transparency=clear),
        encode(PIL.Image.new("L", (16, 16), 7), "PNG", transparency=7),
        encode(PIL.Image.fromarray(np.full((16, 16), 700, np.uint16)), "PNG", transparency=700),
        encode(PIL.Image.new("LA", (16, 16), (7, 0)), "PNG"),
    ):
        assert decode_image(data)[0, 0].tolist() == [255, 255, 255]


def test_animation_gives_its_first_frame() -> None:
    frames = [PIL.Image.new("RGB", (16, 16), (value, 0, 0)) for value in (255, 0)]
    for kind in ("PNG", "WEBP"):
        data = encode(frames[0], kind, save_all=True, append_images=frames[1:], lossless=True)
        assert decode_image(data)[0, 0].tolist() == [255, 0, 0]


def test_phone_jpeg_with_a_second_picture() -> None:
    data = encode(picture(), "MPO", save_all=True, append_images=[picture()], quality=98, subsampling=0)
    assert_patches(decode_image(data))


def test_colour_profile_is_converted_to_srgb() -> None:
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for profile in (lab, srgb, b"nonsense"):
        assert_patches(decode_image(encode(picture(), "PNG", icc_profile=profile)), 1)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("keep", [0.02, 0.5, 0.95])
def test_truncated(kind: str, keep: float) -> None:
    noise = np.random.default_rng(1).integers(0, 255, (64, 64, 3), np.uint8)
    data = encode(PIL.Image.fromarray(noise), kind)
    with pytest.raises(MediaError, match=r"portrait\.x"):
        decode_image(data[: max(16, int(len(data) * keep))], name="portrait.x")


def test_empty_and_foreign() -> None:
    with pytest.raises(MediaError, match=r"me\.png is empty"):
        decode_image(b"", name="me.png")
    gif = encode(picture(), "GIF")
    for data in (gif, b"garbage" * 100, encode(picture(), "TIFF"), b"\x00" * 12):
        with pytest.raises(UnsupportedMediaError, match=r"me\.png is not a JPEG, PNG, WebP, HEIC or AVIF"):
            decode_image(data, name="me.png")


def test_limits_are_checked_before_decoding() -> None:
    with pytest.raises(MediaTooLargeError, match=r"100\.0 MB"):
        decode_image(bytes(MAX_IMAGE_BYTES + 1))
    # Sizes are claimed, not backed by data: decoding these would fail otherwise.
    header = bytearray(encode(PIL.Image.new("1", (8, 8)), "PNG"))
    for width, height in ((8000, 5001), (12_000, 12_000), (60_000, 60_000)):
        header[16:24] = width.to_bytes(4, "big") + height.to_bytes(4, "big")
        header[29:33] = zlib.crc32(bytes(header[12:29])).to_bytes(4, "big")
        with pytest.raises(MediaTooLargeError):
            decode_image(bytes(header))


def test_read_image(tmp_path: Path) -> None:
    path = tmp_path / "portrait.jpg"
    path.write_bytes(encode(picture(), "PNG"))
    assert np.array_equal(read_image(path), patches())
    for bad in (tmp_path, tmp_path / "missing.png", tmp_path / "a\0b.png"):
        with pytest.raises(MediaError):
            read_image(bad)
    with (tmp_path / "big.png").open("wb") as file:
        file.truncate(MAX_IMAGE_BYTES + 1)
    with pytest.raises(MediaTooLargeError, match=r"big\.png"):
        read_image(tmp_path / "big.png")


def test_is_image_file_looks_at_the_content(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(encode(picture(), "WEBP"))
    (tmp_path / "b.png").write_text("no picture")
    assert is_image_file(tmp_path / "a.txt")
    assert not is_image_file(tmp_path / "b.png")
    assert not is_image_file(tmp_path / "missing")
    assert not is_image_file(tmp_path)


@pytest.mark.parametrize("size", [(32, 24), (128, 96), (31, 200), (64, 48)])
def test_fit_image(size: tuple[int, int]) -> None:
    image = fit_image(patches(), size)
    assert image.shape == (size[1], size[0], 3)
    assert_patches(image, 6)


def test_text_bombs_in_png_are_refused() -> None:
    text = PngInfo()
    text.add_text("bomb", "a" * 80_000_000, zip=True)
    data = encode(PIL.Image.new("1", (8, 8)), "PNG", pnginfo=text)
    with pytest.raises(MediaError):
        decode_image(data)
