"""Describe a connection to the client: the answer to its offer, or an offer of this side."""

from __future__ import annotations

from dataclasses import replace

from .codecs import answer_format
from .offer import Negotiation
from .sdp import Description, Format, Section

Parameters = tuple[tuple[str, str | None], ...]


def restore_answer(
    negotiation: Negotiation, local: Description, opus: Parameters, message_bytes: int
) -> Description:
    """Return the answer in the client's form: its sections, mids, protocols and formats.

    A section that is not used is ``inactive`` if it could be: the client may use it later. Others
    are rejected by port 0 (RFC 8829 5.3.1), except the tagged section of a BUNDLE group in use,
    whose rejection would reject the group's transport (RFC 9143 7.3.3).

    Args:
        negotiation: the sections in use.
        local: aiortc's answer, with a section for each one presented to it.
        opus: parameters of Opus.
        message_bytes: maximum size of a message to this side.
    """
    offer, bundle = negotiation.offer, negotiation.bundle
    made = dict(zip(negotiation.presented, local.sections, strict=True))
    shared = next((made[i] for i in made if negotiation.is_bundled(i)), None)
    sections: list[Section] = []
    for i, section in enumerate(offer.sections):
        bundled = shared is not None and negotiation.is_bundled(i)
        tagged = bundled and section.mid == bundle[0]
        if i in made:
            answered = _answer_used(negotiation, i, made[i], opus, message_bytes)
        elif shared is not None and (tagged or (bundled and negotiation.could_be_used(i))):
            answered = _answer_inactive(negotiation, i, shared, opus)
        else:
            answered = _reject(section)
        if bundled and not tagged:
            answered = _without_candidates(answered)
        sections.append(answered)
    accepted = {section.mid for section in sections if section.port}
    mids = tuple(mid for mid in bundle if mid in accepted)
    return Description(tuple(sections), (mids,) if mids else (), origin=local.origin)


def describe_local(local: Description, opus: Parameters, message_bytes: int) -> Description:
    """Return an offer of aiortc with the parameters that aiortc omits."""
    return replace(
        local,
        sections=tuple(
            replace(
                section,
                formats=tuple(answer_format(one, opus) for one in section.formats),
                max_message_size=None if section.has_rtp else message_bytes,
            )
            for section in local.sections
        ),
    )


def _answer_used(
    negotiation: Negotiation, index: int, made: Section, opus: Parameters, message_bytes: int
) -> Section:
    section = negotiation.offer.sections[index]
    answered = replace(made, protocol=section.protocol, mid=section.mid)
    if index == negotiation.channel:
        tokens = section.tokens
        if tokens[0].isdecimal():  # the port of this side, in the form before RFC 8841
            tokens = (str(made.sctp_port),)
        return replace(answered, tokens=tokens, max_message_size=message_bytes)
    (use,) = (use for use in negotiation.uses if use.index == index)
    answered = _with_formats(answered, tuple(answer_format(one, opus) for one in use.formats))
    answered = replace(answered, direction=use.direction)
    return answered if use.sends else _without_sources(answered)


def _answer_inactive(
    negotiation: Negotiation, index: int, shared: Section, opus: Parameters
) -> Section:
    section = negotiation.offer.sections[index]
    answered = Section(
        section.kind,
        shared.port,
        section.protocol,
        section.tokens[:1],
        section.mid,
        "inactive",
        shared.host,
        transport=replace(shared.transport, rtcp_mux=section.kind != "application"),
    )
    if not section.has_rtp:
        return answered
    usable = negotiation.usable(index)
    if usable:
        return _with_formats(answered, (answer_format(usable[0], opus),))
    named = [one for one in section.formats if str(one.payload_type) == section.tokens[0]]
    return replace(answered, formats=tuple(named))


def _reject(section: Section) -> Section:
    return Section(section.kind, 0, section.protocol, section.tokens, section.mid, "inactive")


def _with_formats(section: Section, formats: tuple[Format, ...]) -> Section:
    tokens = tuple(str(one.payload_type) for one in formats)
    return replace(section, tokens=tokens, formats=formats)


def _without_sources(section: Section) -> Section:
    return replace(section, sources=(), retransmissions=(), msid=None)


def _without_candidates(section: Section) -> Section:
    transport = replace(section.transport, candidates=(), complete=False)
    return replace(section, transport=transport)
