from __future__ import annotations

import io
import sys
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import ImageCms

from personalive.errors import MediaError, MediaTooLargeError, PersonaLiveError, UnsupportedMediaError
from personalive.media import Image, check_shape, decode_image, isolated_decoder

from .clips import COLOURS, patch_colours, patches
from .heif import heic

FEW = settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def avif(picture: Image, **options: object) -> bytes:
    buffer = io.BytesIO()
    PIL.Image.fromarray(picture).save(buffer, "AVIF", quality=95, **options)
    return buffer.getvalue()


def assert_patches(decoded: Image) -> None:
    assert decoded.flags.c_contiguous
    assert decoded.flags.writeable
    assert np.abs(patch_colours(decoded) - COLOURS).max() <= 8


@pytest.mark.parametrize("tile", [None, 64])
@pytest.mark.parametrize("brand", [b"heic", b"mif1"])
def test_heic_of_one_picture_and_of_tiles(tile: int | None, brand: bytes) -> None:
    decoded = decode_image(heic(patches(192, 128), tile=tile, brand=brand))
    assert decoded.shape == (128, 192, 3)
    assert_patches(decoded)


@pytest.mark.parametrize("turn", [1, 2, 3])
def test_a_turned_heic_is_upright(turn: int) -> None:
    stored = np.ascontiguousarray(np.rot90(patches(192, 128), -turn))
    decoded = decode_image(heic(stored, turn=turn))
    assert decoded.shape == (128, 192, 3)
    assert_patches(decoded)


@FEW
@given(st.integers(0, 3), st.booleans(), st.integers(16, 80), st.integers(16, 80))
def test_avif_of_any_size_and_orientation(turn: int, mirrored: bool, width: int, height: int) -> None:
    orientation = {(0, False): 1, (0, True): 2, (2, False): 3, (2, True): 4, (3, True): 5, (1, False): 6,
                   (1, True): 7, (3, False): 8}[turn, mirrored]  # fmt: skip
    upright = patches(width, height)
    stored = np.rot90(upright, turn)
    stored = np.ascontiguousarray(stored[:, ::-1] if mirrored else stored)
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    decoded = decode_image(avif(stored, exif=exif.tobytes()))
    assert decoded.shape == upright.shape
    assert np.abs(decoded.astype(int) - upright).mean() < 12


def test_transparency_and_profiles_of_avif() -> None:
    clear = np.zeros((32, 32, 4), np.uint8)
    assert decode_image(avif(clear)).min() >= 250
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert_patches(decode_image(avif(patches(), icc_profile=profile)))


def test_an_animation_gives_its_first_frame() -> None:
    frames = [PIL.Image.new("RGB", (32, 32), (value, 0, 0)) for value in (255, 0)]
    buffer = io.BytesIO()
    frames[0].save(buffer, "AVIF", save_all=True, append_images=frames[1:])
    assert decode_image(buffer.getvalue())[0, 0, 0] > 240


@pytest.mark.parametrize(
    "data", [avif(patches(128, 64)), heic(patches(128, 64), tile=64)], ids=["avif", "heic"]
)
def test_large_ones_are_made_smaller_or_refused_before_they_are_decoded(
    data: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(isolated_decoder, "MAX_IMAGE_PIXELS", 128 * 64 // 4)
    assert decode_image(data).shape == (32, 64, 3)
    monkeypatch.setattr(isolated_decoder, "MAX_DECODED_PIXELS", 128 * 64 - 1)
    with pytest.raises(MediaTooLargeError, match=r"me\.heic has 128×64 pixels"):
        decode_image(data, name="me.heic")


def test_a_claim_that_is_not_true_costs_nothing() -> None:
    with pytest.raises(MediaTooLargeError, match="30000×20000"):
        decode_image(heic(patches(), claimed=(30_000, 20_000)))


def test_decoding_ends_when_its_time_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(isolated_decoder, "TIMEOUT_SECONDS", 0.01)
    with pytest.raises(MediaError, match="takes over 0 s to decode"):
        decode_image(avif(patches()))


def test_a_missing_decoder_is_named_with_what_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pi_heif.py").write_text("raise ModuleNotFoundError('No module named pi_heif')")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    with pytest.raises(UnsupportedMediaError, match=r"its decoder is missing here.*pip install pi-heif"):
        decode_image(heic(patches()))


@FEW
@given(st.data())
def test_damage_gives_a_picture_or_a_sentence(drawn: st.DataObject) -> None:
    data = bytearray(drawn.draw(st.sampled_from([HEIC, TILED, AVIF])))
    for _ in range(drawn.draw(st.integers(1, 8))):
        # Squared, so that most of the damage is done to headers.
        place = int(drawn.draw(st.floats(0, 0.999)) ** 2 * (len(data) - 12)) + 12
        data[place] = drawn.draw(st.integers(0, 255))
    del data[drawn.draw(st.integers(32, len(data))) :]
    try:
        decoded = decode_image(bytes(data))
    except PersonaLiveError:
        return
    check_shape(decoded.shape[1], decoded.shape[0], "it")


HEIC, TILED, AVIF = heic(patches()), heic(patches(128, 64), tile=64), avif(patches())
