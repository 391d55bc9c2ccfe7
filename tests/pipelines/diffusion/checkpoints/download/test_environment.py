"""Proxies, certificates and tokens as they are set wrong, on real connections."""

from __future__ import annotations

import datetime
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from huggingface_hub import close_session, constants

from personalive.errors import DownloadError, InputError, OfflineError, PipelineUnavailableError
from personalive.pipelines.diffusion.checkpoints.download.downloader import download_weights
from personalive.pipelines.diffusion.checkpoints.download.environment import display_host
from personalive.pipelines.diffusion.checkpoints.download.retry import RetryPolicy
from tests.pipelines.diffusion.checkpoints.download.hub_server import HubServer, Watcher

PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
CERTIFICATES = ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")


@pytest.fixture(autouse=True)
def bare(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nothing is set but the hub, and no client remembers other settings."""
    del hub
    for name in (*PROXIES, *map(str.lower, PROXIES), *CERTIFICATES, "NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    close_session()
    yield
    close_session()


@pytest.mark.parametrize("name", ["ALL_PROXY", "HTTPS_PROXY", "http_proxy"])
@pytest.mark.parametrize("address", ["socks5://user:s3cret@127.0.0.1:9", "socks5h://127.0.0.1:9"])
def test_a_socks_proxy_needs_a_library(
    root: Path, monkeypatch: pytest.MonkeyPatch, name: str, address: str
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "socksio", None)
    monkeypatch.setenv(name, address)
    with pytest.raises(
        PipelineUnavailableError, match=r"names a SOCKS proxy, .* pip install socksio"
    ) as caught:
        download_weights(root)
    assert str(caught.value).startswith(name.upper())
    assert "s3cret" not in str(caught.value)
    assert not root.exists()


@pytest.mark.parametrize(
    "address", ["socks4://user:s3cret@127.0.0.1:9", "socks://127.0.0.1:9", "http://a:b:c"]
)
def test_a_proxy_that_is_none_is_named(root: Path, monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    monkeypatch.setenv("ALL_PROXY", address)
    with pytest.raises(InputError, match=r"ALL_PROXY must name a proxy such as http://") as caught:
        download_weights(root)
    assert "s3cret" not in str(caught.value)


def test_a_proxy_that_refuses_is_named(
    root: Path, monkeypatch: pytest.MonkeyPatch, patience: RetryPolicy
) -> None:
    """As one that wants a password does."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]

        def refuse() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection:
                    connection.recv(4096)
                    connection.sendall(
                        b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n"
                    )

        threading.Thread(target=refuse, daemon=True).start()
        monkeypatch.setenv("HTTPS_PROXY", f"http://user:s3cret@127.0.0.1:{port}")
        monkeypatch.setenv("HF_ENDPOINT", "https://hub.example")
        with pytest.raises(OfflineError, match=r"no connection to the proxy in HTTPS_PROXY \(407 ") as caught:
            download_weights(root, retry=patience)
        server.shutdown(socket.SHUT_RDWR)
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("content", [None, b"", b"no certificate"])
def test_certificates_that_cannot_be_read_are_named(
    root: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: bytes | None
) -> None:
    path = tmp_path / "company.pem"
    if content is not None:
        path.write_bytes(content)
    monkeypatch.setenv("SSL_CERT_FILE", str(path))
    with pytest.raises(
        InputError, match=rf"SSL_CERT_FILE must name a file of certificates \(PEM\), .*{path.name}"
    ):
        download_weights(root)


def company(folder: Path) -> tuple[Path, Path]:
    """A certificate for this machine that nobody has heard of, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    (folder / "cert.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    form = serialization.PrivateFormat.PKCS8
    pem = key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())
    (folder / "key.pem").write_bytes(pem)
    return folder / "cert.pem", folder / "key.pem"


@pytest.fixture
def secured(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """A hub behind such a certificate, which has nothing; its address and the certificate."""
    certificate, key = company(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                try:
                    with context.wrap_socket(connection, server_side=True) as secure:
                        secure.recv(4096)
                        secure.sendall(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
                except OSError:
                    connection.close()

        threading.Thread(target=serve, daemon=True).start()
        yield f"https://localhost:{server.getsockname()[1]}", certificate
        server.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        (None, "where a company inspects connections, set SSL_CERT_FILE to a file with its certificate"),
        ("REQUESTS_CA_BUNDLE", "REQUESTS_CA_BUNDLE is not used; set SSL_CERT_FILE to the same file"),
        ("CURL_CA_BUNDLE", "CURL_CA_BUNDLE is not used; set SSL_CERT_FILE to the same file"),
        ("SSL_CERT_FILE", "SSL_CERT_FILE is set to '.*other.pem', which does not cover it"),
    ],
)
def test_a_certificate_that_is_not_trusted_says_what_to_set(
    root: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    secured: tuple[str, Path],
    naps: list[float],
    patience: RetryPolicy,
    setting: str | None,
    words: str,
) -> None:
    address, certificate = secured
    monkeypatch.setenv("HF_ENDPOINT", address)
    if setting == "SSL_CERT_FILE":
        (tmp_path / "of").mkdir()
        certificate = company(tmp_path / "of")[0].rename(tmp_path / "other.pem")
    if setting:
        monkeypatch.setenv(setting, str(certificate))
    with pytest.raises(
        OfflineError, match=f"The certificate of {address} is not trusted on this machine: {words}"
    ):
        download_weights(root, retry=patience)
    assert naps == []


def test_a_company_s_certificate_is_trusted_when_it_is_named(
    root: Path, monkeypatch: pytest.MonkeyPatch, secured: tuple[str, Path]
) -> None:
    address, certificate = secured
    monkeypatch.setenv("HF_ENDPOINT", address)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    with pytest.raises(DownloadError, match="answers 404"):  # so it was asked
        download_weights(root)


@pytest.mark.parametrize("name", ["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"])
@pytest.mark.parametrize(
    ("token", "words"),
    [
        ("hf_secret\nhf_more", "holds line breaks: copy it again"),
        ("hf_secret\r\nmore", "holds line breaks"),
        ("'hf_secret'", "holds spaces, quotes or other invalid"),
        ("Bearer hf_secret", "holds spaces"),
        ("hf_sécret", "holds spaces, quotes or other invalid characters"),
    ],
)
def test_a_token_that_is_none_is_said_to_be_and_not_shown(
    hub: HubServer, root: Path, monkeypatch: pytest.MonkeyPatch, name: str, token: str, words: str
) -> None:
    monkeypatch.setenv(name, token)
    watcher = Watcher()
    with pytest.raises(InputError, match=f"The token in {name} {words}") as caught:
        download_weights(root, progress=watcher)
    assert not any("cret" in said for said in (str(caught.value), *watcher.notes))
    assert hub.requests == []


def test_a_line_break_at_its_end_does_no_harm(
    hub: HubServer, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret\r\n")
    monkeypatch.setenv("HF_ENDPOINT", f"{hub.address}/\r\n")
    download_weights(root)
    assert {request.headers["authorization"] for request in hub.of("api")} == {"Bearer hf_secret"}


def test_a_token_in_the_library_s_file_is_looked_at_too(
    root: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "token").write_text("hf secret")
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    with pytest.raises(InputError, match="The token in the file of hf auth login holds spaces"):
        download_weights(root)
    (tmp_path / "token").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="The token of hf auth login cannot be read: log in again"):
        download_weights(root)


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("https://user:s3cret@cdn.example:8443/path?signature=s3cret", "https://cdn.example:8443"),
        ("http://[::1]:80/x", "http://[::1]:80"),
        ("https://cdn.example/x", "https://cdn.example"),
    ],
)
def test_what_is_shown_of_an_address(url: str, host: str) -> None:
    assert display_host(url) == host
