"""Session descriptions: parsing undoes writing, and any text is a description or InvalidOffer."""

from __future__ import annotations

import re
import time
from contextlib import suppress
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fastrtc_anyio._media.media_plan import MediaPlan
from fastrtc_anyio._signaling.offer import negotiate
from fastrtc_anyio._signaling.sdp import (
    FEEDBACK,
    Description,
    Fingerprint,
    Format,
    Section,
    Source,
    Transport,
)
from fastrtc_anyio._signaling.sdp_parser import parse_description, parse_in_steps
from fastrtc_anyio.errors import InvalidOffer, LimitExceeded
from fastrtc_anyio.limits import RequestLimits
from tests.kit.jsep import DIRECTIONS
from tests.kit.offer_corpus import OFFERS
from tests.kit.offers import SAVPF, audio, describe, mutate, section, video

LIMITS = RequestLimits()

tokens = st.text("abcXYZ019-._", min_size=1, max_size=8)
words = st.text("abcXYZ019-._:/+{}", min_size=1, max_size=12)
numbers = st.integers(0, 2**32 - 1)
fingerprints = st.builds(
    Fingerprint,
    st.sampled_from(["sha-1", "sha-256"]),
    st.binary(min_size=1, max_size=32).map(lambda data: data.hex(":").upper()),
)
transports = st.builds(
    Transport,
    ufrag=st.none() | words,
    password=st.none() | words,
    fingerprints=st.lists(fingerprints, max_size=2, unique=True).map(tuple),
    setup=st.none() | st.sampled_from(["actpass", "active", "passive", "holdconn"]),
    rtcp_mux=st.booleans(),
    candidates=st.lists(words.map(lambda word: f"candidate:{word}"), max_size=2).map(tuple),
    complete=st.booleans(),
)
formats = st.builds(
    Format,
    payload_type=st.integers(0, 127),
    name=tokens,
    clock_rate=st.integers(0, 999_999),
    channels=st.none() | st.integers(0, 99),
    parameters=st.lists(st.tuples(tokens, st.none() | st.just("") | words), max_size=3).map(tuple),
    feedback=st.sampled_from([(), FEEDBACK, FEEDBACK[:1], FEEDBACK[1:]]),
)


@st.composite
def sections(draw: st.DrawFn, mid: str | None) -> Section:
    kind = draw(st.sampled_from(["audio", "video", "application", "text"]))
    has_rtp = kind in ("audio", "video")
    one = Section(
        kind=kind,
        port=draw(st.integers(0, 65_535)),
        protocol="UDP/TLS/RTP/SAVPF",
        tokens=("98",),
        mid=mid,
        transport=draw(transports),
        bundle_only=draw(st.booleans()),
    )
    if kind == "application":
        legacy = draw(st.booleans())
        port = draw(st.integers(0, 65_535))
        return Section(
            kind,
            one.port,
            "DTLS/SCTP" if legacy else "UDP/DTLS/SCTP",
            (str(port) if legacy else "webrtc-datachannel",),
            mid,
            transport=one.transport,
            sctp_port=port,
            max_message_size=draw(st.none() | numbers),
        )
    chosen = draw(
        st.lists(formats, min_size=1, max_size=4, unique_by=lambda item: item.payload_type)
    )
    extensions = st.dictionaries(st.integers(1, 255), words, max_size=3)
    return Section(
        kind=kind,
        port=one.port,
        protocol=one.protocol,
        tokens=tuple(str(item.payload_type) for item in chosen) if has_rtp else ("98", "x"),
        mid=mid,
        direction=draw(st.sampled_from(DIRECTIONS)),
        host=draw(st.sampled_from(["0.0.0.0", "2001:db8::1"])),
        bundle_only=one.bundle_only,
        transport=one.transport,
        formats=tuple(chosen) if has_rtp else (),
        extensions=tuple(draw(extensions).items()),
        sources=tuple(
            Source(*item) for item in draw(st.dictionaries(numbers, words, max_size=3)).items()
        ),
        retransmissions=tuple(draw(st.lists(st.tuples(numbers, numbers), max_size=2, unique=True))),
        msid=draw(st.none() | words),
    )


@st.composite
def descriptions(draw: st.DrawFn) -> Description:
    known = draw(st.lists(tokens, max_size=3, unique=True))
    mids: list[str | None] = [*known, *[None] * draw(st.integers(0, 1))]
    bundled = bool(known) and draw(st.booleans())
    return Description(
        sections=tuple([draw(sections(mid)) for mid in mids]),
        bundles=(tuple(known),) if bundled else (),
        ice_lite=draw(st.booleans()),
    )


@given(descriptions())
def test_parsing_undoes_writing(description: Description) -> None:
    assert parse_description(str(description), LIMITS) == description


@given(st.text(), st.sampled_from(["", "v=0\n", "v=0\nm=audio 9 RTP/SAVPF 0\n", "v=0\na=group:"]))
def test_any_text_is_a_description_or_raises_invalid_offer(text: str, before: str) -> None:
    with suppress(InvalidOffer):
        parse_description(before + text, LIMITS)


@given(st.integers(0, 10**9))
@example(17517811)  # a=rtpmap:0 PCMU
def test_broken_offer_is_written_in_a_form_that_stays(seed: int) -> None:
    with suppress(InvalidOffer):
        description = parse_description(mutate(list(OFFERS.values()), seed).sdp, LIMITS)
        assert parse_description(str(description)) == description


@pytest.mark.parametrize("end", ["\r\n", "\n", "\r", " \r\n", "\r\n\r\n"])
def test_line_ends_and_spaces_do_not_matter(end: str) -> None:
    sdp = describe(audio(), video())
    assert parse_description(sdp.replace("\r\n", end)) == parse_description(sdp)
    assert parse_description(f"\ufeff{sdp}\0") == parse_description(sdp)


def test_attributes_of_the_session_are_defaults_of_each_section() -> None:
    own = ("a=ice-ufrag:own", "a=ice-pwd:secret", "a=fingerprint:sha-256 AA", "a=setup:active")
    of_session = ("a=ice-ufrag:all", "a=ice-pwd:s", "a=fingerprint:sha-1 BB", "a=setup:passive")
    both = parse_description(
        describe(
            section("audio 9 RTP/SAVPF 0", "0", transport=own, direction="sendonly"),
            section("audio 9 RTP/SAVPF 0", "1", transport=(), direction=None),
            session=(*of_session, "a=inactive"),
        )
    )
    first, second = both.sections
    assert (first.direction, second.direction) == ("sendonly", "inactive")
    assert first.transport == Transport("own", "secret", (Fingerprint("sha-256", "AA"),), "active")
    assert second.transport == Transport("all", "s", (Fingerprint("sha-1", "BB"),), "passive")


def test_static_payload_types_need_no_rtpmap() -> None:
    sdp = describe(section("audio 9 RTP/SAVPF 0 8 9 3 111", "0", "a=fmtp:0 x=1"))
    (one,) = parse_description(sdp).sections
    assert [(f.name, f.clock_rate) for f in one.formats] == [
        ("PCMU", 8000),
        ("PCMA", 8000),
        ("G722", 8000),
    ]
    assert one.formats[0].get("x") == "1"


def test_feedback_for_all_formats_is_counted_once() -> None:
    lines = ["a=rtcp-fb:* nack", "a=rtcp-fb:96  nack", "a=rtcp-fb:* x"] * 3
    (one,) = parse_description(describe(video("0", "sendrecv", *lines))).sections
    assert one.formats[0].feedback == ("nack", "nack pli")


@pytest.mark.parametrize(
    ("lines", "error"),
    [
        (["a=mid:0"], "line 16: a section must have one a=mid; got 0 and 0"),
        (["a=rtpmap:111 PCMU/8000"], "line 16: a=rtpmap names the payload type 111 twice"),
        (["a=rtpmap:128 x/1"], "line 16: a=rtpmap needs a payload type, 0 to 127; got '128'"),
        (["a=rtpmap:\u0661 x/1"], "0 to 127; got"),
        ([f"a=rtpmap:{'x' * 1000} x/1"], "0 to 127; got 'xxx"),
        (["a=ice-ufrag:"], "a=ice-ufrag must be 1 to 256 printable ASCII characters; got ''"),
        (["a=ice-pwd:a b"], "a=ice-pwd must be"),
        (["a=fingerprint:sha-256"], "a=fingerprint must be a hash function and pairs"),
        (["a=fingerprint:sha-256 G0:00"], "a=fingerprint must be"),
        (["a=setup:maybe"], "a=setup must be one of actpass, active, passive, holdconn"),
        (["m=audio x RTP/SAVPF 0"], "m= must be a media type, a port"),
        (["m=audio 9 RTP/SAVPF " + "0 " * 129], "m= must have at most 128 formats; got 129"),
    ],
)
def test_malformed_line_is_named_with_its_number(lines: list[str], error: str) -> None:
    with pytest.raises(InvalidOffer) as caught:
        parse_description(describe(audio("0", None, *lines)))
    assert error in str(caught.value)
    assert str(caught.value).startswith("line ")
    assert len(str(caught.value)) < 250


def test_mids_are_unique_and_those_of_a_bundle_group_exist() -> None:
    with pytest.raises(InvalidOffer, match=r"a=group:BUNDLE names .*\['1', '2'\]"):
        parse_description(describe(audio(), bundle="0 1 2"))
    with pytest.raises(InvalidOffer, match="a=mid must differ in each section; got 0"):
        parse_description(describe(audio("0"), video("0")))


def test_sections_and_lines_are_limited_without_candidates() -> None:
    many = describe(*[section("audio 9 RTP/SAVPF 0", None)] * 102)
    with pytest.raises(LimitExceeded, match=r"has 33 sections or more; at most 32 .*\.sections\)"):
        parse_description(many, LIMITS)
    lines = [f"a=ssrc:{i} cname:c" for i in range(LIMITS.lines)]
    with pytest.raises(
        LimitExceeded, match=r"lines or more; at most 2000 .*RequestLimits\.lines\)"
    ):
        parse_description(describe(audio("0", None, *lines)), LIMITS)
    candidates = ["a=candidate:1 1 udp 1 127.0.0.1 1000 typ host"] * LIMITS.lines
    (one,) = parse_description(describe(audio("0", None, *candidates)), LIMITS).sections
    assert len(one.transport.candidates) == LIMITS.candidates + 1


def test_costly_offer_within_the_limits_is_negotiated_soon() -> None:
    """Each construct whose cost could multiply, in sections with every payload type."""
    numbers = [str(n) for n in (*range(64), *range(96, 128))]
    lines = [f"a=rtpmap:{n} {'rtx' if i % 2 else 'VP8'}/90000" for i, n in enumerate(numbers)]
    lines += [f"a=fmtp:{n} {'x;' * 200}apt=x" for n in numbers[1::2] * 3]
    lines += [f"a=rtcp-fb:* {kind}" for kind in FEEDBACK]
    media = f"video 9 RTP/SAVPF {' '.join(numbers)}"
    sdp = describe(*[section(media, str(i), *lines) for i in range(7)])
    assert len(sdp) < LIMITS.body_bytes
    started = time.process_time()
    negotiation = negotiate(parse_description(sdp, LIMITS), MediaPlan(False, False, True, True))
    assert negotiation.present().sections[0].formats
    assert time.process_time() - started < 1


REPEATED = [f"a=rtpmap:{i} VP8/90000" for i in range(44)] + ["a=rtcp-fb:* nack"]
COSTLY = {
    "blank lines": "v=0" + "\n" * 500_000,
    "spaces": "v=0" + " \n" * 250_000,
    "candidates": describe(audio()) + "a=candidate:\n" * 40_000,
    "long line": "v=0\ns=" + "x" * 500_000,
    "spaces in m=": "v=0\n" + f"m=audio 9 A{' ' * 4000}\1\n" * 100,
    "fingerprints": describe(audio("0", None, *[f"a=fingerprint:sha-{i} AB" for i in range(1900)])),
    "groups": describe(audio(), session=(f"a=group:BUNDLE {'0 ' * 120}",) * 1900),
    "formats": describe(
        *[
            section(f"video 9 {SAVPF} {' '.join(map(str, range(128)))}", str(i), *REPEATED)
            for i in range(30)
        ]
    ),
}
"""Descriptions within the size of a body, each costly in a different way."""


@pytest.mark.parametrize("name", COSTLY)
def test_costly_description_is_parsed_in_small_steps(name: str) -> None:
    text = COSTLY[name]
    assert len(text) <= LIMITS.body_bytes
    steps = parse_in_steps(text, LIMITS)
    times = [time.thread_time()]
    with suppress(LimitExceeded, InvalidOffer):
        for _ in steps:
            times.append(time.thread_time())
    times.append(time.thread_time())
    # A step takes 2 ms on an idle machine.
    assert max(after - before for before, after in pairwise(times)) < 0.05


def test_session_level_fields_are_bounded() -> None:
    lines = [f"a=ssrc:{i} cname:c" for i in range(500)]
    lines += [f"a=ssrc-group:FID {i} {i + 1}" for i in range(500)]
    sdp = describe(audio("0", None, *lines), session=("a=group:BUNDLE 0",) * 500)
    description = parse_description(sdp, LIMITS)
    assert len(description.bundles) == 32
    assert len(description.sections[0].sources) == 64
    assert len(description.sections[0].retransmissions) == 64


@given(st.text(alphabet="vs=0 \r\n\t\1", max_size=60))
def test_line_numbers_count_every_line_end(text: str) -> None:
    sdp = f"v=0\n{text}\na=mid:\n"
    number = len(re.split(r"\r\n|\n|\r", sdp)) - 1
    with pytest.raises(InvalidOffer, match=f"line {number}: a=mid must be"):
        parse_description(sdp)
