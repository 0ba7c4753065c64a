"""Routes that give way to routes of the application."""

from __future__ import annotations

import re
from collections.abc import Sequence

from starlette.routing import BaseRoute, Match, Mount, Route
from starlette.types import Scope

from .http import Endpoint

__all__ = ["LastRoute"]

_PARAMETER = re.compile("{[^}]*}")


class LastRoute(Route):
    """A route that any other route with the same path and method replaces.

    So does a mounted application with the same path, such as that of ``prometheus_client``, and a
    route without parameters that has the path of the request, where this one has parameters.

    Args:
        path: its path. Names of parameters do not count in the comparison.
        endpoint: called with the request.
        methods: its methods. The first one is compared.
        others: the routes that take precedence, wherever they are added.
    """

    def __init__(
        self, path: str, endpoint: Endpoint, methods: list[str], others: Sequence[BaseRoute]
    ) -> None:
        super().__init__(path, endpoint, methods=methods, name=path.rpartition("/")[2])
        self._method = methods[0]
        self._others = others

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        match, child_scope = super().matches(scope)
        # Most requests are for other paths: the others need no comparison then.
        if match is not Match.NONE and self._is_replaced(scope):
            return Match.NONE, {}
        return match, child_scope

    def _is_replaced(self, scope: Scope) -> bool:
        return any(
            (isinstance(other, Mount) or self._method in (getattr(other, "methods", None) or ()))
            and (self._has_path_of(other) or self._is_precise(other, scope))
            and not isinstance(other, LastRoute)
            for other in self._others
        )

    def _has_path_of(self, other: BaseRoute) -> bool:
        path = _PARAMETER.sub("{}", getattr(other, "path", ""))
        return path == _PARAMETER.sub("{}", self.path)

    def _is_precise(self, other: BaseRoute, scope: Scope) -> bool:
        """Whether a route without parameters has the path of a request, where this one has some."""
        is_literal = isinstance(other, Route) and "{" not in other.path and "{" in self.path
        return is_literal and other.matches(scope)[0] is Match.FULL
