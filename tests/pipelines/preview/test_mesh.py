from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from personalive.face.canonical import load_canonical_face
from personalive.face.face import Float
from personalive.pipelines.preview.mesh import PixelRect, blend, interpolate_mesh, polygon_mask, sample_image

ONE = np.array([[0, 1, 2]], np.int32)
PAGE = PixelRect(0, 0, 64, 48)
position = st.tuples(st.floats(-30, 90, width=32), st.floats(-30, 90, width=32))
triangle = st.tuples(position, position, position)
wild = st.floats(-1e4, 1e4, width=32)


def points(*rows: tuple[float, float]) -> Float:
    return np.array(rows, np.float32)


def edge_distances(corners: Float, region: PixelRect) -> Float:
    """Signed distance of each pixel from the nearest edge of a clockwise triangle, positive inside."""
    y, x = np.mgrid[region.top : region.bottom, region.left : region.right].astype(np.float64)
    distances = []
    for a, b in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        along = (b - a).astype(np.float64)
        distances.append((along[0] * (y - a[1]) - along[1] * (x - a[0])) / np.linalg.norm(along))
    return np.asarray(np.min(distances, axis=0), np.float32)


def area_of(corners: Float) -> float:
    a, b = corners[1] - corners[0], corners[2] - corners[0]
    return float(a[0] * b[1] - a[1] * b[0]) / 2


@given(triangle)
def test_a_plane_comes_back_exactly_inside_a_triangle(corners: tuple[tuple[float, float], ...]) -> None:
    target = points(*corners)
    assume(area_of(target) > 4)
    values = np.column_stack([target, 2 * target[:, 0] - 0.5 * target[:, 1] + 7]).astype(np.float32)
    spread, covered = interpolate_mesh(target, values, ONE, PAGE)
    assert spread.shape == (3, 48, 64)
    assert spread.dtype == np.float32
    distance = edge_distances(target, PAGE)
    deep = distance > 1
    assert covered[deep].all()
    assert not covered[distance < -2.5].any()
    y, x = np.mgrid[0:48, 0:64]
    for channel, expected in zip(spread, (x, y, 2 * x - 0.5 * y + 7), strict=True):
        assert np.allclose(channel[deep], expected[deep], atol=5e-3)


def test_a_plane_comes_back_over_a_whole_face() -> None:
    vertices = load_canonical_face().vertices
    target = (vertices[:, :2] * [12, -12] + [128, 128]).astype(np.float32)
    triangles = load_canonical_face().triangles[:, ::-1]
    page = PixelRect(0, 0, 256, 256)
    spread, covered = interpolate_mesh(target, target, triangles, page)
    assert covered.sum() > 20_000
    assert covered[100:140, 100:140].all(), "no cracks between neighbours"
    y, x = np.mgrid[0:256, 0:256]
    off = np.hypot(spread[0] - x, spread[1] - y)[covered]
    assert np.percentile(off, 90) < 1e-3
    assert off.max() < 1.5, "only the painted rim is clamped"


def test_faces_are_shown_and_backs_are_not() -> None:
    clockwise = points((10, 10), (40, 10), (10, 40))
    values = np.ones((3, 1), np.float32)
    assert interpolate_mesh(clockwise, values, ONE, PAGE)[1].sum() > 300
    assert not interpolate_mesh(clockwise[::-1].copy(), values, ONE, PAGE)[1].any()


@pytest.mark.parametrize(
    "corners",
    [
        [(5, 5), (5, 5), (5, 5)],
        [(5, 5), (15, 15), (25, 25)],
        [(5, 5), (20, 5), (20, 5)],
        [(200, 200), (240, 200), (200, 240)],
    ],
)
def test_what_has_no_area_or_lies_elsewhere_covers_nothing(corners: list[tuple[float, float]]) -> None:
    spread, covered = interpolate_mesh(points(*corners), np.ones((3, 2), np.float32), ONE, PAGE)
    assert not covered.any()
    assert spread.shape == (2, 48, 64)
    assert np.isfinite(spread).all()


def test_no_triangles_and_backs_only_cover_nothing() -> None:
    target = points((10, 10), (10, 40), (40, 10), (40, 40))
    values = np.ones((4, 1), np.float32)
    for triangles in (np.zeros((0, 3), np.int32), np.array([[0, 1, 2], [2, 1, 3]], np.int32)):
        spread, covered = interpolate_mesh(target, values, triangles, PAGE)
        assert not covered.any()
        assert spread.shape == (1, 48, 64)


def test_the_last_painted_is_in_front() -> None:
    target = points((5, 5), (50, 5), (5, 40), (8, 8), (40, 8), (8, 36))
    values = np.repeat(np.array([1, 2], np.float32), 3)[:, None]
    back, front = [0, 1, 2], [3, 4, 5]
    near_last, _ = interpolate_mesh(target, values, np.array([back, front], np.int32), PAGE)
    far_last, _ = interpolate_mesh(target, values, np.array([front, back], np.int32), PAGE)
    assert near_last[0, 12, 12] == 2
    assert far_last[0, 12, 12] == 1
    assert near_last[0, 6, 6] == far_last[0, 6, 6] == 1


@given(triangle, st.tuples(wild, wild, wild))
def test_no_value_leaves_the_range_of_its_triangle(
    corners: tuple[tuple[float, float], ...], values: tuple[float, float, float]
) -> None:
    column = np.array(values, np.float32)[:, None]
    spread, covered = interpolate_mesh(points(*corners), column, ONE, PAGE)
    assert np.isfinite(spread).all()
    if covered.any():
        assert column.min() <= spread[0][covered].min()
        assert spread[0][covered].max() <= column.max()


def test_a_triangle_seen_edge_on_keeps_to_its_values() -> None:
    sliver = points((10, 20.0), (50, 20.0), (30, 20.02))
    spread, covered = interpolate_mesh(sliver, np.array([[0], [100], [900]], np.float32), ONE, PAGE)
    assert covered.any()
    assert spread[0][covered].min() >= 0
    assert spread[0][covered].max() <= 900


@given(triangle, st.integers(-10, 40), st.integers(-10, 30), st.integers(1, 40), st.integers(1, 40))
def test_a_region_is_a_cut_of_the_whole(
    corners: tuple[tuple[float, float], ...], left: int, top: int, width: int, height: int
) -> None:
    target = points(*corners)
    assume(area_of(target) > 4)
    page = PixelRect(-10, -10, 80, 70)
    region = PixelRect(left, top, left + width, top + height)
    whole, whole_covered = interpolate_mesh(target, target, ONE, page)
    part, part_covered = interpolate_mesh(target, target, ONE, region)
    inside = region.shift(10, 10)
    assert part_covered.shape == (height, width)
    deep = edge_distances(target, region) > 1
    assert np.array_equal(part_covered[deep], inside.crop(whole_covered)[deep])
    for channel in (0, 1):
        assert np.allclose(part[channel][deep], inside.crop(whole[channel])[deep], atol=1e-4)


def grid(width: int, height: int, dx: float = 0.0, dy: float = 0.0) -> Float:
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    return np.stack([x + np.float32(dx), y + np.float32(dy)], axis=2)


@pytest.mark.parametrize("channels", [(), (3,), (4,)])
def test_sampling_in_place_changes_nothing(channels: tuple[int, ...]) -> None:
    image = np.random.default_rng(0).integers(0, 256, (20, 30, *channels)).astype(np.uint8)
    taken = sample_image(image, grid(30, 20))
    assert taken.dtype == np.uint8
    assert np.array_equal(taken, image)


def test_half_a_pixel_on_is_the_mean_of_two() -> None:
    image = np.random.default_rng(1).uniform(0, 100, (20, 30)).astype(np.float32)
    right, down = sample_image(image, grid(29, 20, 0.5)), sample_image(image, grid(30, 19, 0, 0.5))
    assert np.allclose(right, (image[:, 1:] + image[:, :-1]) / 2, atol=1e-3)
    assert np.allclose(down, (image[1:] + image[:-1]) / 2, atol=1e-3)


def test_the_border_goes_on_outside() -> None:
    image = np.random.default_rng(2).integers(0, 256, (20, 30, 3)).astype(np.uint8)
    far = sample_image(image, grid(30, 20, -500, -500))
    assert (far == image[0, 0]).all()
    assert np.array_equal(sample_image(image, grid(30, 20, 0, 500)), np.broadcast_to(image[-1], image.shape))


@given(st.floats(20, 40), st.floats(16, 30), st.floats(4, 10), st.integers(3, 24), st.floats(0, 3))
def test_coverage_adds_up_to_the_polygons_area(
    x: float, y: float, radius: float, corners: int, turn: float
) -> None:
    angles = turn + np.linspace(0, 2 * np.pi, corners, endpoint=False)
    ring = np.column_stack([x + radius * np.cos(angles), y + radius * np.sin(angles)]).astype(np.float32)
    mask = polygon_mask(ring, PAGE)
    area = corners / 2 * radius**2 * np.sin(2 * np.pi / corners)
    rim = 2 * corners * radius * np.sin(np.pi / corners)
    assert mask.dtype == np.float32
    assert mask.min() == 0
    assert mask.max() == 1
    assert -1 <= mask.sum() - area <= 0.9 * rim + 1, "antialiasing may add up to a pixel at the rim"
    soft = polygon_mask(ring, PAGE, 1.0)
    assert soft.sum() == pytest.approx(float(mask.sum()), rel=0.05, abs=2)
    assert np.abs(np.diff(soft, axis=0)).max() < 0.75
    off = PixelRect(5, 3, 54, 44)
    assert np.abs(polygon_mask(ring, off) - off.crop(mask)).max() < 0.02


spot = st.floats(-500, 500, width=32)
rectangle = st.builds(
    lambda left, top, width, height: PixelRect(left, top, left + width, top + height),
    st.integers(-50, 50),
    st.integers(-50, 50),
    st.integers(0, 60),
    st.integers(0, 60),
)


@given(st.lists(st.tuples(spot, spot), min_size=1, max_size=6), st.floats(0, 50))
def test_around_holds_every_pixel_between_the_points_and_none_outside_the_image(
    spots: list[tuple[float, float]], margin: float
) -> None:
    width, height = 120, 90
    cloud = points(*spots)
    region = PixelRect.bounding(cloud, (width, height), margin)
    assert 0 <= region.left <= region.right <= width
    assert 0 <= region.top <= region.bottom <= height
    low, high = cloud.min(0), cloud.max(0)
    assert region.crop(np.zeros((height, width))).shape == (region.height, region.width)
    for (x0, x1), length, start, end in (
        ((low[0], high[0]), width, region.left, region.right),
        ((low[1], high[1]), height, region.top, region.bottom),
    ):
        inside = [p for p in range(length) if x0 <= p <= x1]
        assert all(start <= p < end for p in inside)
    if (high + margin + 2 < 0).any():
        assert region.is_empty, "points off the picture give an empty region"


@given(rectangle, rectangle)
def test_within_is_what_both_share(one: PixelRect, other: PixelRect) -> None:
    shared = one.intersection(other)

    def pixels(region: PixelRect) -> set[tuple[int, int]]:
        return {(x, y) for x in range(region.left, region.right) for y in range(region.top, region.bottom)}

    assert pixels(shared) == pixels(one) & pixels(other) == pixels(other.intersection(one))
    assert shared.is_empty == (not pixels(shared))
    assert shared.width >= 0
    assert shared.height >= 0


@given(rectangle, st.integers(-90, 90), st.integers(-90, 90))
def test_shifting_moves_and_comes_back(region: PixelRect, x: int, y: int) -> None:
    moved = region.shift(x, y)
    assert (moved.left - region.left, moved.bottom - region.bottom) == (x, y)
    assert (moved.width, moved.height, moved.is_empty) == (region.width, region.height, region.is_empty)
    assert moved.shift(-x, -y) == region


def test_a_region_of_an_image_is_a_view() -> None:
    image = np.zeros((10, 20, 3), np.uint8)
    PixelRect(2, 3, 5, 7).crop(image)[...] = 9
    assert image.any(axis=2).sum() == 12
    assert image[3, 2, 0] == image[6, 4, 0] == 9


def test_blending_mixes_inside_its_region_and_nowhere_else() -> None:
    canvas = np.full((10, 20, 3), 100, np.uint8)
    region = PixelRect(4, 2, 8, 5)
    alpha = np.full((3, 4), 0.5, np.float32)
    alpha[0] = 0
    layer = np.full((3, 4, 3), 400.0, np.float32)
    blend(canvas, region, layer, alpha)
    assert (canvas[3:5, 4:8] == 250).all()
    assert (canvas != 100).any(axis=2).sum() == 8
    blend(canvas, region, layer, np.ones((3, 4), np.float32))
    assert (region.crop(canvas) == 255).all(), "too bright is white, not black"
