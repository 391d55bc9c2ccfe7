from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from personalive.pipelines.diffusion.checkpoints import layout
from personalive.pipelines.diffusion.checkpoints.download.verified_files import (
    VERIFIED_FILES,
    Digest,
    VerifiedFiles,
)
from personalive.pipelines.diffusion.checkpoints.layout import Repository

SHA256 = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"
GIT_SHA1 = "b6fc4c620b67d95f953a5c1c1230aaab5db5a1b0"  # echo -n hello | git hash-object --stdin
FILE = layout.VAE_CONFIG


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / FILE.folder / FILE.names[0]
    path.parent.mkdir(parents=True)
    path.write_bytes(b"hello")
    return path


@pytest.mark.parametrize(("algorithm", "value"), [("sha256", SHA256), ("sha1", GIT_SHA1)])
def test_digests_are_the_hubs(path: Path, algorithm: str, value: str) -> None:
    read: list[int] = []
    assert Digest(algorithm, value).matches(path, read.append)
    assert read == [5]
    path.write_bytes(b"Hello")
    assert not Digest(algorithm, value).matches(path)


def test_what_is_remembered_holds_while_the_file_is_the_same(path: Path, tmp_path: Path) -> None:
    assert not VerifiedFiles(tmp_path).is_verified(FILE)
    VerifiedFiles(tmp_path).add(path, FILE, Digest("sha1", GIT_SHA1), "c0ffee")
    assert VerifiedFiles(tmp_path).is_verified(FILE)
    before = path.stat().st_mtime_ns
    path.write_bytes(b"jello")
    os.utime(path, ns=(before, before + 1))
    assert not VerifiedFiles(tmp_path).is_verified(FILE)
    os.utime(path, ns=(before, before))
    assert VerifiedFiles(tmp_path).is_verified(FILE)
    path.write_bytes(b"hello!")
    os.utime(path, ns=(before, before))
    assert not VerifiedFiles(tmp_path).is_verified(FILE)
    path.unlink()
    assert not VerifiedFiles(tmp_path).is_verified(FILE)


def test_another_revision_or_repository_settles_nothing(path: Path, tmp_path: Path) -> None:
    VerifiedFiles(tmp_path).add(path, FILE, None, "c0ffee")
    name, revision = FILE.repository.name, FILE.repository.revision
    for other in (Repository(name, "main"), Repository("some/one", revision)):
        assert not VerifiedFiles(tmp_path).is_verified(replace(FILE, repository=other))
    assert {entry.name for entry in tmp_path.iterdir()} == {"sd-vae-ft-mse", VERIFIED_FILES}
