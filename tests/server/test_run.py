from __future__ import annotations

import socket

import pytest

from personalive.errors import InputError
from personalive.server.run import bind_socket, local_url


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "0.0.0.0", "::1"])
def test_it_listens_where_it_is_told(host: str) -> None:
    if host == "::1" and not socket.has_ipv6:
        pytest.skip("no IPv6 here")
    try:
        listener = bind_socket(host, 0)
    except InputError as error:
        if host == "::1":
            pytest.skip(f"no IPv6 here: {error}")
        raise
    with listener:
        address = local_url(host, listener.getsockname()[1])
        assert address.startswith("http://")
        assert address.endswith(f":{listener.getsockname()[1]}")
        assert "0.0.0.0" not in address


def test_a_port_that_is_taken_is_told_in_words() -> None:
    with bind_socket("127.0.0.1", 0) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(InputError, match=f"Port {port} of 127.0.0.1 is taken: .* --port"):
            bind_socket("127.0.0.1", port)


def test_a_port_that_was_just_given_back_can_be_taken() -> None:
    with bind_socket("127.0.0.1", 0) as first:
        port = first.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)):
            first.setblocking(True)
            first.accept()[0].close()
    bind_socket("127.0.0.1", port).close()


@pytest.mark.parametrize("host", ["203.0.113.1", "no.such.host.invalid", "not an address"])
def test_an_address_that_is_none_is_told_in_words(host: str) -> None:
    with pytest.raises(InputError, match="is no address"):
        bind_socket(host, 0)
