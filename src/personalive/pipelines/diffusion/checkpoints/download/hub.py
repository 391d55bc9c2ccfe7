"""Requests to the hub: which files a repository has, and their bytes from any offset.

huggingface_hub handles the hub's addresses, tokens, proxies and answers. Its download is not used: since version 1
it deletes an incomplete file when the process ends, and these files have gigabytes.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from importlib.metadata import version
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlsplit

from personalive.errors import AccessDeniedError, DownloadError, InputError, OfflineError
from personalive.pipelines.diffusion.checkpoints import layout
from personalive.pipelines.diffusion.checkpoints.download import environment
from personalive.pipelines.diffusion.checkpoints.download.retry import TransientError
from personalive.pipelines.diffusion.checkpoints.download.staging import missing_library_error
from personalive.pipelines.diffusion.checkpoints.download.verified_files import Digest
from personalive.pipelines.diffusion.checkpoints.layout import Repository

if TYPE_CHECKING:
    from huggingface_hub.errors import HfHubHTTPError

_DEFAULT_ENDPOINT = "https://huggingface.co"
_TRUE_VALUES = {"1", "ON", "YES", "TRUE"}
_TRANSIENT_STATUS = {408, 429, 500, 502, 503, 504}
# A content network answers so for an address whose signature has expired, or to a machine that it limits for a
# while; the hub signs another address for the next attempt.
_TRANSIENT_MIRROR_STATUS = {400, 401, 403}
_RANGE_NOT_SATISFIABLE = 416
_HOST = re.compile(r"[\w.:%-]+")
_HASH_PATTERNS = {"sha256": re.compile(r"[0-9a-f]{64}"), "sha1": re.compile(r"[0-9a-f]{40}")}


@dataclass(frozen=True, slots=True)
class HubFile:
    """A file on the hub: its path in the repository, its size in bytes and its hash.

    An incomplete file is named by its hash, so hashes are validated: a forged answer must not choose a file's name.
    Raises `ValueError` or `TypeError` for an invalid size or hash, or a path out of the repository.
    """

    path: str
    size: int
    digest: Digest

    def __post_init__(self) -> None:
        parts = PurePosixPath(self.path)
        if parts.is_absolute() or ".." in parts.parts:
            raise ValueError("a path leads out of the repository")
        if type(self.size) is not int or self.size < 0:
            raise ValueError("a size is no number of bytes")
        if not _HASH_PATTERNS[self.digest.algorithm].fullmatch(self.digest.value):
            raise ValueError("a hash is none")


@dataclass(frozen=True, slots=True)
class RepositoryListing:
    """A repository's files by path, at the commit that its revision currently refers to."""

    repository: Repository
    commit: str
    files: dict[str, HubFile]


@dataclass(frozen=True, slots=True)
class ResponseBody:
    """The bytes of a file from `start` on."""

    start: int
    chunks: Iterator[bytes]


class HubClient:
    """The hub at `$HF_ENDPOINT`, with the token in `$HF_TOKEN` or of `hf auth login`, if there is one.

    `address` is for messages, without the name and password that the endpoint may contain.
    Raises `InputError` for an invalid address, and `PipelineUnavailableError` without huggingface_hub.
    """

    def __init__(self) -> None:
        try:
            from huggingface_hub import constants
        except ImportError:
            raise missing_library_error("huggingface_hub") from None
        self._endpoint = (os.environ.get("HF_ENDPOINT") or _DEFAULT_ENDPOINT).strip().rstrip("/")
        self.address = _redact_credentials(self._endpoint)
        if not _is_url(self._endpoint):
            raise InputError(
                f"HF_ENDPOINT must be an address such as {_DEFAULT_ENDPOINT}, not {self.address!r}."
            )
        # Otherwise the library first fetches a list of coding agents, and tells the hub which program runs here.
        constants.HF_HUB_DISABLE_TELEMETRY = True
        self._timeout = float(constants.HF_HUB_DOWNLOAD_TIMEOUT)

    def list_files(self, repository: Repository, paths: Collection[str]) -> RepositoryListing:
        """Ask which of those files a repository has, by one request where the hub sends sizes and hashes.

        Some mirrors list names only; they are asked for each file. A file without a size and a hash cannot be
        verified, so it counts as not published. Known digests take precedence over the hub's answer.

        Raises `TransientError` for temporary failures, `OfflineError`, `AccessDeniedError`, or `DownloadError`.
        """
        from huggingface_hub import HfApi

        with self._translate_errors(repository):
            api = HfApi(self._endpoint, library_name="personalive", library_version=version("personalive"))
            try:
                info = api.model_info(
                    repository.name,
                    revision=repository.revision,
                    files_metadata=True,
                    timeout=self._timeout,
                )
                commit = str(info.sha)
                listed = [entry for entry in info.siblings or [] if entry.rfilename in paths]
                found = [self._parse_listed_file(repository, commit, entry) for entry in listed]
                return RepositoryListing(
                    repository, commit, {file.path: file for file in found if file is not None}
                )
            except (ValueError, TypeError, LookupError, AttributeError) as error:  # no list of files
                raise DownloadError(
                    f"{self.address} does not answer as a hub does: check HF_ENDPOINT, and that no proxy or "
                    "log-in page is in between."
                ) from error

    def _parse_listed_file(self, repository: Repository, commit: str, entry: Any) -> HubFile | None:
        """Return a listed file. Raises `DownloadError` where it differs from the file known to be published."""
        listed, known = _parse_listing_entry(entry), layout.KNOWN_DIGESTS.get((repository, entry.rfilename))
        if known is None:
            return listed or self._probe_file(repository, commit, entry)
        whole = HubFile(entry.rfilename, known.size, Digest("sha256", known.sha256))
        if listed is not None and listed.digest.algorithm == "sha256" and listed != whole:
            raise DownloadError(
                f"{self.address} has another {whole.path} of {repository.name} than the one that is published at "
                f"revision {repository.revision}: name another mirror in HF_ENDPOINT, or none. (--revision "
                f"{repository.name}=main accepts any file.)"
            )
        return whole

    def _probe_file(self, repository: Repository, commit: str, entry: Any) -> HubFile | None:
        """Return a file by the headers of its address, where the ETag is the hash; None without a hash or size."""
        from huggingface_hub import get_hf_file_metadata, hf_hub_url

        url = hf_hub_url(repository.name, entry.rfilename, revision=commit, endpoint=self._endpoint)
        metadata = get_hf_file_metadata(url, timeout=self._timeout, endpoint=self._endpoint)
        tag = metadata.etag or ""
        algorithm = next((kind for kind, form in _HASH_PATTERNS.items() if form.fullmatch(tag)), None)
        if metadata.size is None or algorithm is None:
            return None
        return HubFile(entry.rfilename, metadata.size, Digest(algorithm, tag))

    @contextmanager
    def open_file(self, listing: RepositoryListing, path: str, start: int) -> Iterator[ResponseBody]:
        """Open a file of a repository for reading from byte `start` on, or from 0 if the server cannot do that.

        Raises the errors of `list_files`, while reading too.
        """
        from huggingface_hub import get_session, hf_hub_url
        from huggingface_hub.utils import (  # type: ignore[attr-defined]  # it resolves them when asked for
            build_hf_headers,
            hf_raise_for_status,
        )

        url = hf_hub_url(listing.repository.name, path, revision=listing.commit, endpoint=self._endpoint)
        headers = build_hf_headers(library_name="personalive", library_version=version("personalive"))
        headers["Accept-Encoding"] = "identity"  # an offset in compressed data is not an offset in the file
        if start:
            headers["Range"] = f"bytes={start}-"
        with (
            self._translate_errors(listing.repository),
            get_session().stream("GET", url, headers=headers, timeout=self._timeout) as response,
        ):
            hf_raise_for_status(response)
            partly = response.headers.get("Content-Range", "").startswith(f"bytes {start}-")
            yield ResponseBody(start if partly else 0, response.iter_bytes())

    @contextmanager
    def _translate_errors(self, repository: Repository) -> Iterator[None]:
        """Convert the errors of huggingface_hub and of the HTTP library to this package's errors."""
        from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

        if os.environ.get("HF_HUB_OFFLINE", "").upper() in _TRUE_VALUES:
            raise OfflineError("HF_HUB_OFFLINE is set, so the hub is not asked.")
        environment.configure_connection()
        # Its HTTP library depends on its version; all errors of that library have this base class.
        network_error = cast("type[Exception]", HfHubHTTPError.__bases__[0])
        try:
            yield
        except OfflineModeIsEnabled as error:
            raise OfflineError("huggingface_hub is in offline mode, so the hub is not asked.") from error
        except HfHubHTTPError as error:
            raise self._status_error(error, repository) from error
        except network_error as error:
            raise self._connection_error(error) from error

    def _connection_error(self, error: Exception) -> Exception:
        """Return the error for a failed connection, naming the host, since a mirror may redirect to another."""
        host = self._requested_host(error)
        untrusted = environment.explain_untrusted_certificate(error, host)
        if untrusted is not None:  # another attempt would not change that
            return OfflineError(untrusted)
        proxy = environment.describe_proxy(error)
        where = host if host == self.address else f"{host}, to which {self.address} redirects"
        return TransientError(f"no connection to {proxy or where} ({self._describe_error(error)})")

    def _requested_host(self, error: Any) -> str:
        """Return the address that was asked last, as it may be shown."""
        answered = getattr(error, "response", None)
        try:
            host = environment.display_host(str((error if answered is None else answered).request.url))
        except (RuntimeError, AttributeError, ValueError):  # no request was made, or none is reported
            return self.address
        return self.address if host == environment.display_host(self._endpoint) else host

    def _describe_error(self, error: Exception) -> str:
        message = " ".join(str(error).split()).replace(self._endpoint, self.address)
        return message or type(error).__name__

    def _status_error(self, error: HfHubHTTPError, repository: Repository) -> Exception:
        """Return the error for an answer of failure; the hub answers 401 for missing repositories too."""
        from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

        status, name, hub = error.response.status_code, repository.name, self.address
        host = self._requested_host(error)
        if status in _TRANSIENT_STATUS:
            return TransientError(f"{host} answers {status}", busy=True, wait=_retry_after(error))
        if status == _RANGE_NOT_SATISFIABLE:
            return TransientError(f"{hub} answers {status}", restart=True)
        denied = status in {401, 403}
        if isinstance(error, GatedRepoError):
            text = (
                f"{name} is open only to those who accepted its terms: accept them on {hub}/{name}, then set "
                "HF_TOKEN to a token of that account."
            )
        elif isinstance(error, RevisionNotFoundError):
            text = f"{name} has no revision {repository.revision!r} at {hub}: try --revision {name}=main."
        elif isinstance(error, RepositoryNotFoundError):
            text = (
                f"{hub} has no repository {name}, or shows it to some only: check HF_ENDPOINT, or set HF_TOKEN to "
                "a token that may read it."
            )
        elif host != hub and status in _TRANSIENT_MIRROR_STATUS:
            return TransientError(f"{host}, to which {hub} redirects, answers {status}")
        elif denied:
            text = (
                f"{hub} refuses access to {name} ({status}): set HF_TOKEN to a token that may read it, or unset it "
                "if it is an old one."
            )
        elif host != hub:
            text = f"{host}, to which {hub} redirects, answers {status} for {name}: try again later."
        else:
            text = f"{hub} answers {status} for {name}: check HF_ENDPOINT, or try again later."
        return AccessDeniedError(text) if denied else DownloadError(text)


def _parse_listing_entry(entry: Any) -> HubFile | None:
    """Return a file as it was listed; None when its size or hash is missing. Raises the errors of `HubFile`."""
    if entry.lfs is not None:
        size, digest = entry.lfs.size, Digest("sha256", entry.lfs.sha256)
    else:
        size, digest = entry.size, Digest("sha1", entry.blob_id)
    return HubFile(entry.rfilename, size, digest) if size is not None and digest.value else None


def _retry_after(error: HfHubHTTPError) -> float | None:
    """Return the seconds that the hub asks to wait, by either of the headers it uses; None without one."""
    headers = error.response.headers
    try:  # servers in between may send a date instead of seconds
        until = parsedate_to_datetime(headers.get("Retry-After", ""))
        return max((until - datetime.now(UTC)).total_seconds(), 0.0)
    except (ValueError, TypeError):
        pass
    asked = re.fullmatch(r"\s*(\d+)\s*", headers.get("Retry-After", ""))
    asked = asked or re.search(r"\br=0\b.*\bt=(\d+)", headers.get("RateLimit", ""))
    return float(asked[1]) if asked else None


def _is_url(text: str) -> bool:
    try:
        parts = urlsplit(text)
        _ = parts.port  # raises when it is invalid
    except ValueError:
        return False
    return parts.scheme in {"http", "https"} and bool(_HOST.fullmatch(parts.hostname or ""))


def _redact_credentials(address: str) -> str:
    """Return an address without all before its last @, which may be a password with any characters."""
    return re.sub(r"^([A-Za-z]+://)?.*@", lambda match: match[1] or "", address, flags=re.DOTALL)
