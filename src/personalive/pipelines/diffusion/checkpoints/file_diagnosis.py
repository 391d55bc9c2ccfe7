"""Diagnosis of files that should hold weights and do not: a pointer, a web page, an error message, half a file.

Downloads fail in a few ways, and each leaves a file of the right name. The first bytes tell them apart, so a user
learns of it before gigabytes are copied, and without the libraries that read weights.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

_HEAD_BYTES = 4096
_MAX_MESSAGE_BYTES = 1 << 16
_MAX_QUOTED = 60
_MAX_HEADER_BYTES = 100 << 20  # what the safetensors library accepts
_MAX_OFFSET = 1 << 63
_FETCH_AGAIN = "Fetch it again."
_LFS = (
    "a Git LFS pointer, not the file that it points to: run git lfs pull where it was cloned, or "
    "fetch the file itself"
)
_POINTERS = {
    b"version https://git-lfs.github.com/spec/": _LFS,
    b"version https://hawser.github.com/spec/": _LFS,
    b"/annex/objects/": "a git-annex pointer, not the file that it points to: run git annex get where it was "
    "cloned",
}
_ARCHIVES = {
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ\x00": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"7z\xbc\xaf\x27\x1c": "7z",
    b"Rar!\x1a\x07": "rar",
}
_ZIP, _ZIP_END = b"PK\x03\x04", b"PK\x05\x06"
_MAX_ZIP_END = (1 << 16) + 22
_TAR_OFFSET, _TAR = 257, b"ustar"
_BYTE_ORDER_MARKS = (b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")
_HTML = re.compile(rb"<!doctype\s+html|<(html|head|body|title|script|meta)\b", re.IGNORECASE)
_XML = re.compile(rb"<\?xml|<Error>", re.IGNORECASE)
_SAFETENSORS, _PICKLED = ".safetensors", (".pth", ".pt", ".bin", ".ckpt")


def diagnose_file(path: Path) -> str | None:
    """Return a sentence, with the file's name, on what is wrong with a file of weights or a config.json, or None.

    Raises `OSError`.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
    problem = _diagnose(path, head, size)
    return None if problem is None else f"{path} {problem}"


def _diagnose(path: Path, head: bytes, size: int) -> str | None:
    if size == 0:
        return f"is empty. {_FETCH_AGAIN}"
    if not head.strip(b"\0"):
        return (
            f"begins with nothing but zeros, as a download does that has not come to its end. {_FETCH_AGAIN}"
        )
    problem = _diagnose_pointer(head) or _diagnose_archive(head) or _diagnose_markup(head)
    if problem is not None or path.suffix == ".json":
        return problem
    return (
        _diagnose_text(path, head, size)
        or _diagnose_suffix(path, head)
        or _diagnose_truncation(path, head, size)
    )


def _diagnose_pointer(head: bytes) -> str | None:
    """Recognise a pointer that version control keeps in place of a large file."""
    words = next((words for start, words in _POINTERS.items() if head.startswith(start)), None)
    return None if words is None else f"is {words}."


def _diagnose_archive(head: bytes) -> str | None:
    """Recognise an archive that may contain the file, except zip, which `torch.save` writes too."""
    kind = next((name for start, name in _ARCHIVES.items() if head.startswith(start)), None)
    if head[_TAR_OFFSET:].startswith(_TAR):
        kind = "tar"
    return None if kind is None else f"is a {kind} archive: unpack it, and give what is in it."


def _diagnose_markup(head: bytes) -> str | None:
    """Recognise a web page or a store's XML error in place of the file."""
    text = head
    for mark in _BYTE_ORDER_MARKS:
        text = text.removeprefix(mark)
    text = re.sub(rb"<!--.*?-->", b"", text.replace(b"\0", b""), flags=re.DOTALL).lstrip()
    if _HTML.match(text) or (text.startswith(b"<") and _HTML.search(text)):
        return f"is a web page, as sites send that want a log-in or have no such file. {_FETCH_AGAIN}"
    if _XML.match(text):
        code = re.search(rb"<Code>([\w ]{1,40})</Code>", text)
        named = f" ({code[1].decode('ascii', 'replace')})" if code else ""
        return f"is an error message in XML{named}, as stores send that refuse a file. {_FETCH_AGAIN}"
    return None


def _diagnose_text(path: Path, head: bytes, size: int) -> str | None:
    """Recognise a text in place of the file, such as an API's answer in JSON."""
    if size > _MAX_MESSAGE_BYTES:
        return None
    try:
        text = path.read_bytes().decode()
    except UnicodeDecodeError:
        return None
    words = " ".join(text.split())
    if not words.isprintable():
        return None
    kind = "is JSON" if head.lstrip()[:1] in (b"{", b"[") else "is a text"
    return f"{kind}, not weights, and begins with {words[:_MAX_QUOTED]!r}. {_FETCH_AGAIN}"


def _diagnose_suffix(path: Path, head: bytes) -> str | None:
    """Recognise a file of one format that has the suffix of the other."""
    pickled = head.startswith((_ZIP, b"\x80\x02"))
    if path.suffix == _SAFETENSORS and pickled:
        return (
            f"is no safetensors file but one of torch.save: name it {path.stem}.pth (.bin for a library's)."
        )
    if path.suffix in _PICKLED and _header_length(head) is not None:
        return f"is a safetensors file: name it {path.stem}{_SAFETENSORS}."
    return None


def _diagnose_truncation(path: Path, head: bytes, size: int) -> str | None:
    """Recognise a file that is shorter than it describes; in torch.save's legacy format, reading finds that out."""
    if head.startswith(_ZIP):
        with path.open("rb") as file:
            file.seek(max(0, size - _MAX_ZIP_END))
            ended = _ZIP_END in file.read()
        return (
            None
            if ended
            else f"is cut short: {size:,} bytes are there, and its end is missing. {_FETCH_AGAIN}"
        )
    length = _header_length(head)
    if length is None:
        return None
    end = 8 + length + _described_bytes(path, length)
    return f"is cut short: {size:,} bytes of {end:,} are there. {_FETCH_AGAIN}" if size < end else None


def _header_length(head: bytes) -> int | None:
    """Return the length of the header that a safetensors file declares; None for a file of another format."""
    length = int.from_bytes(head[:8], "little")
    return length if length <= _MAX_HEADER_BYTES and head[8:9] == b"{" else None


def _described_bytes(path: Path, length: int) -> int:
    """Return the bytes of tensors that a safetensors header describes; 0 for a bad header, left to the library."""
    with path.open("rb") as file:
        file.seek(8)
        text = file.read(length)
    if len(text) < length:
        return 0
    try:
        entries = json.loads(text)
        offsets = [entry["data_offsets"][1] for name, entry in entries.items() if name != "__metadata__"]
    except (ValueError, RecursionError, LookupError, TypeError, AttributeError):
        return 0
    return max((end for end in offsets if type(end) is int and 0 <= end < _MAX_OFFSET), default=0)
