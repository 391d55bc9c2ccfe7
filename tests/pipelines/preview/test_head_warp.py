from __future__ import annotations

import cv2
import numpy as np
import pytest

from personalive.face.face import Float
from personalive.face.pose import Double, HeadPose, rotation_matrix
from personalive.media.types import Image
from personalive.pipelines.preview.head_layout import HeadLayout
from personalive.pipelines.preview.head_warp import GRID, HeadWarp, build_head_warp
from personalive.pipelines.preview.matte import LAYER_SCALE, to_layer_coords
from personalive.pipelines.preview.mesh import sample_image
from personalive.pipelines.preview.motion import PortraitMotion
from personalive.pipelines.preview.warp import LayeredPortrait

from .faces import PICTURE, make_face, turned

REST = np.zeros((468, 2), np.float32)


@pytest.fixture(scope="module")
def field() -> HeadWarp:
    landmarks = make_face().landmarks
    return build_head_warp(landmarks, PICTURE, HeadLayout.from_landmarks(landmarks), (500, 410), cut_out=True)


def moved(rotation: Double, x: float = 0.0, y: float = 0.0) -> HeadPose:
    return HeadPose(rotation, PICTURE.scale, PICTURE.translation + np.array([x, y, 0.0]))


def portrait_pixels(where: Float) -> Float:
    return (where - np.float32(0.5 * (LAYER_SCALE - 1))) / np.float32(LAYER_SCALE)


def test_the_nodes_cover_a_picture_of_any_size(field: HeadWarp) -> None:
    assert (field.columns, field.rows) == (-(-500 // GRID), -(-410 // GRID))
    assert field.pixels.shape == (field.columns * field.rows, 2)
    assert (field.pixels.max(0) >= (500 - GRID, 410 - GRID)).all()
    back = PICTURE.to_frame(field.nodes)[:, :2]
    assert back == pytest.approx(field.pixels, abs=1e-3), "at rest each node shows its own pixel"


def test_at_rest_nothing_moves(field: HeadWarp) -> None:
    sampling = field.compute_sampling(PICTURE, REST)
    assert sampling.region.is_empty
    assert sampling.source.shape == (0, 0, 2)


def test_what_hardly_moves_comes_from_its_own_place(field: HeadWarp) -> None:
    """To the picture's very edge."""
    sampling = field.compute_sampling(moved(np.eye(3), x=0.03), REST)
    region, where = sampling.region, portrait_pixels(sampling.source)
    y, x = np.mgrid[region.top : region.bottom, region.left : region.right]
    assert np.abs(where - np.dstack([x, y])).max() < 0.04


def test_a_shift_is_followed_by_the_face_and_not_by_the_corners(field: HeadWarp) -> None:
    sampling = field.compute_sampling(moved(np.eye(3), x=6, y=4), REST)
    region, where = sampling.region, portrait_pixels(sampling.source)
    assert where.shape == (region.height, region.width, 2)
    assert sampling.static_mask.shape == where.shape[:2]
    assert region.right <= 500
    assert region.bottom <= 410
    nose = make_face().landmarks[1, :2].round().astype(int)
    at = where[nose[1] - region.top, nose[0] - region.left]
    assert at == pytest.approx(nose + np.array([-6, 4]), abs=0.05), (
        "its pixels come from the left and from below"
    )
    y, x = np.mgrid[region.top : region.bottom, region.left : region.right]
    travelled = np.hypot(where[..., 0] - x, where[..., 1] - y)
    assert travelled.max() <= np.hypot(6, 4) + 0.1
    assert travelled[sampling.static_mask > 0].max() < 0.05
    assert sampling.static_mask.any()


def test_an_expression_moves_the_skin_that_bears_it(field: HeadWarp) -> None:
    lower = make_face().landmarks[:468, 1] > 300
    change = np.zeros((468, 2), np.float32)
    change[lower] = [0, 5]
    sampling = field.compute_sampling(PICTURE, change)
    region, where = sampling.region, portrait_pixels(sampling.source)
    chin = make_face().landmarks[152, :2].round().astype(int)
    assert where[chin[1] - region.top, chin[0] - region.left, 1] == pytest.approx(chin[1] - 5, abs=1)
    assert region.top > 200, "the eyes stay"


@pytest.mark.parametrize("roll", [-0.2, 0.2])
@pytest.mark.parametrize(("pitch", "yaw"), [(0, 0), (0, 0.25), (0.2, 0), (-0.15, -0.15)])
def test_going_back_and_forth_leads_home(
    sample_portrait: LayeredPortrait, pitch: float, yaw: float, roll: float
) -> None:
    turn = np.array([pitch, yaw, roll])
    field = sample_portrait.head_warp
    pose = sample_portrait.compute_target(PortraitMotion(rotation=rotation_matrix(turn))).pose
    forward = field.head[:, None] * (pose.to_frame(field.nodes)[:, :2] - field.pixels)
    forward = forward.reshape(field.rows, field.columns, 2).astype(np.float32)
    sampling = field.compute_sampling(pose, REST)
    source = portrait_pixels(sampling.source)
    first = np.float32((GRID - 1) / 2)
    there = source + sample_image(forward, np.asarray((source - first) / np.float32(GRID), np.float32))
    region = sampling.region
    y, x = np.mgrid[region.top : region.bottom, region.left : region.right]
    off = np.hypot(there[..., 0] - x, there[..., 1] - y)
    cover = sample_image(sample_portrait.layers.head[..., 3], sampling.source)
    visible = (cover > 128) & (source >= 0).all(axis=2) & (source <= 511).all(axis=2)
    assert visible.sum() > 30_000
    assert np.percentile(off[visible], 99) < 0.75
    assert off[visible].mean() < 0.1


@pytest.mark.parametrize("turn", [(0, 0.2, 0), (-0.2, 0, 0), (0, 0, 0.2), (0.1, -0.15, 0.1)])
def test_the_picture_is_taken_from_where_each_vertex_was(
    sample_portrait: LayeredPortrait, turn: tuple[float, float, float]
) -> None:
    """A portrait whose colours are coordinates tells for every pixel of the result where it came from."""
    left, top = (int(v) for v in sample_portrait.landmarks[:468, :2].min(0) - 30)
    y, x = np.mgrid[0:512, 0:512]
    colours = np.dstack([x - left, y - top, np.full_like(x, 90)])
    coded = np.clip(colours, 0, 255).astype(np.uint8)
    portrait = LayeredPortrait.build(coded, sample_portrait.landmarks)
    motion = PortraitMotion(rotation=rotation_matrix(np.array(turn)))
    points = portrait.compute_target(motion).points[:468, :2]
    read = read_at(portrait.draw(motion), points)[:, :2] + [left, top]
    side, down = HeadLayout.from_landmarks(sample_portrait.landmarks).to_face_coords(
        portrait.landmarks[:468, :2]
    )
    inside = np.hypot(side / 0.3, down / 0.38) < 1
    off = np.linalg.norm(read - portrait.landmarks[:468, :2], axis=1)[inside]
    assert inside.sum() > 150
    assert np.median(off) < 0.75, "colours are whole numbers: half a pixel is the least that can be asked"
    assert np.percentile(off, 75) < 1.0


def read_at(image: Image, points: Float) -> Double:
    taken = sample_image(image.astype(np.float32), np.ascontiguousarray(points[None], np.float32))
    return np.asarray(taken[0], np.float64)


@pytest.mark.parametrize("offset", [(-150, 0), (200, 0), (0, 300), (-600, -600), (2000, 0)])
def test_a_face_that_leaves_the_picture_is_no_error(offset: tuple[float, float]) -> None:
    landmarks = make_face().landmarks + np.array([*offset, 0], np.float32)
    pose = HeadPose(np.eye(3), PICTURE.scale, PICTURE.translation + np.array([offset[0], -offset[1], 0]))
    field = build_head_warp(landmarks, pose, HeadLayout.from_landmarks(landmarks), (256, 320), cut_out=False)
    sampling = field.compute_sampling(HeadPose(turned(yaw=20), pose.scale, pose.translation), REST)
    assert np.isfinite(sampling.source).all()
    assert 0 <= sampling.region.left <= sampling.region.right <= 256


def test_positions_on_the_sheet_are_pixel_centres() -> None:
    """Enlarging by whole numbers spreads a pixel's centre to the middle of its block."""
    ramp = np.tile(np.arange(32, dtype=np.float32), (4, 1))
    sheet = cv2.resize(ramp, None, fx=LAYER_SCALE, fy=LAYER_SCALE, interpolation=cv2.INTER_LINEAR)
    places = to_layer_coords(np.arange(2, 30, dtype=np.float32))
    where = np.stack([places, np.full_like(places, 3)], axis=1)[None]
    assert sample_image(np.asarray(sheet), where)[0] == pytest.approx(np.arange(2, 30), abs=1e-3)
