"""Attributes of a ``Stream`` that programs written for FastRTC use."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import NoReturn

from fastrtc_anyio._sessions.service import SessionService
from fastrtc_anyio.session import Session

from .page import Page

__all__ = ["FastRTCNames"]


class FastRTCNames:
    """Base class of ``Stream``: FastRTC's names for the page and for sessions."""

    _service: SessionService

    @cached_property
    def _page(self) -> Page:
        return self._make_page()

    def _make_page(self) -> Page:
        raise NotImplementedError

    @property
    def ui(self) -> Page:
        """FastRTC's name for the page: ``stream.ui.launch()``."""
        return self._page

    @ui.setter
    def ui(self, blocks: object) -> NoReturn:
        raise NotImplementedError(
            "stream.ui cannot be replaced by a gradio.Blocks: its WebRTC component talks to "
            "FastRTC. Declare additional_inputs and additional_outputs and call stream.launch(), "
            "or serve your own page beside stream.mount(app)"
        )

    @property
    def connections(self) -> Mapping[str, Session]:
        """The live sessions by their clients' ``webrtc_id``, or by their own ids without one."""
        sessions = self._service.registry.sessions.values()
        return {session.alias or session.id: session for session in sessions}

    @property
    def webrtc_component(self) -> NoReturn:
        """Gradio's component, which does not exist here: always an ``AttributeError``."""
        raise AttributeError(
            "stream.webrtc_component is Gradio's: for its .handlers[webrtc_id] write "
            "stream.handlers[webrtc_id]; for handlers[webrtc_id].trigger_response(), "
            "stream.trigger_response(webrtc_id)"
        )

    def fastphone(self, *_: object, **__: object) -> NoReturn:
        """FastRTC's telephone service, which does not exist here.

        Raises:
            NotImplementedError: always; names the replacement.
        """
        raise NotImplementedError(
            "fastphone is a service of FastRTC. Use a number of a carrier (Twilio, Telnyx, Plivo): "
            "call stream.launch(), and give the carrier https://<this server>/telephone/incoming "
            "as the URL for incoming calls"
        )
