"""Changes to session descriptions and checks of them, line by line (RFC 8866)."""

from __future__ import annotations

import re

from fastrtc_anyio._core.options import short_repr
from fastrtc_anyio.errors import InvalidOffer
from fastrtc_anyio.limits import RequestLimits, check_limit

from .requests import IceCandidate

_FEEDBACK = ("nack", "nack pli", "ccm fir", "goog-remb", "transport-cc")
_PAYLOAD_TYPE = re.compile(r"(\d{1,2}|1[01]\d|12[0-7])", re.ASCII)
_OPUS_RTPMAP = re.compile(r"a=rtpmap:(\d+) opus/48000/2$", re.IGNORECASE)


def set_opus_parameters(sdp: str, *, stereo: bool, inband_fec: bool) -> str:
    """Set the parameters of Opus (RFC 7587 6.1). Its other parameters stay, in their order."""
    wanted = {"stereo": "1", "sprop-stereo": "1"} if stereo else {}
    if inband_fec:
        wanted["useinbandfec"] = "1"
    if not wanted:
        return sdp
    lines = sdp.split("\r\n")
    # Indexed, because an answer has a line for each codec of an offer of any length.
    parameters_of = {
        line.partition(" ")[0]: line.partition(" ")[2]
        for line in reversed(lines)
        if line.startswith("a=fmtp:")
    }
    opus = {f"a=fmtp:{rtpmap[1]}" for line in lines if (rtpmap := _OPUS_RTPMAP.match(line))}
    out: list[str] = []
    for line in lines:
        rtpmap = _OPUS_RTPMAP.match(line)
        if rtpmap is None:
            if line.partition(" ")[0] not in opus:
                out.append(line)
            continue
        prefix = f"a=fmtp:{rtpmap[1]}"
        old = parameters_of.get(prefix, "")
        parameters = {
            name.strip(): value.strip()
            for name, _, value in (item.partition("=") for item in old.split(";") if item.strip())
        }
        parameters.update(wanted)
        shown = ";".join(f"{k}={v}" if v else k for k, v in parameters.items())
        out += [line, f"{prefix} {shown}"]
    return "\r\n".join(out)


def set_message_size(sdp: str, size: int) -> str:
    """Set the maximum size of a message to the server, in bytes (RFC 8841 6.1)."""
    return re.sub(r"(?m)^(a=max-message-size:)\d+", rf"\g<1>{size}", sdp)


def check_sections(sdp: str, limits: RequestLimits) -> None:
    """Check the number of sections and lines, the BUNDLE group and the payload types of an offer.

    ``sdp`` must be without its candidates, which have a separate limit.

    Raises:
        LimitExceeded: there are too many sections or lines.
        InvalidOffer: the BUNDLE group names a missing section (RFC 9143 7.1), or a section has two
            formats with one payload type (RFC 8866 6.6).
    """
    lines = sdp.splitlines()
    count = sum(line.startswith("m=") for line in lines)
    check_limit(f"the offer has {count} sections", count, "sections", limits)
    check_limit(f"the offer has {len(lines)} lines", len(lines), "lines", limits)
    mids = _section_mids(lines)
    for line in lines:
        if line.startswith("a=group:BUNDLE"):
            missing = [mid for mid in line.split()[1:] if mid not in mids]
            if missing:
                names = short_repr(missing)
                raise InvalidOffer(f"a=group:BUNDLE names sections without a=mid: {names}")
    _check_payload_types(lines)


def _section_mids(lines: list[str]) -> set[str]:
    # For aiortc the last a=mid of a section counts, and one before the first section does not.
    mids: dict[int, str] = {}
    section = 0
    for line in lines:
        section += line.startswith("m=")
        if line.startswith("a=mid:") and section:
            mids[section] = line.removeprefix("a=mid:")
    return set(mids.values())


def _check_payload_types(lines: list[str]) -> None:
    # aiortc answers each format with all attributes of its payload type: repeated ones multiply.
    seen: set[int] = set()
    for line in lines:
        if line.startswith("m="):
            seen.clear()
        elif line.startswith("a=rtpmap:"):
            name = line.removeprefix("a=rtpmap:").partition(" ")[0]
            if _PAYLOAD_TYPE.fullmatch(name) is None:
                raise InvalidOffer(
                    f"a=rtpmap needs a payload type, 0 to 127; got {short_repr(name)}"
                )
            if int(name) in seen:
                raise InvalidOffer(f"a=rtpmap names the payload type {name} twice in a section")
            seen.add(int(name))


def keep_feedback(sdp: str) -> str:
    """Remove repeated ``a=rtcp-fb`` lines, and those for feedback that aiortc does not send.

    aiortc creates an object for each codec from each line with a ``*``, known or not.
    """
    kept: list[str] = []
    seen: set[str] = set()
    for line in sdp.splitlines():
        if line.startswith("m="):
            seen.clear()
        elif line.startswith("a=rtcp-fb:"):
            if line in seen or line.partition(" ")[2] not in _FEEDBACK:
                continue
            seen.add(line)
        kept.append(line)
    return "\r\n".join([*kept, ""])


def split_candidates(sdp: str) -> tuple[str, list[IceCandidate], bool]:
    """Split the candidates from a description, to add them one by one after the answer.

    Resolving an mDNS candidate takes time.

    Returns:
        The description without candidates, each line ended by CRLF; the candidates; and whether
        they are complete.
    """
    kept: list[str] = []
    candidates: list[IceCandidate] = []
    index, complete = -1, False
    for line in sdp.splitlines():  # as in aiortc, which must see the same lines
        if line.startswith("m="):
            index += 1
        if line.startswith("a=candidate:") and index >= 0:
            candidates.append(IceCandidate(line[2:], sdp_mline_index=index))
        elif line == "a=end-of-candidates" and index >= 0:
            complete = True
        else:
            kept.append(line)
    return "\r\n".join([*kept, ""]), candidates, complete
