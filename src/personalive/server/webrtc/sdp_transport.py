"""The transport attributes (ICE, DTLS) of an offer's sections: problems with them, and their lines for aiortc."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from aiortc.sdp import candidate_from_sdp

from personalive.server.webrtc.sdp import MediaSection, SessionDescription

_SETUP_ROLES = frozenset({"actpass", "active", "passive"})
_DEFAULT_SETUP = "active"
"""What an offer without `a=setup` means (RFC 4145)."""
_HASH_FUNCTIONS = frozenset({"sha-256", "sha-384", "sha-512"})


class TransportAttributes:
    """The transport attributes of an offer's sections: their own, the session's, or those of their bundle."""

    def __init__(self, offer: SessionDescription) -> None:
        self._offer = offer
        self._bundle = frozenset(offer.bundle)

    def is_bundled(self, section: MediaSection) -> bool:
        """Return whether the section shares a transport with others of the offer."""
        return section.mid in self._bundle

    def is_active(self, section: MediaSection) -> bool:
        """Return whether the section is active: port 0 disables one, unless it is bundle-only in a bundle."""
        return section.port != 0 or (section.has_attribute("bundle-only") and self.is_bundled(section))

    def find_objection(self, section: MediaSection) -> str | None:
        """Return a sentence that says why the section cannot connect, None where it can."""
        return next(self._iter_objections(section), None)

    def _iter_objections(self, section: MediaSection) -> Iterator[str]:
        data = section.kind == "application"
        if ("DTLS/SCTP" if data else "RTP/SAVP") not in section.protocol:
            needed = "UDP/DTLS/SCTP" if data else "UDP/TLS/RTP/SAVPF"
            yield f"The offer's {section.kind} is {section.protocol[:40]}: WebRTC needs {needed}, encrypted."
        fingerprints = self._get_all(section, "fingerprint")
        if not fingerprints:
            yield "The offer's SDP has no `a=fingerprint`: WebRTC needs one."
        elif not _usable_fingerprints(fingerprints):
            digests = sorted({value.partition(" ")[0][:20] for value in fingerprints})
            yield f"The offer's `a=fingerprint` is {', '.join(digests)}: sha-256, sha-384 and sha-512 are taken."
        if not (self._get_first(section, "ice-ufrag") and self._get_first(section, "ice-pwd")):
            yield "The offer's SDP has no `a=ice-ufrag` and `a=ice-pwd`: without ICE nothing connects."
        if (setup := self._setup_role(section)) not in _SETUP_ROLES:
            yield f"The offer's `a=setup:{setup[:20]}` cannot be answered: it is actpass, active or passive."
        if not (data or section.has_attribute("rtcp-mux") or section.has_attribute("rtcp-mux-only")):
            yield (
                f"The offer's {section.kind} section has no `a=rtcp-mux`: RTP and RTCP share one port here, as "
                "WebRTC wants it."
            )

    def to_sdp_lines(self, section: MediaSection, *, first: bool) -> list[str]:
        """Return a section's SDP lines for aiortc. The `first` of a bundle has the transport of the others too."""
        lines = [f"a=ice-{name}:{self._get_first(section, f'ice-{name}')}" for name in ("ufrag", "pwd")]
        lines += [
            f"a=fingerprint:{value}" for value in _usable_fingerprints(self._get_all(section, "fingerprint"))
        ]
        members = [other for other in self._offer.sections if self.is_bundled(other)] if first else [section]
        found = (value for member in members for value in member.attributes.get("candidate", ()))
        lines += [f"a=candidate:{value}" for value in dict.fromkeys(found) if _is_candidate(value)]
        if any(member.has_attribute("end-of-candidates") for member in members):
            lines.append("a=end-of-candidates")
        return [*lines, f"a=setup:{self._setup_role(section)}"]

    def _setup_role(self, section: MediaSection) -> str:
        return self._get_first(section, "setup") or _DEFAULT_SETUP

    def _get_all(self, section: MediaSection, name: str) -> list[str]:
        found = self._offer.get_all(section, name)
        if found or not self.is_bundled(section):
            return found
        others = (other for other in self._offer.sections if self.is_bundled(other))
        return next((values for other in others if (values := other.attributes.get(name))), [])

    def _get_first(self, section: MediaSection, name: str) -> str | None:
        return next(iter(self._get_all(section, name)), None)


def _usable_fingerprints(fingerprints: Iterable[str]) -> list[str]:
    split = [value.split() for value in fingerprints]
    return [f"{words[0].lower()} {words[1]}" for words in split if _is_fingerprint(words)]


def _is_fingerprint(words: list[str]) -> bool:
    return len(words) == 2 and words[0].lower() in _HASH_FUNCTIONS


def _is_candidate(value: str) -> bool:
    try:
        candidate_from_sdp(value)
    except (AssertionError, ValueError):
        return False
    return True
