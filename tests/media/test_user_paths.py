from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from personalive.errors import MediaError, PersonaLiveError
from personalive.jobs.output import check_output_path
from personalive.jobs.reference_image import read_reference
from personalive.media import check_output, is_image_file, open_driving, read_image, read_provenance
from personalive.media.user_paths import check_is_file, check_name, check_new_file

READERS: list[Callable[[Path], object]] = [
    read_image,
    open_driving,
    read_reference,
    read_provenance,
    check_is_file,
]


def refused_in_words(path: Path, words: str) -> None:
    for read in READERS:
        with pytest.raises(MediaError, match=words):
            read(path)
    assert not is_image_file(path)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has none of these in folders")
def test_what_could_be_waited_for_for_ever_is_not_opened(tmp_path: Path) -> None:
    if sys.platform == "win32":  # for the check of types
        return
    pipe = tmp_path / "pipe.png"
    os.mkfifo(pipe)
    refused_in_words(pipe, r"pipe\.png is a pipe: save")
    refused_in_words(Path("/dev/zero"), "is a device")
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(tmp_path / "s.mp4"))
        refused_in_words(tmp_path / "s.mp4", "is a socket")
    for path in (pipe, Path("/dev/null"), Path("/dev/zero")):
        with pytest.raises(MediaError, match=r"is a (pipe|device)\. Name a file"):
            check_output_path(path, overwrite=True)
    assert pipe.is_fifo()
    (tmp_path / "link.mp4").symlink_to("/dev/null")
    with pytest.raises(MediaError, match="is a device"):
        check_output(tmp_path / "link.mp4", overwrite=True)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("https://example.org/a/me.jpg", r"^https://example\.org/a/me\.jpg is an address: download it first"),
        ("rtsp://camera/1", "is an address"),
        ("~/nobody-has-this/me.jpg", r"has not put the home folder for ~: write .*nobody-has-this"),
        ("~no-such-user-here/me.jpg", "no user of this machine has that home folder"),
        ("-", "stands for standard input"),
        ("f%d.png", "name the folder that holds them"),
        ("out/*.png", "name the folder that holds them"),
        ("a\0b.png", r"a\\0b\.png holds a NUL"),
        ("no/such/file.png", "does not exist"),
    ],
)
def test_what_was_meant_for_others_gets_its_sentence(
    text: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "out").mkdir()
    refused_in_words(Path(text), words)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("https://example.org/out.mp4", "is an address: name a file here"),
        ("~/nobody-has-this/out.mp4", "has not put the home folder"),
        ("a\0b.mp4", "NUL"),
        ("no/out.mp4", "the folder .*no does not exist"),
        ("x" * 252 + ".mp4", "a name of 256 bytes"),
    ],
)
def test_outputs_of_such_names_too(
    text: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(MediaError, match=words):
        check_output_path(Path(text), overwrite=False)
    assert list(tmp_path.iterdir()) == []


@settings(max_examples=50)
@given(st.text(min_size=1, max_size=400))
def test_any_text_is_a_path_or_gets_a_sentence(text: str) -> None:
    for check in (check_is_file, check_new_file, check_name, open_driving, read_reference):
        try:
            check(Path("/nowhere-at-all") / Path(text).name)
        except PersonaLiveError as error:
            assert str(error).endswith(".")  # noqa: PT017


@pytest.mark.skipif(sys.platform == "win32", reason="Windows counts otherwise")
@settings(max_examples=30)
@given(st.text(st.sampled_from("aä漢🎭"), min_size=60, max_size=300))
def test_names_are_measured_as_the_system_does(name: str) -> None:
    path = Path("/tmp") / name
    try:
        path.stat()
    except FileNotFoundError:
        check_name(path)
    except OSError:
        with pytest.raises(MediaError, match="a name of"):
            check_name(path)
