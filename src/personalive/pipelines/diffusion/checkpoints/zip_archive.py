"""The zip archive that `torch.save` writes: its records, and checks that all readers see the same, whole ones."""

from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

from personalive.errors import WeightsError

PICKLE_RECORD = "data.pkl"
_BLOCK_SIZE = 4 << 20
_ZIP_MAGIC = b"PK\x03\x04"
# The ends of archives: the signature first; the size and the offset of the list of records, and what follows it.
_END_RECORD = struct.Struct("<4s4H2LH")
_END_LOCATOR_64 = struct.Struct("<4sLQL")
_END_RECORD_64 = struct.Struct("<4sQ2H2L4Q")


def is_zip(path: Path) -> bool:
    """Return whether the file is a zip archive, which can be mapped into memory."""
    with path.open("rb") as file:
        return file.read(len(_ZIP_MAGIC)) == _ZIP_MAGIC


def list_records(path: Path) -> dict[str, int]:
    """Return the sizes of an archive's records, by their names within its folder; the pickle is one of them.

    Raises `WeightsError` for an archive that `torch.save` does not write, and possibly any error for a damaged one.
    """
    _check_single_directory(path)
    sizes: dict[str, int] = {}
    with zipfile.ZipFile(path) as archive:
        listed = archive.infolist()
        if not any(_record_name(record) == PICKLE_RECORD for record in listed):
            held = f"holds {listed[0].filename[:100]!r}" if listed else "is empty"
            raise WeightsError(f"{path} is a zip archive that {held}: unpack it, and give what is in it.")
        for record in listed:
            # No record may be compressed, as a few megabytes could unpack to gigabytes.
            if record.compress_type != zipfile.ZIP_STORED or record.compress_size != record.file_size:
                raise WeightsError(f"{path} is compressed, which files of weights are not.")
            if _record_name(record) in sizes:
                raise WeightsError(f"{path} holds {_record_name(record)[:100]!r} twice.")
            sizes[_record_name(record)] = record.file_size
    if sum(sizes.values()) > path.stat().st_size:
        raise WeightsError(f"{path} says that it holds more than its own size. Fetch it again.")
    return sizes


def verify_checksums(path: Path, progress: Callable[[int], None] | None = None) -> None:
    """Compare every record of an archive with its checksum; `progress` is called with the number of bytes read.

    Raises `WeightsError` naming the first record with another checksum. Records without one, which `torch.save` can
    be configured to write, are skipped.
    """
    tell = progress or (lambda nbytes: None)
    with zipfile.ZipFile(path) as archive:
        for record in archive.infolist():
            if not record.CRC:
                tell(record.file_size)
                continue
            try:
                with archive.open(record) as opened:
                    while block := opened.read(_BLOCK_SIZE):
                        tell(len(block))
            except (zipfile.BadZipFile, EOFError) as error:
                shown = _record_name(record)[:100]
                raise WeightsError(
                    f"{path} is damaged: its record {shown!r} does not have its checksum. Fetch it again."
                ) from error


def _record_name(record: zipfile.ZipInfo) -> str:
    return record.filename.partition("/")[2]


def _check_single_directory(path: Path) -> None:
    """Raise `WeightsError` unless the list of records, by its declared offset and size, ends where the end begins.

    Otherwise Python's reader and torch's may use different lists: one relies on the offset, the other on the end.
    """
    with path.open("rb") as file:
        size = file.seek(0, io.SEEK_END)
        file.seek(max(0, size - _END_RECORD.size - _END_LOCATOR_64.size - _END_RECORD_64.size))
        tail = file.read()
    end = size - _END_RECORD.size
    signature, *_, length, offset, comment = _END_RECORD.unpack(tail[-_END_RECORD.size :])
    sound = signature == b"PK\x05\x06" and comment == 0
    locator = tail[-_END_RECORD.size - _END_LOCATOR_64.size : -_END_RECORD.size]
    if locator.startswith(b"PK\x06\x07"):
        end -= _END_LOCATOR_64.size + _END_RECORD_64.size
        _, _, place, _ = _END_LOCATOR_64.unpack(locator)
        signature, *_, length, offset = _END_RECORD_64.unpack(tail[: _END_RECORD_64.size])
        sound = sound and signature == b"PK\x06\x06" and place == end
    if not sound or offset + length != end:
        raise WeightsError(
            f"{path} is damaged or no file of weights (it does not end as they do). Fetch it again."
        )
