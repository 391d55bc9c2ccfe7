"""This machine's settings for connections to the hub (proxy, certificates, token), and what is wrong with them."""

from __future__ import annotations

import os
import re
import ssl
from collections.abc import Iterator
from urllib.parse import urlsplit

from personalive.errors import InputError, PipelineUnavailableError
from personalive.installation import pip_command

_CERTIFICATES = ("SSL_CERT_FILE", "SSL_CERT_DIR")
_REQUESTS_CERTIFICATES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
_PROXIES = ("ALL_PROXY", "HTTPS_PROXY", "HTTP_PROXY")
_TOKENS = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")
_TOKEN = re.compile(r"[A-Za-z0-9._~+/=-]+")


def configure_connection() -> None:
    """Configure connections from the environment.

    Raises `InputError` naming the variable that is wrong, and `PipelineUnavailableError` where a proxy needs a
    library that is not installed.
    """
    _check_token()
    from huggingface_hub import get_session

    try:
        get_session()
    except ImportError:
        raise PipelineUnavailableError(
            f"{_proxy_variables('socks')} names a SOCKS proxy, which needs the package socksio: run "
            f"{pip_command('socksio')}, or name an http proxy."
        ) from None
    except (OSError, ssl.SSLError) as error:
        named = next((name for name in _CERTIFICATES if os.environ.get(name)), _CERTIFICATES[0])
        raise InputError(
            f"{named} must name a file of certificates (PEM), or a folder of such with SSL_CERT_DIR; "
            f"{os.environ.get(named, '')!r} cannot be read as one ({error.strerror or error})."
        ) from error
    except Exception as error:  # the type for an invalid address depends on the library's version
        raise InputError(
            f"{_proxy_variables('')} must name a proxy such as http://proxy.example:3128 (or socks5://, https://): "
            f"{type(error).__name__}."
        ) from None


def _check_token() -> None:
    """Raise `InputError` for a token with invalid characters; the connection's error would show the token."""
    from huggingface_hub import get_token

    name = next((name for name in _TOKENS if os.environ.get(name)), None)
    # Read unchanged from the environment, since the library joins the parts around a line break.
    try:
        given = os.environ[name].strip() if name else get_token()
    except (OSError, ValueError) as error:
        raise InputError(
            "The token of hf auth login cannot be read: log in again, or set HF_TOKEN."
        ) from error
    if given and not _TOKEN.fullmatch(given):
        broken = (
            "line breaks" if "\n" in given or "\r" in given else "spaces, quotes or other invalid characters"
        )
        raise InputError(f"The token in {name or 'the file of hf auth login'} holds {broken}: copy it again.")


def explain_untrusted_certificate(error: BaseException, host: str) -> str | None:
    """Return what to do about a certificate that is not trusted; None for an error of another kind."""
    chain = list(_cause_chain(error))
    verified = any(isinstance(each, ssl.SSLCertVerificationError) for each in chain)
    if not verified and not any("CERTIFICATE_VERIFY_FAILED" in str(each) for each in chain):
        return None
    other = next((name for name in _REQUESTS_CERTIFICATES if os.environ.get(name)), None)
    own = next((name for name in _CERTIFICATES if os.environ.get(name)), None)
    hint = f"{other} is not used; set SSL_CERT_FILE to the same file" if other else _HINT
    if own:
        hint = f"{own} is set to {os.environ[own]!r}, which does not cover it"
    return f"The certificate of {host} is not trusted on this machine: {hint}."


_HINT = (
    "where a company inspects connections, set SSL_CERT_FILE to a file with its certificate; otherwise check "
    "this machine's clock and its list of certificates (ca-certificates)"
)


def describe_proxy(error: BaseException) -> str | None:
    """Return which proxy an error is about; None for other errors."""
    if not any(type(each).__name__ == "ProxyError" for each in _cause_chain(error)):
        return None
    return f"the proxy in {_proxy_variables('')}"


def _proxy_variables(scheme: str) -> str:
    """Return the names of the variables that name a proxy of that scheme, for a message."""
    found = [
        name
        for name in _PROXIES
        for spelt in (name, name.lower())
        if os.environ.get(spelt, "").lower().startswith(scheme) and os.environ.get(spelt)
    ]
    return " and ".join(dict.fromkeys(found)) or "This machine's setting"


def display_host(url: str) -> str:
    """Return the scheme, host and port of an address, which may be shown."""
    parts = urlsplit(url)
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    return f"{parts.scheme}://{host}" + (f":{parts.port}" if parts.port else "")


def _cause_chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__
