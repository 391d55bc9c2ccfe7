from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from personalive.errors import InputError
from personalive.face.choice import (
    FaceChoice,
    check_box_inside,
    describe_faces,
    format_face_box,
    has_rivals,
    list_faces,
    order_faces,
    parse_face_box,
    parse_face_choice,
)
from personalive.face.face import FaceMesh

SIZE = (1000, 800)


def face(x: float, y: float, side: float) -> FaceMesh:
    corners = np.array([[x - side / 2, y - side / 2, 0], [x + side / 2, y + side / 2, 0]], np.float32)
    return FaceMesh(np.resize(corners, (478, 3)))


coordinates = st.integers(0, 999)
faces = st.lists(st.builds(face, coordinates, coordinates, st.integers(20, 300)), min_size=1, max_size=8)
choices = st.one_of(
    st.sampled_from(["auto", "largest", "left", "right"]),
    st.integers(1, 99),
    st.builds(lambda x, y: f"{x},{y}", coordinates, coordinates),
)


@given(choices)
def test_a_choice_is_written_as_it_is_read(text: str | int) -> None:
    choice = parse_face_choice(text)
    assert str(choice) == str(text)
    assert parse_face_choice(str(choice)) == choice


@given(st.text(max_size=12))
def test_any_other_text_is_refused_with_what_is_possible(text: str) -> None:
    words = {"auto", "largest", "left", "right"}
    if text.strip().casefold() in words or set(text) & set("0123456789"):
        return  # it may be a choice
    with pytest.raises(InputError, match="left, right, largest"):
        parse_face_choice(text)


@given(faces, choices)
def test_what_is_picked_is_one_of_the_faces_or_none(seen: list[FaceMesh], text: str | int) -> None:
    choice = parse_face_choice(text)
    picked = choice.pick(seen, SIZE)
    if picked is None:
        assert choice.point is not None or (choice.number or 0) > len(seen)
        return
    assert any(picked is one for one in seen)
    if choice.number is not None:
        left = [one for one in seen if one.centre < picked.centre]
        assert len(left) < choice.number
    if choice.word == "largest":
        assert picked.size == max(one.size for one in seen)
    if choice.word in {"left", "right"}:
        edge = min if choice.word == "left" else max
        assert picked.centre[0] == edge(one.centre[0] for one in seen)


@given(faces)
def test_a_face_is_found_by_its_number_and_its_listed_centre(seen: list[FaceMesh]) -> None:
    for number, one in enumerate(order_faces(seen), 1):
        assert FaceChoice(None, number=number).pick(seen, SIZE) is one
        at = FaceChoice(None, point=one.centre).pick(seen, SIZE)
        assert at is not None
        assert at.size <= one.size
    listed = describe_faces(list_faces(seen))
    assert listed.count(" px at ") == len(seen)


@given(faces, coordinates, coordinates)
def test_a_point_far_from_all_faces_means_none(seen: list[FaceMesh], x: int, y: int) -> None:
    picked = FaceChoice(None, point=(x, y)).pick(seen, SIZE)
    near = [one for one in seen if math.dist(one.centre, (x, y)) <= one.size]
    assert picked is None or any(picked is one for one in near)


@given(*[st.integers(0, 5000)] * 2, *[st.integers(16, 5000)] * 2)
def test_a_box_is_written_as_it_is_read(x: int, y: int, width: int, height: int) -> None:
    box = parse_face_box(f"{x},{y},{width},{height}")
    assert box == (x, y, x + width, y + height)
    assert parse_face_box((x, y, width, height)) == box
    assert parse_face_box(format_face_box(box)) == box


@pytest.mark.parametrize(
    "text", ["", "1,2,3", "1,2,3,4,5", "a,b,c,d", "-1,0,50,50", "0,0,15,50", "0,0,nan,50"]
)
def test_other_boxes_are_refused(text: str) -> None:
    with pytest.raises(InputError, match="box"):
        parse_face_box(text)


def test_a_box_must_be_in_the_picture() -> None:
    check_box_inside((900, 700, 1050, 800), SIZE)
    with pytest.raises(InputError, match="1000×800"):
        check_box_inside((990, 100, 1100, 200), SIZE)


def test_rivals_are_of_like_size_and_place() -> None:
    assert has_rivals([face(300, 400, 200), face(700, 400, 190)], SIZE)
    assert not has_rivals([face(300, 400, 200), face(700, 400, 120)], SIZE)
    assert not has_rivals([face(500, 400, 200), face(950, 50, 190)], SIZE)
    assert not has_rivals([face(500, 400, 200)], SIZE)
