"""The few changes session descriptions need on their way, line by line (RFC 8866)."""

from __future__ import annotations

import re

from fastrtc_anyio._core.options import short_repr
from fastrtc_anyio.errors import InvalidOffer, LimitExceeded

from .requests import IceCandidate, OfferLimits

_FEEDBACK = ("nack", "nack pli", "ccm fir", "goog-remb", "transport-cc")
_PAYLOAD_TYPE = re.compile(r"(\d{1,2}|1[01]\d|12[0-7])", re.ASCII)
_OPUS_RTPMAP = re.compile(r"a=rtpmap:(\d+) opus/48000/2$", re.IGNORECASE)


def set_opus_parameters(sdp: str, *, stereo: bool, inband_fec: bool) -> str:
    """Say what Opus we would like to receive and are going to send (RFC 7587 6.1).

    Existing parameters for Opus stay, in their place; ours replace those of the same name.
    """
    wanted = {"stereo": "1", "sprop-stereo": "1"} if stereo else {}
    if inband_fec:
        wanted["useinbandfec"] = "1"
    if not wanted:
        return sdp
    lines = sdp.split("\r\n")
    # Once for all lines: an offer can make an answer very long.
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
    """Say how many bytes a message to us may have (RFC 8841 6.1)."""
    return re.sub(r"(?m)^(a=max-message-size:)\d+", rf"\g<1>{size}", sdp)


def check_sections(sdp: str, limits: OfferLimits) -> None:
    """Refuse too many sections or lines, a BUNDLE group of sections that are not there (RFC 9143
    7.1), and two formats of one payload type (RFC 8866 6.6).

    Args:
        sdp: without its candidates, which have a limit of their own.
        limits: how many.

    Raises:
        LimitExceeded: says how many there are.
        InvalidOffer: says which are missing, or which payload type it is.
    """
    lines = sdp.splitlines()
    count = sum(line.startswith("m=") for line in lines)
    if count > limits.sections:
        raise LimitExceeded(
            f"the offer has {count} sections; at most {limits.sections} are allowed "
            "(RequestLimits.sections)"
        )
    if len(lines) > limits.lines:
        raise LimitExceeded(
            f"the offer has {len(lines)} lines; at most {limits.lines} are allowed "
            "(RequestLimits.lines)"
        )
    mids = {line.removeprefix("a=mid:") for line in lines if line.startswith("a=mid:")}
    for line in lines:
        if line.startswith("a=group:BUNDLE"):
            missing = [mid for mid in line.split()[1:] if mid not in mids]
            if missing:
                names = short_repr(missing)
                raise InvalidOffer(f"a=group:BUNDLE names sections without a=mid: {names}")
    _check_payload_types(lines)


def _check_payload_types(lines: list[str]) -> None:
    """Each is answered with all that was asked for it: repeated ones multiply."""
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
    """Leave out the ``a=rtcp-fb`` lines that ask for what nobody here gives, and repeated ones.

    To aiortc each line with a ``*`` is one more object for each codec, known or not.
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
    """Take the candidates out of a description, so that they can be added one by one.

    Resolving an mDNS candidate takes time that an answer should not have to wait for.

    Returns:
        The description without them, each line with a CRLF at its end; the candidates; and whether
        it said there are no more.
    """
    kept: list[str] = []
    candidates: list[IceCandidate] = []
    index, complete = -1, False
    for line in sdp.splitlines():  # as aiortc does: what is a line to it has to be one to us
        if line.startswith("m="):
            index += 1
        if line.startswith("a=candidate:") and index >= 0:
            candidates.append(IceCandidate(line[2:], sdp_mline_index=index))
        elif line == "a=end-of-candidates" and index >= 0:
            complete = True
        else:
            kept.append(line)
    return "\r\n".join([*kept, ""]), candidates, complete
