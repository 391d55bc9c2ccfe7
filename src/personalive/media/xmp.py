"""XMP packets, the XML with which pictures and videos carry standard metadata."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from uuid import UUID
from xml.etree import ElementTree
from xml.sax.saxutils import escape

_RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
_NAMESPACE = "urn:personalive:provenance:1:"
_PACKET = """<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="{rdf}"><rdf:Description rdf:about=""
 xmlns:dc="http://purl.org/dc/elements/1.1/" xmlns:xmp="http://ns.adobe.com/xap/1.0/"
 xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/" xmlns:pl="{ours}">
<dc:description><rdf:Alt><rdf:li xml:lang="x-default">{comment}</rdf:li></rdf:Alt></dc:description>
<xmp:CreatorTool>{software}</xmp:CreatorTool>
<Iptc4xmpExt:DigitalSourceType>{digital_source_type}</Iptc4xmpExt:DigitalSourceType>
{ours_fields}
</rdf:Description></rdf:RDF></x:xmpmeta>
<?xpacket end="r"?>"""
_MAX_BYTES = 1_000_000
# The box type and identifier under which ISO media files (MP4, MOV) carry XMP.
_BOX_UUID = UUID("be7acfcb-97a9-42e8-9c71-999491e3afac").bytes


def build_packet(values: Mapping[str, str]) -> bytes:
    """Build a packet that carries `values`: some as standard properties, and all under this package's namespace.

    `values` must have `comment`, `software` and `digital_source_type`; keys must be valid XML names.
    """
    fields = "\n".join(f"<pl:{key}>{_text(value)}</pl:{key}>" for key, value in values.items())
    packet = _PACKET.format(
        rdf=_RDF,
        ours=_NAMESPACE,
        comment=_text(values["comment"]),
        software=_text(values["software"]),
        digital_source_type=_text(values["digital_source_type"]),
        ours_fields=fields,
    )
    return packet.encode()


def parse_packet(packet: bytes) -> dict[str, str]:
    """Return this package's values from a packet; empty if it holds none or is not well-formed."""
    # A document type could define entities that expand without limit; XMP needs none.
    if not packet or len(packet) > _MAX_BYTES or b"<!" in packet:
        return {}
    try:
        root = ElementTree.fromstring(packet)
    except (ElementTree.ParseError, ValueError, LookupError):
        return {}
    prefix = "{" + _NAMESPACE + "}"
    return {
        node.tag.removeprefix(prefix): node.text or "" for node in root.iter() if node.tag.startswith(prefix)
    }


def append_to_iso_media(path: Path, packet: bytes) -> None:
    """Add a packet to an MP4 or MOV file as the last top-level box, where XMP readers look for it."""
    with path.open("ab") as file:
        file.write((24 + len(packet)).to_bytes(4, "big") + b"uuid" + _BOX_UUID + packet)


def _text(value: str) -> str:
    # XML does not allow most control characters, escaped or not.
    return escape("".join(char for char in value if char >= " " or char in "\t\n"))
