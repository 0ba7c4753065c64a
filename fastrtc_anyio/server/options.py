"""Options of a stream's endpoints and of its page."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import cast
from weakref import WeakKeyDictionary

from fastrtc_anyio._core.options import check_type, short_repr
from fastrtc_anyio._user_code import call_user_function
from fastrtc_anyio._wire.call_xml import TelephoneOptions
from fastrtc_anyio.limits import RequestLimits
from fastrtc_anyio.observability._dispatch import Observers

from .access import Authenticate, check_origins
from .fairness import ClientKey, Fairness, TrustedProxies
from .hosts import check_hosts
from .page.components import Component, Hidden, OutputsHandler
from .page.gradio import adapt_components
from .page.ui_args import UIArgs, check_ui_args

__all__ = ["ClientConfiguration", "WebOptions"]

ClientConfiguration = Mapping[str, object] | Callable[[], object]


class WebOptions:
    """Options of a stream's endpoints and of its page.

    The endpoints read the attributes at each request, so a change takes effect at once. The
    arguments are those of :class:`fastrtc_anyio.Stream`.
    """

    def __init__(
        self,
        *,
        rtp_params: Mapping[str, object] | None = None,
        rtc_configuration: ClientConfiguration | None = None,
        track_constraints: Mapping[str, object] | None = None,
        additional_inputs: Sequence[object] | None = None,
        additional_outputs: Sequence[object] | None = None,
        additional_outputs_handler: OutputsHandler | None = None,
        ui_args: UIArgs | None = None,
        telephone: TelephoneOptions | None = None,
        authenticate: Authenticate | None = None,
        allowed_origins: Iterable[str] = (),
        allowed_hosts: Iterable[str] = (),
        trusted_proxies: TrustedProxies = (),
        client_key: ClientKey | None = None,
        request_limits: RequestLimits | None = None,
        observers: Observers | None = None,
    ) -> None:
        self.rtp_params: dict[str, object] = dict(rtp_params or {})
        self.rtc_configuration: ClientConfiguration = rtc_configuration or {}
        if not callable(rtc_configuration):
            _check_configuration(self.rtc_configuration)
        self.track_constraints: dict[str, object] = dict(track_constraints or {})
        self.additional_inputs: list[Component]
        self.additional_outputs: list[Component]
        self.additional_inputs, self.additional_outputs = adapt_components(
            additional_inputs, additional_outputs
        )
        self._hidden: WeakKeyDictionary[object, dict[str, object]] = WeakKeyDictionary()
        if additional_outputs_handler is not None and not self.additional_outputs:
            raise ValueError("additional_outputs_handler needs additional_outputs to show")
        self.additional_outputs_handler = additional_outputs_handler
        self.ui_args: dict[str, object] = check_ui_args(ui_args)
        check_type("telephone", telephone, TelephoneOptions, optional=True)
        self.telephone: TelephoneOptions = telephone or TelephoneOptions()
        if authenticate is not None and not callable(authenticate):
            raise TypeError(f"authenticate must be a function; got {short_repr(authenticate)}")
        self.authenticate = authenticate
        self.allowed_origins: tuple[str, ...] = check_origins(allowed_origins)
        self.allowed_hosts: tuple[str, ...] = check_hosts(allowed_hosts)
        limits = request_limits or RequestLimits()
        self.observers: Observers = observers or Observers()
        self.fairness: Fairness = Fairness(limits, trusted_proxies, client_key)

    def hidden_values(self, session: object) -> dict[str, object]:
        """Return one session's values of the :class:`.Hidden` components, by name, to change."""
        if session not in self._hidden:
            declared: list[Component] = [*self.additional_inputs, *self.additional_outputs]
            self._hidden[session] = {
                component.name: component.initial
                for component in declared
                if isinstance(component, Hidden)
            }
        return self._hidden[session]

    async def load_rtc_configuration(self) -> dict[str, object]:
        """Return the client's RTC configuration: call the function that makes it, if one does."""
        configuration: object = self.rtc_configuration
        if callable(configuration):
            configuration = await call_user_function(configuration)
        if not configuration:
            return {}
        return dict(_check_configuration(configuration))


def _check_configuration(configuration: object) -> Mapping[str, object]:
    if not isinstance(configuration, Mapping):
        kind = type(configuration).__name__  # the value may hold credentials
        raise TypeError(f"rtc_configuration must be a mapping, or return one; got {kind}")
    return cast("Mapping[str, object]", configuration)
