"""Check an answer against its offer (RFC 3264, RFC 8829 5.3, RFC 9143), with no code under test."""

from __future__ import annotations

import re

DIRECTIONS = ("sendrecv", "sendonly", "recvonly", "inactive")
_ACTIVE, _PASSIVE = "a=setup:active", "a=setup:passive"


def check_answer(offer: str, answer: str) -> tuple[str, ...]:
    """Return the use of each section: a direction, ``application``, or ``rejected`` for port 0.

    Raises:
        AssertionError: the answer does not fit the offer, or breaks a rule.
    """
    (head, sections), (offered_head, offered) = _split(answer), _split(offer)
    assert [line[:2] for line in head[:4]] == ["v=", "o=", "s=", "t="]
    assert len(sections) == len(offered), "RFC 3264 6: the sections of the offer, in its order"
    groups = _list_groups(head)
    assert len(groups) <= 1
    rejected: list[str | None] = []
    used: list[str] = []
    for theirs, ours in zip(offered, sections, strict=True):
        assert _mids(ours) == _mids(theirs)[:1]
        wanted, media = theirs[0].split(), ours[0].split()
        assert (media[0], media[2]) == (wanted[0], wanted[2])
        assert len(set(media[3:])) == len(media[3:])
        if media[1] == "0":
            rejected += _mids(ours)
            used.append("rejected")
            continue
        _check_transport(theirs, ours, offered_head)
        if media[0] == "m=application":
            used.append("application")
            named = any(line.startswith(("a=sctp-port:", "a=sctpmap:")) for line in ours)
            assert named or "SCTP" not in media[2].upper()
            continue
        assert set(media[3:]) <= set(wanted[3:]), "RFC 3264 6.1: formats of the offer"
        _check_formats(theirs, ours, media[3:])
        used.append(_check_direction(theirs, ours, offered_head))
    _check_bundle(groups, _list_groups(offered_head), rejected, sections)
    return tuple(used)


def _split(sdp: str) -> tuple[list[str], list[list[str]]]:
    lines = [line.strip(" \t\ufeff") for line in re.split(r"\r\n|\n|\r", sdp.strip("\ufeff\0"))]
    lines = [line for line in lines if line]
    starts = [i for i, line in enumerate(lines) if line.startswith("m=")]
    ends = [*starts[1:], len(lines)]
    return lines[: starts[0]], [lines[i:j] for i, j in zip(starts, ends, strict=True)]


def _values(lines: list[str], name: str) -> list[str]:
    return [line.partition(":")[2].strip() for line in lines if _name(line) == f"a={name}"]


def _name(line: str) -> str:
    return line.partition(":")[0].strip().lower().replace("a= ", "a=")


def _mids(lines: list[str]) -> list[str | None]:
    return [*_values(lines, "mid")]


def _list_groups(head: list[str]) -> list[list[str]]:
    groups = [value.split() for value in _values(head, "group")]
    return [group[1:] for group in groups if group[:1] == ["BUNDLE"]]


def _check_transport(theirs: list[str], ours: list[str], offered_head: list[str]) -> None:
    for name in ("ice-ufrag", "ice-pwd", "setup"):
        assert len(_values(ours, name)) == 1, f"a={name} once"
    assert _values(ours, "fingerprint")
    assert (_ACTIVE in ours) != (_PASSIVE in ours), "RFC 5763 5: an answer chooses a role"
    bundled = [mid for group in _list_groups(offered_head) for mid in group]
    setup = [*_values(theirs, "setup"), *_values(offered_head, "setup"), "actpass"][0].lower()
    if not set(_mids(theirs)) & set(bundled):  # those have the role of the tagged section
        assert setup != "active" or _PASSIVE in ours
        assert setup != "passive" or _ACTIVE in ours
    assert ours[0].startswith("m=application") != ("a=rtcp-mux" in ours)


def _check_formats(theirs: list[str], ours: list[str], tokens: list[str]) -> None:
    offered = {value.split()[0]: value.split()[1:] for value in _values(theirs, "rtpmap")}
    for value in _values(ours, "rtpmap"):
        number, *codec = value.split()
        assert number in tokens
        assert offered.get(number, codec) == codec, "the codec and the case of its name"
    for name in ("fmtp", "rtcp-fb"):
        assert {value.split()[0] for value in _values(ours, name)} <= set(tokens)
    profiles = [
        re.findall(r"profile-level-id=\w+", " ".join(_values(s, "fmtp"))) for s in (theirs, ours)
    ]
    assert set(profiles[1]) <= set(profiles[0])
    for apt in re.findall(r"apt=(\d+)", " ".join(_values(ours, "fmtp"))):
        assert apt in tokens, "RFC 4588 8.1: retransmissions of a format in use"
    extensions = {value.split()[-1] for value in _values(ours, "extmap")}
    assert extensions <= {word for value in _values(theirs, "extmap") for word in value.split()}


def _check_direction(theirs: list[str], ours: list[str], offered_head: list[str]) -> str:
    def find(lines: list[str]) -> list[str]:
        names = [_name(line) for line in lines]
        return [name[2:] for name in names if name[:2] == "a=" and name[2:] in DIRECTIONS]

    (answered,) = find(ours)
    asked = (find(theirs)[-1:] or find(offered_head)[-1:] or ["sendrecv"])[0]
    allowed = {
        "sendrecv": DIRECTIONS,
        "sendonly": ("recvonly", "inactive"),
        "recvonly": ("sendonly", "inactive"),
        "inactive": ("inactive",),
    }[asked]
    assert answered in allowed, f"{answered} answers {asked}"
    assert answered in ("sendrecv", "sendonly") or not _values(ours, "ssrc")
    return answered


def _check_bundle(
    groups: list[list[str]],
    offered: list[list[str]],
    rejected: list[str | None],
    sections: list[list[str]],
) -> None:
    for group in groups:
        assert len(set(group)) == len(group)
        assert any(set(group) <= set(theirs) for theirs in offered), "RFC 9143 7.3"
        assert not set(group) & set(rejected), "RFC 9143 7.3.3"
        members = [s for s in sections if _mids(s) and _mids(s)[0] in group]
        assert len({tuple(_values(s, "ice-ufrag")) for s in members}) == 1
        for section in members:
            tagged = _mids(section)[0] == group[0]
            assert tagged or not _values(section, "candidate"), "RFC 9143 10"
