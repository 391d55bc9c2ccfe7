"""What clients send in order to keep the server busy: nobody else may be kept waiting by it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.server.served import FINGERPRINT, OFFER, Served, answer_of, connected, served

HELD_S = 0.06
"""Three times what is allowed, as machines differ: what this is about takes seconds."""

_SECTION = OFFER[OFFER.index("m=video") :]
_CANDIDATE = "candidate:{n} 1 udp {n} 127.0.{h}.{n} {p} typ host"


@dataclass(frozen=True)
class Hostile:
    """A request."""

    method: str
    path: str
    kind: str
    body: bytes
    chunk: int | None = None
    headers: int = 0

    def __repr__(self) -> str:
        sizes = f"{len(self.body)} in {self.chunk}, {self.headers} headers"
        return f"{self.method} {self.path} {self.kind} {self.body[:60]!r}… {sizes}"

    def bytes(self) -> bytes:
        head = f"{self.method} {self.path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: {self.kind}\r\n"
        head += "".join(f"x{n}: {n}\r\n" for n in range(self.headers))
        if self.chunk is None:
            return f"{head}Content-Length: {len(self.body)}\r\n\r\n".encode() + self.body
        pieces = [self.body[at : at + self.chunk] for at in range(0, len(self.body), self.chunk)]
        chunks = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
        return f"{head}Transfer-Encoding: chunked\r\n\r\n".encode() + chunks + b"0\r\n\r\n"


_ABOUT_CODECS = [
    "a=rtcp-fb:* nack pli",
    "a=rtcp-fb:96 nack {n}",
    "a=fmtp:96 profile-level-id=42e01f;packetization-mode=1",
]
_CODECS = ["a=rtpmap:{n} VP8/90000", "a=rtpmap:96 H264/90000", "a=rtpmap:96 VP8/90000"]
_SECTIONS = [
    "m=video 9 UDP/TLS/RTP/SAVPF 96",
    "m=video 9 UDP/TLS/RTP/SAVPF " + "96 " * 100,
    "m=video 9 UDP/TLS/RTP/SAVPF " + "96 " * 10_000,
    "m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\na=mid:{n}\r\na=sctp-port:5000",
    *[_SECTION.replace("mid:0", "mid:{n}").rstrip()] * 3,
]
_OTHERS = [
    "a=ssrc:{n} cname:x",
    "a=ssrc-group:FID {n} {n}",
    "a=extmap:{n} urn:x",
    f"a={_CANDIDATE}",
    "a=candidate:{n} 1 udp 1 {n}.local 9 typ host",
    "a=end-of-candidates",
    f"a=fingerprint:sha-256 {FINGERPRINT}",
    "a=mid:{n}",
    "a=x",
    "a=" + "y" * 1000,
    "a=" + "y" * 40_000,
]


def lines(draw: st.DrawFn) -> str:
    """As much of one attribute, or of a few in turn, as fits."""
    one = st.sampled_from
    about_codecs, sections = st.tuples(one(_CODECS), one(_ABOUT_CODECS)), st.tuples(one(_SECTIONS))
    chosen = draw(
        st.one_of(
            about_codecs,
            about_codecs,
            sections,
            sections,
            st.tuples(one(_OTHERS)),
            st.lists(one([*_CODECS, *_ABOUT_CODECS, *_SECTIONS, *_OTHERS]), min_size=1, max_size=4),
        )
    )
    most = draw(one([10_000, 20_000, 30_000, 60_000, 62_000, 300_000]))
    text, n = "", 1
    while True:
        numbers = {"n": n % 250 + 1, "h": n // 250 % 250, "p": 1024 + n % 60_000}
        added = "".join(f"{line.format(**numbers)}\r\n" for line in chosen)
        if len(text) + len(added) > most:
            return text
        text, n = text + added, n + 1


@st.composite
def sdps(draw: st.DrawFn) -> str:
    more = lines(draw)
    where = draw(st.sampled_from(["end", "end", "end", "session", "alone"]))
    if where == "alone":
        return more
    return OFFER + more if where == "end" else OFFER.replace("m=video", more + "m=video", 1)


@st.composite
def offers(draw: st.DrawFn) -> str:
    """With far too much of something in them."""
    count = draw(st.sampled_from([60, 900, 9_000, 20_000]))
    form = draw(st.sampled_from(["deep", "wide", "lists", "sdp"]))
    if form == "sdp":
        return json.dumps({"sdp": draw(sdps()), "type": "offer"})
    parameters = {
        "deep": '{"a":' * count + "1" + "}" * count,
        "wide": "{" + ",".join(f'"{n}":0' for n in range(count)) + "}",
        "lists": "[" * count,
    }[form]
    return '{"sdp":"","type":"offer","initialParameters":' + parameters + "}"


@st.composite
def candidates(draw: st.DrawFn) -> str:
    """Far too many, or none."""
    count = draw(st.sampled_from([50, 900, 9_000, 20_000, 20_000]))
    items: dict[str, Callable[[int], str]] = {
        "empty": lambda n: "{}",
        "number": str,
        "candidate": lambda n: json.dumps(
            {"candidate": _CANDIDATE.format(n=n % 250, h=n // 250, p=9), "sdpMid": "0"}
        ),
        "name": lambda n: json.dumps(
            {"candidate": f"candidate:1 1 udp 1 a{n}.local 9 typ host", "sdpMLineIndex": 0}
        ),
        "text": lambda n: json.dumps({"candidate": "9" * min(count, 60_000 // (n + 1))}),
    }
    item = items[draw(st.sampled_from(["empty", "empty", *items]))]
    return '{"candidates":[' + ",".join(item(n) for n in range(count))[:80_000] + "]}"


@st.composite
def loads(draw: st.DrawFn) -> str:
    count = draw(st.sampled_from([60, 900, 5_000, 20_000]))
    return "{" + ",".join(f'"{n}":{{}}' for n in range(count)) + "}"


SDP_ROUTES = [
    *[("POST", "/whip", "application/sdp")] * 4,
    ("POST", "/whep", "application/sdp"),
    ("PATCH", "/whip/{id}", "application/trickle-ice-sdpfrag"),
]
JSON = "application/json"
JSON_BODIES = st.one_of(
    offers().map(lambda text: Hostile("POST", "/api/v1/webrtc/offer", JSON, text.encode())),
    candidates().map(lambda text: Hostile("PATCH", "/api/v1/webrtc/offer/{id}", JSON, text.encode())),
    loads().map(lambda text: Hostile("POST", "/api/v1/pipeline/load", JSON, text.encode())),
)
ROUTES = [
    *SDP_ROUTES,
    ("PATCH", "/api/v1/webrtc/offer/{id}", JSON),
    ("POST", "/api/v1/personalive/reference", "image/png"),
]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(tmp_path_factory.mktemp("recordings"), max_sessions=3, connect_timeout_s=60) as running:
        # What is done once only, such as importing, is not what this is about.
        ask(running, Hostile("POST", "/whip", "application/sdp", OFFER.encode()))
        yield running


def ask(running: Served, request: Hostile) -> tuple[int, bytes]:
    with connected(running.address) as client:
        client.sendall(request.bytes())
        return answer_of(client)


def session_of(running: Served) -> str:
    """A session that can be asked about; those of offers that were fine after all are ended."""
    streams = running.server.sessions.all()
    for stream in streams[1:]:
        running.call(stream.end("client_closed"))
    if streams:
        return streams[0].id
    status, said = ask(running, Hostile("POST", "/whip", "application/sdp", OFFER.encode()))
    assert status == 201, said
    return running.server.sessions.all()[0].id


def check(running: Served, request: Hostile) -> None:
    asked = replace(request, path=request.path.replace("{id}", session_of(running)))
    for _ in range(3):  # a garbage collection, say, happens to fall in once
        with running.watched():
            status, said = ask(running, asked)
        assert status in {200, 201, 204, 400, 404, 409, 413, 415, 422, 431, 503}, said
        if running.held < HELD_S:
            break
    assert running.held < HELD_S, f"{running.held:.3f} s, answered {status}: {said[-200:]!r}"
    assert ask(running, Hostile("GET", "/health", "x", b""))[0] == 200


OFTEN = settings(max_examples=30, suppress_health_check=list(HealthCheck))


@pytest.mark.slow
@OFTEN
@given(st.sampled_from(SDP_ROUTES), sdps())
@example(SDP_ROUTES[0], OFFER + "".join(_SECTION.replace("mid:0", f"mid:{n}") for n in range(1, 140)))
@example(SDP_ROUTES[0], OFFER + "a=rtpmap:96 VP8/90000\r\na=rtcp-fb:* nack pli\r\n" * 1300)
def test_no_sdp_holds_the_event_loop(running: Served, route: tuple[str, str, str], sdp: str) -> None:
    check(running, Hostile(*route, sdp.encode()))


@pytest.mark.slow
@OFTEN
@given(JSON_BODIES)
@example(Hostile("PATCH", ROUTES[-2][1], JSON, b'{"candidates":[' + b"{}," * 20_000 + b"{}]}"))
def test_no_json_holds_the_event_loop(running: Served, request: Hostile) -> None:
    check(running, request)


@pytest.mark.slow
@OFTEN
@given(
    st.sampled_from(ROUTES),
    st.integers(1, 300_000),
    st.sampled_from([None, 1, 2, 50]),
    st.sampled_from([0, 100, 127, 3000]),
)
@example(ROUTES[0], 60_000, 1, 0)
@example(ROUTES[0], 100, None, 3000)
def test_no_way_of_sending_holds_the_event_loop(
    running: Served, route: tuple[str, str, str], size: int, chunk: int | None, headers: int
) -> None:
    check(running, Hostile(*route, b"9" * size, chunk, headers))
