"""Parse a session description.

Parsing is tolerant of what clients send: line ends of any kind, spaces around a line, attributes in
any case and at the level of the session, and unknown lines. An optional attribute that is malformed
is ignored. A line without which the rest would be misread is an error that names it.
"""

from __future__ import annotations

import re

from fastrtc_anyio._core.options import short_repr
from fastrtc_anyio._core.steps import Steps, run_steps
from fastrtc_anyio.errors import InvalidOffer
from fastrtc_anyio.limits import RequestLimits, check_limit

from .sdp import Description, Section
from .sdp_lines import Draft, Malformed, make_section, parse_line, parse_media

_MAX_LINE = 4096
"""Maximum characters of a line. Browsers send lines of up to 300."""
_STEP_LINES = 100
"""Lines that are parsed in one step: less than 2 ms."""
_LINE = re.compile(r"[^\r\n]+")


def parse_description(text: str, limits: RequestLimits | None = None) -> Description:
    """Parse a session description; see :func:`parse_in_steps`."""
    return run_steps(parse_in_steps(text, limits))


def parse_in_steps(text: str, limits: RequestLimits | None = None) -> Steps[Description]:
    """Parse a session description, in time that is proportional to its length.

    Returns:
        The description. With ``limits``, each section has at most one candidate more than they
        allow.

    Raises:
        LimitExceeded: there are more sections or lines than ``limits`` allows. Candidates have a
            separate limit, which applies when they are used.
        InvalidOffer: the text is not a session description, or a line is malformed. The message
            begins with the number of the line.
    """
    reader = _Reader(limits)
    text = text.strip("\ufeff\0")
    for number, found in enumerate(_LINE.finditer(text), 1):
        try:
            reader.read(found[0].strip(" \t"))
        except Malformed as exc:
            raise InvalidOffer(f"line {_number_line(text, found.start())}: {exc}") from None
        if number % _STEP_LINES == 0:
            yield
    if reader.is_empty:
        raise InvalidOffer(_no_description(""))
    sections: list[Section] = []
    for draft in reader.drafts:
        sections.append(make_section(draft, reader.session))
        yield
    description = Description(
        sections=tuple(sections),
        bundles=tuple(reader.session.bundles),
        ice_lite=reader.session.ice_lite,
        origin=reader.session.origin,
    )
    _check_mids(description)
    return description


def _number_line(text: str, position: int) -> int:
    """Return the number of a line that ends with CR LF, LF or CR, as the lines before it do."""
    ends = [text.count(end, 0, position) for end in ("\n", "\r", "\r\n")]
    return 1 + ends[0] + ends[1] - ends[2]


def _no_description(line: str) -> str:
    return f'a session description must begin with the line "v=0"; got {short_repr(line)}'


class _Reader:
    """Reads the lines of a description, as many as the limits allow."""

    def __init__(self, limits: RequestLimits | None) -> None:
        self.session = Draft()
        self.drafts: list[Draft] = []
        self.is_empty = True
        self._limits = limits
        self._lines = 0

    def read(self, line: str) -> None:
        """Read a line without spaces around it."""
        is_candidate = line.startswith("a=candidate:")
        if is_candidate and self._limits is not None:
            if len(self._draft.candidates) > self._limits.candidates:
                return
        elif self._limits is not None:
            self._lines += 1
            text = f"the offer has {self._lines} lines or more"
            check_limit(text, self._lines, "lines", self._limits)
        if not line:
            return
        if self.is_empty and not line.startswith("v="):
            raise InvalidOffer(_no_description(line))
        self.is_empty = False
        if len(line) > _MAX_LINE:
            raise Malformed(f"a line must have at most {_MAX_LINE} characters; got {len(line)}")
        if line.startswith("m="):
            self.drafts.append(parse_media(line[2:]))
            count = len(self.drafts)
            if self._limits is not None:
                text = f"the offer has {count} sections or more"
                check_limit(text, count, "sections", self._limits)
        else:
            parse_line(self._draft, line)

    @property
    def _draft(self) -> Draft:
        return self.drafts[-1] if self.drafts else self.session


def _check_mids(description: Description) -> None:
    mids = [section.mid for section in description.sections if section.mid is not None]
    if repeated := [mid for mid in dict.fromkeys(mids) if mids.count(mid) > 1]:
        raise InvalidOffer(f"a=mid must differ in each section; got {repeated[0]} repeatedly")
    named = [mid for group in description.bundles for mid in group]
    known = set(mids)
    if missing := [mid for mid in named if mid not in known]:
        raise InvalidOffer(f"a=group:BUNDLE names sections without a=mid: {short_repr(missing)}")
