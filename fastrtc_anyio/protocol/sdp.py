"""The few changes session descriptions need on their way, line by line (RFC 8866)."""

from __future__ import annotations

import re

from fastrtc_anyio.errors import InvalidOffer, LimitExceeded

from .request_limits import RequestLimits
from .signaling import IceCandidate

__all__ = ["check_sections", "set_message_size", "set_opus_parameters", "split_candidates"]

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
    out: list[str] = []
    for line in lines:
        rtpmap = _OPUS_RTPMAP.match(line)
        if rtpmap is None:
            if not any(line.startswith(f"a=fmtp:{pt} ") for pt in _opus_payload_types(lines)):
                out.append(line)
            continue
        prefix = f"a=fmtp:{rtpmap[1]} "
        old = next((li[len(prefix) :] for li in lines if li.startswith(prefix)), "")
        parameters = {
            name.strip(): value.strip()
            for name, _, value in (item.partition("=") for item in old.split(";") if item.strip())
        }
        parameters.update(wanted)
        out += [line, prefix + ";".join(f"{k}={v}" if v else k for k, v in parameters.items())]
    return "\r\n".join(out)


def set_message_size(sdp: str, size: int) -> str:
    """Say how many bytes a message to us may have (RFC 8841 6.1)."""
    return re.sub(r"(?m)^(a=max-message-size:)\d+", rf"\g<1>{size}", sdp)


def check_sections(sdp: str, limits: RequestLimits) -> None:
    """Refuse too many sections, and a BUNDLE group of some that are not there (RFC 9143 7.1).

    Raises:
        LimitExceeded: says how many there are.
        InvalidOffer: says which are missing.
    """
    lines = re.split(r"\r?\n", sdp)
    count = sum(line.startswith("m=") for line in lines)
    if count > limits.sections:
        raise LimitExceeded(
            f"the offer has {count} sections; at most {limits.sections} are taken "
            "(RequestLimits.sections)"
        )
    mids = {line.removeprefix("a=mid:") for line in lines if line.startswith("a=mid:")}
    for line in lines:
        if line.startswith("a=group:BUNDLE"):
            missing = [mid for mid in line.split()[1:] if mid not in mids]
            if missing:
                raise InvalidOffer(f"a=group:BUNDLE names sections without a=mid: {missing}")


def split_candidates(sdp: str) -> tuple[str, list[IceCandidate], bool]:
    """Take the candidates out of a description, so that they can be added one by one.

    Resolving an mDNS candidate takes time that an answer should not have to wait for.

    Returns:
        The description without them, the candidates, and whether it said there are no more.
    """
    kept: list[str] = []
    candidates: list[IceCandidate] = []
    index, complete = -1, False
    for line in re.split(r"\r?\n", sdp):
        if line.startswith("m="):
            index += 1
        if line.startswith("a=candidate:") and index >= 0:
            candidates.append(IceCandidate(line[2:], sdp_mline_index=index))
        elif line == "a=end-of-candidates" and index >= 0:
            complete = True
        else:
            kept.append(line)
    return "\r\n".join(kept), candidates, complete


def _opus_payload_types(lines: list[str]) -> list[str]:
    return [rtpmap[1] for line in lines if (rtpmap := _OPUS_RTPMAP.match(line))]
