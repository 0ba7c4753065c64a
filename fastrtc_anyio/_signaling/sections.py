"""Sections of a description that can be used, and the transport that they share."""

from __future__ import annotations

import re
from dataclasses import replace

from .codecs import CODECS, list_usable
from .sdp import Description, Fingerprint, Section, Transport

_HASHES = {"sha-256": 32, "sha-384": 48, "sha-512": 64}
"""Hash functions that aiortc verifies, and their length in bytes (RFC 8122 5)."""
_RTP = re.compile(r"((UDP|TCP)/(TLS|DTLS)/)?RTP/S?AVPF?", re.IGNORECASE)
_SCTP = re.compile(r"((UDP|TCP)/)?DTLS/SCTP", re.IGNORECASE)


def find_bundle(offer: Description) -> tuple[str, ...]:
    """Return the mids of the first BUNDLE group with a transport, the tagged section first.

    aiortc supports one group. The tagged section is its first enabled one (RFC 9143 7.3.1).
    """
    by_mid = {section.mid: section for section in offer.sections}
    for group in offer.bundles:
        enabled = [mid for mid in group if not by_mid[mid].disabled]
        tagged = [mid for mid in enabled if not by_mid[mid].bundle_only or by_mid[mid].port]
        if tagged:
            return (tagged[0], *(mid for mid in enabled if mid != tagged[0]))
    return ()


def share_transport(offer: Description, bundle: tuple[str, ...]) -> Description:
    """Give each section of a BUNDLE group the transport of the tagged section (RFC 9143 7.1.3).

    The candidates stay where they are.
    """
    if not bundle:
        return offer
    tagged = next(section.transport for section in offer.sections if section.mid == bundle[0])
    return replace(
        offer,
        sections=tuple(
            section
            if section.mid not in bundle
            else replace(
                section,
                transport=replace(
                    tagged,
                    # Not only for a tagged data channel: it has no RTCP.
                    rtcp_mux=tagged.rtcp_mux or section.transport.rtcp_mux,
                    candidates=section.transport.candidates,
                    complete=section.transport.complete,
                ),
            )
            for section in offer.sections
        ),
    )


def find_problem(section: Section, bundle: tuple[str, ...]) -> str | None:
    """Return why a section cannot be used, to follow its name; None if it can."""
    if section.disabled:
        return "is disabled by port 0"
    if section.bundle_only and section.mid not in bundle:
        return "has a=bundle-only, but is in no BUNDLE group"
    if section.has_rtp:
        return _find_rtp_problem(section)
    if section.kind != "application":
        return "has an unsupported media type"
    if _SCTP.fullmatch(section.protocol) is None:
        return f"must be UDP/DTLS/SCTP; got {section.protocol}"
    if section.tokens[0] != "webrtc-datachannel" and section.sctp_port is None:
        return f"must be for webrtc-datachannel; got {section.tokens[0]}"
    return _find_transport_problem(section.transport)


def _find_rtp_problem(section: Section) -> str | None:
    if _RTP.fullmatch(section.protocol) is None:
        return f"must be UDP/TLS/RTP/SAVPF; got {section.protocol}"
    if problem := _find_transport_problem(section.transport):
        return problem
    if not section.transport.rtcp_mux:
        return "needs a=rtcp-mux: RTP and RTCP share a port (RFC 8829 5.1.1)"
    if not list_usable(section):
        offered = ", ".join(dict.fromkeys(one.name for one in section.formats))[:100]
        wanted = ", ".join(CODECS[section.kind])
        return f"needs one of the codecs {wanted}; got {offered or 'none'}"
    return None


def _find_transport_problem(transport: Transport) -> str | None:
    if transport.ufrag is None or transport.password is None:
        return "needs a=ice-ufrag and a=ice-pwd"
    if not transport.fingerprints:
        return "needs a=fingerprint: media are encrypted with DTLS (RFC 8827 6.5)"
    if not supported_fingerprints(transport):
        names = ", ".join(one.algorithm for one in transport.fingerprints)[:100]
        return f"needs a complete a=fingerprint of {', '.join(_HASHES)}; got {names}"
    if transport.setup == "holdconn":
        return "must not have a=setup:holdconn"
    return None


def supported_fingerprints(transport: Transport) -> tuple[Fingerprint, ...]:
    return tuple(
        one
        for one in transport.fingerprints
        if len(one.value.split(":")) == _HASHES.get(one.algorithm)
    )
