from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from personalive.batch import storage
from personalive.batch.job_list import BatchJob, read_jobs
from personalive.errors import InputError


def table(folder: Path, *rows: dict[str, Any]) -> str:
    path = folder / "jobs.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    return str(path)


def jobs(folder: Path, *rows: dict[str, Any], **defaults: Any) -> list[BatchJob]:
    return read_jobs([table(folder, *rows)], str(folder / "out"), defaults, "every")


def test_a_row_is_a_job(tmp_path: Path) -> None:
    row = {"reference": "in/a.jpg", "driving": "s3://clips/b.mov", "output": "sub/c.webm", "size": 256}
    (job,) = jobs(tmp_path, {**row, "options": {"expression": 1.5, "start": None}}, size=512, seed=7)
    assert job.name == "sub/c.webm"
    assert job.reference == str(tmp_path / "in/a.jpg")
    assert job.driving == "s3://clips/b.mov"
    assert job.output == str(tmp_path / "out/sub/c.webm")
    assert job.options == {"size": 256, "seed": 7, "parameters": {"expression": 1.5}}
    assert job.is_resumable


def test_names_come_from_both_inputs(tmp_path: Path) -> None:
    rows = [
        {"reference": "a.jpg", "driving": "x.mp4"},
        {"reference": "a.jpg", "driving": "smile.jpg"},
        {"reference": "b.jpg", "driving": "x.mp4"},
        {"reference": "b.png", "driving": "x.mp4"},
        {"reference": "b.png", "driving": "y.mp4", "output": "mine.gif"},
    ]
    made = jobs(tmp_path, *rows)
    assert [job.name for job in made] == [
        "a_x.mp4", "a_smile.png", "b-jpg_x-mp4.mp4", "b-png_x-mp4.mp4", "mine.gif",
    ]  # fmt: skip
    assert [job.is_resumable for job in made] == [True, False, True, True, False]


GOOD: dict[str, Any] = {"reference": "a.jpg", "driving": "b.mp4"}


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([{"driving": "b.mp4"}], "line 1 of jobs.jsonl: it names no reference"),
        ([{"reference": "a.jpg", "drivng": "b.mp4"}], "it names no driving"),
        ([GOOD, GOOD], "line 1 of jobs.jsonl and line 2 of jobs.jsonl would both write a-jpg_b-mp4.mp4"),
        ([{**GOOD, "output": "../c.mp4"}], "is outside of"),
        ([{**GOOD, "output": "frames/"}], "must be one file"),
        ([{**GOOD, "output": "%05d.png"}], "must be one file"),
        ([{**GOOD, "sise": 256}], "no option 'sise'"),
        ([{**GOOD, "size": 256, "options": {"size": 320}}], "'size' must be a column or among the options"),
        ([{**GOOD, "options": "{"}], "its options are not valid JSON"),
        ([{**GOOD, "options": [1]}], "its options must be an object"),
        ([{**GOOD, "size": 1}] * 7, "line 1 of jobs.jsonl and 6 more: The size"),
        ([{**GOOD, "size": size} for size in (1, 2, 3, 4, 5, 6, 6)], "line 5 of .*: .* And 2 more rows."),
    ],
)
def test_what_is_wrong_is_said_with_its_row(tmp_path: Path, rows: list[dict[str, Any]], words: str) -> None:
    with pytest.raises(InputError, match=words):
        jobs(tmp_path, *rows)


def test_an_input_is_not_overwritten(tmp_path: Path) -> None:
    row = {"reference": "a.jpg", "driving": "b.mp4", "output": str(tmp_path / "b.mp4")}
    with pytest.raises(InputError, match="would overwrite its own input"):
        jobs(tmp_path, row)


def test_jobs_that_can_share_have_the_same_keys(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"reference": "a.jpg", "driving": "x.mp4"},
        {"reference": "a.jpg", "driving": "y.mp4", "fps": 12, "expression": 1.5},
        {"reference": "b.jpg", "driving": "x.mp4"},
        {"reference": "a.jpg", "driving": "z.mp4", "size": 256},
    ]
    one, other, third, small = jobs(tmp_path, *rows)
    assert one.reference_key == other.reference_key != third.reference_key
    assert one.load_key == third.load_key != small.load_key
    assert len({job.description for job in (one, other, third, small)}) == 4


@pytest.fixture
def folders(tmp_path: Path, store: str) -> tuple[str, str]:
    portraits = tmp_path / "portraits"
    (portraits / "sub").mkdir(parents=True)
    for name in ("b.jpg", "a.png", "notes.txt", ".hidden.jpg", "film.mp4"):
        (portraits / name).touch()
    for name in ("a.mp4", "b.webm", "film.gif"):
        storage.write_bytes(f"{store}/clips/{name}", b"x")
    return str(portraits), f"{store}/clips"


def test_every_portrait_with_every_clip(folders: tuple[str, str]) -> None:
    made = read_jobs(folders, "s3://out", {"size": 256}, "every")
    assert [job.name for job in made] == [
        f"{one}_{other}.mp4" for one in ("a", "b", "film") for other in ("a", "b", "film")
    ]
    assert made[0].driving == f"{folders[1]}/a.mp4"
    assert made[0].output == "s3://out/a_a.mp4"


def test_pairs_by_name(folders: tuple[str, str]) -> None:
    made = read_jobs(folders, "/out", {}, "name")
    assert [job.name for job in made] == ["a_a.mp4", "b_b.mp4", "film_film.mp4"]
    (Path(folders[0]) / "alone.jpg").touch()
    with pytest.raises(InputError, match=r"1 names are in one of the two folders only: alone\."):
        read_jobs(folders, "/out", {}, "name")
    (Path(folders[0]) / "a.jpg").touch()
    with pytest.raises(InputError, match="more than one file called a:"):
        read_jobs(folders, "/out", {}, "name")


def test_one_portrait_with_a_folder_of_clips(folders: tuple[str, str]) -> None:
    made = read_jobs([f"{folders[0]}/b.jpg", folders[1]], "/out", {}, "every")
    assert [job.name for job in made] == ["b_a.mp4", "b_b.mp4", "b_film.mp4"]


def test_an_empty_folder_and_three_places_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no portraits"):
        read_jobs([str(tmp_path), str(tmp_path)], "/out", {}, "every")
    with pytest.raises(InputError, match=r"The results cannot go to .*, where the inputs are"):
        read_jobs([str(tmp_path / "a"), str(tmp_path / "b")], str(tmp_path / "b"), {}, "every")
    with pytest.raises(InputError, match="Name one table of jobs, or portraits and clips"):
        read_jobs(["a", "b", "c"], "/out", {}, "every")


NAMES = st.text("ab./-", min_size=1, max_size=6)


@given(
    st.lists(
        st.fixed_dictionaries(
            {"reference": NAMES, "driving": NAMES}, optional={"output": NAMES.map(lambda name: name + ".mp4")}
        ),
        min_size=1,
        max_size=6,
    )
)
def test_jobs_never_share_an_output(
    tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, str]]
) -> None:
    folder = tmp_path_factory.mktemp("jobs")
    try:
        made = jobs(folder, *rows)
    except InputError:
        return
    assert len({job.output for job in made}) == len({job.name for job in made}) == len(rows)
