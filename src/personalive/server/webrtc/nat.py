"""Add the public address to the answers of a server behind a one-to-one NAT."""

from __future__ import annotations

import ipaddress


def add_public_candidates(sdp: str, public_ip: str | None) -> str:
    """Return the SDP with a candidate at `public_ip`, with the same port, for each host candidate.

    Cloud providers map a public address to a machine's private one, port by port; the machine does not know it.
    """
    if public_ip is None:
        return sdp
    lines: list[str] = []
    for line in sdp.split("\r\n"):
        lines.append(line)
        # a=candidate:<foundation> <component> udp <priority> <address> <port> typ host
        fields = line.split(" ")
        if (
            line.startswith("a=candidate:")
            and fields[6:8] == ["typ", "host"]
            and _is_same_family(fields[4], public_ip)
        ):
            foundation, component, transport, priority, address, port = fields[:6]
            seen = [f"{foundation}p", component, transport, str(int(priority) - 1), public_ip, port]
            lines.append(" ".join([*seen, "typ", "srflx", "raddr", address, "rport", port]))
    return "\r\n".join(lines)


def _is_same_family(address: str, public_ip: str) -> bool:
    try:
        own, public = ipaddress.ip_address(address), ipaddress.ip_address(public_ip)
    except ValueError:  # an mDNS name
        return False
    return own.version == public.version and own != public
