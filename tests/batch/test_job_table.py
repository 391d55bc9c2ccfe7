from __future__ import annotations

import contextlib
import csv
import io
import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from personalive.batch import storage
from personalive.batch.job_table import read_table
from personalive.batch.options import match_column
from personalive.errors import InputError, MediaError

WORDS = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs", "Zs", "Zl", "Zp"]), min_size=1)
CELLS = st.text(st.characters(codec="utf-8", exclude_characters="\r\0")).map(str.strip)


def values(path: Path) -> list[dict[str, Any]]:
    return [dict(row.values) for row in read_table(str(path))]


def spelt(column: str, how: int) -> str:
    """The column as a person or a spreadsheet may write it."""
    words = column.replace("_", " _-"[how % 3])
    return [words, words.upper(), words.title(), f"  {words} "][how % 4]


@given(
    st.permutations(["reference", "driving", "output", "size", "max_frames", "expression"]),
    st.lists(st.integers(0, 11), min_size=6, max_size=6),
    st.sampled_from([",", ";", "\t", "|"]),
    st.sampled_from(["\n", "\r\n"]),
    st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]),
    st.booleans(),
    st.booleans(),
    st.sampled_from(["", "# mine\n", "\n#a;b,c\n\n"]),
    st.lists(
        st.lists(CELLS.filter(lambda cell: not cell.startswith("#")), min_size=6, max_size=6), max_size=4
    ),
)
def test_a_table_in_any_spelling_is_read(
    tmp_path_factory: pytest.TempPathFactory, columns: list[str], how: list[int], separator: str, end: str,
    encoding: str, said: bool, quoted: bool, comment: str, rows: list[list[str]],
) -> None:  # fmt: skip
    text = io.StringIO()
    text.write(f"sep={separator}{end}" if said else "")
    text.write(comment)
    writer = csv.writer(
        text, delimiter=separator, lineterminator=end, quoting=csv.QUOTE_ALL if quoted else csv.QUOTE_MINIMAL
    )
    writer.writerow(list(map(spelt, columns, how)))
    kept = [*(row for row in rows if any(row)), ["x"] * 6]
    for row in kept:
        writer.writerow(row)
        text.write(comment)
    path = tmp_path_factory.mktemp("table") / "jobs.csv"
    path.write_bytes(text.getvalue().encode(encoding))
    read = values(path)
    decimal = re.compile(r"[+-]?[0-9]*,[0-9]+")
    for row, found in zip(kept, read, strict=True):
        expected = {name: cell for name, cell in zip(columns, row, strict=True) if cell}
        for name, cell in expected.items():
            if (
                separator != ","
                and name not in {"reference", "driving", "output"}
                and decimal.fullmatch(cell)
            ):
                expected[name] = cell.replace(",", ".")
        assert found == expected


@given(
    st.lists(
        WORDS.filter(lambda word: not set(word) & set(";|#")), max_size=5, unique_by=str.casefold
    ).filter(lambda words: all(match_column(word) is None for word in words)),
    st.lists(st.lists(CELLS, min_size=5, max_size=5), min_size=1, max_size=6),
)
def test_any_csv_comes_back(
    tmp_path_factory: pytest.TempPathFactory, columns: list[str], rows: list[list[str]]
) -> None:
    columns = ["reference", "driving", *columns]
    rows = [["a#", "b", *row] for row in rows]
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(columns)
    kept = [row[: len(columns)] for row in rows if any(row[: len(columns)])]
    writer.writerows(kept)
    path = tmp_path_factory.mktemp("table") / "jobs.csv"
    path.write_text(text.getvalue(), newline="")
    expected = [{name: cell for name, cell in zip(columns, row, strict=True) if cell} for row in kept]
    if expected:
        assert values(path) == expected
    else:
        with pytest.raises(InputError, match="holds no jobs"):
            values(path)


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
def test_without_a_header_the_first_row_is_a_job(tmp_path: Path, separator: str) -> None:
    rows = [["a.jpg", "clips/b.mp4", "one.mp4"], ["c.png", "s3://d/e.mov", ""]]
    (tmp_path / "a.csv").write_text("\n".join(map(separator.join, rows)))
    assert values(tmp_path / "a.csv") == [
        {"reference": "a.jpg", "driving": "clips/b.mp4", "output": "one.mp4"},
        {"reference": "c.png", "driving": "s3://d/e.mov"},
    ]


def test_rows_may_be_commented_out_but_cells_may_hold_anything(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('reference,driving\n#a,b\n"#c",d\ne,"f\n#g"\n')
    assert values(tmp_path / "a.csv") == [
        {"reference": "#c", "driving": "d"},
        {"reference": "e", "driving": "f\n#g"},
    ]


@given(st.binary(max_size=60), st.sampled_from([".csv", ".jsonl", ".parquet"]))
def test_any_bytes_are_a_table_or_refused(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, suffix: str
) -> None:
    path = tmp_path_factory.mktemp("table") / f"jobs{suffix}"
    path.write_bytes(data)
    with contextlib.suppress(InputError):
        assert read_table(str(path))


def test_what_spreadsheets_write(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes("\ufeffreference;driving;size\r\nä.png;b.mp4;256\r\n;;\r\n".encode())
    assert values(tmp_path / "a.csv") == [{"reference": "ä.png", "driving": "b.mp4", "size": "256"}]


def test_json_lines(tmp_path: Path, store: str) -> None:
    lines = [{"reference": "a", "driving": "b", "options": {"size": 256}}, {"reference": "c", "fps": None}]
    storage.write_bytes(f"{store}/jobs.jsonl", "\n\n".join(map(json.dumps, lines)).encode())
    rows = read_table(f"{store}/jobs.jsonl")
    assert [dict(row.values) for row in rows] == [lines[0], {"reference": "c"}]
    assert [row.where for row in rows] == ["line 1 of jobs.jsonl", "line 3 of jobs.jsonl"]


def test_parquet(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    rows = [{"reference": "a", "size": 256}, {"reference": "c", "size": None}]
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "jobs.parquet")
    assert values(tmp_path / "jobs.parquet") == [{"reference": "a", "size": 256}, {"reference": "c"}]


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("jobs.txt", b"", "Its name must end in .csv, .tsv, .jsonl"),
        ("jobs.xlsx", b"", "save the sheet as CSV"),
        ("jobs.json", b"", "one object a line"),
        (
            "jobs.csv",
            b"portrait,clip\na,b\n",
            "line 1 .* no column reference or driving: .* comma, it has 'portrait'",
        ),
        ("jobs.csv", b"reference:driving\na:b\n", "names no column reference or driving: separated by"),
        ("jobs.csv", b"Reference,output\na,b\n", "names no column driving"),
        ("jobs.csv", b"reference,driving,Size,size\na,b,1,2\n", "line 1 .* column size appears twice"),
        ("jobs.csv", b"reference,driving,\na,b,c\n", "'c' in a column that the header does not name"),
        ("jobs.jsonl", b'{"Size": 1, "size": 2}', "column size appears twice"),
        ("jobs.csv", "reference,driving\na,b\n".encode("utf-16-le"), "not UTF-8"),
        ("jobs.csv", b"reference,driving\n", "jobs.csv holds no jobs"),
        ("jobs.csv", b"reference,driving\na,b,c\n", "line 2 of jobs.csv has 3 cells, the header 2"),
        ("jobs.csv", b'reference,driving\n"a"b,c\n', "line 2 of jobs.csv is not valid CSV"),
        ("jobs.csv", b"reference\n\xff\n", "not UTF-8 from byte 10"),
        ("jobs.jsonl", b"{}\n{", "line 2 of jobs.jsonl is not valid JSON"),
        ("jobs.jsonl", b"[1]", "line 1 of jobs.jsonl must be an object"),
        ("jobs.parquet", b"no", "is not a Parquet file"),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, name: str, data: bytes, words: str) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(InputError, match=words):
        read_table(str(tmp_path / name))


def test_a_missing_table_is_said(tmp_path: Path) -> None:
    with pytest.raises(MediaError, match="no such file"):
        read_table(str(tmp_path / "jobs.csv"))
