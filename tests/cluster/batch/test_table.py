from __future__ import annotations

import contextlib
import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from personalive.cluster.batch import storage
from personalive.cluster.batch.table import read_table
from personalive.errors import InputError, MediaError

WORDS = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs", "Zs", "Zl", "Zp"]), min_size=1)
CELLS = st.text(st.characters(codec="utf-8", exclude_characters="\r\0")).map(str.strip)


def values(path: Path) -> list[dict[str, Any]]:
    return [dict(row.values) for row in read_table(str(path))]


@given(
    st.lists(WORDS.filter(lambda word: ";" not in word), min_size=1, max_size=5, unique=True),
    st.lists(st.lists(CELLS, min_size=5, max_size=5), min_size=1, max_size=6),
)
def test_any_csv_comes_back(
    tmp_path_factory: pytest.TempPathFactory, columns: list[str], rows: list[list[str]]
) -> None:
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
    storage.write(f"{store}/jobs.jsonl", "\n\n".join(map(json.dumps, lines)).encode())
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
        ("jobs.txt", b"", "its name must end in .csv, .jsonl"),
        ("jobs.csv", b"reference,driving\n", "jobs.csv holds no jobs"),
        ("jobs.csv", b"reference,driving\na,b,c\n", "line 2 of jobs.csv has 3 cells, the header 2"),
        ("jobs.csv", b'reference\n"a"b\n', "line 2 of jobs.csv is no CSV"),
        ("jobs.csv", b"reference\n\xff\n", "not in UTF-8, from byte 10"),
        ("jobs.jsonl", b"{}\n{", "line 2 of jobs.jsonl is no JSON"),
        ("jobs.jsonl", b"[1]", "line 1 of jobs.jsonl must be an object"),
        ("jobs.parquet", b"no", "is no Parquet file"),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, name: str, data: bytes, words: str) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(InputError, match=words):
        read_table(str(tmp_path / name))


def test_a_missing_table_is_said(tmp_path: Path) -> None:
    with pytest.raises(MediaError, match="no such file"):
        read_table(str(tmp_path / "jobs.csv"))
