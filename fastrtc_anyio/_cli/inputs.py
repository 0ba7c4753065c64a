"""The inputs of a call: the defaults that the stream declares, and those of the command line."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

_JSON_KINDS = {"slider": "2.5", "checkbox": "true", "chatbot": "[]"}
"""Kinds of inputs whose value is JSON, with an example."""


class InputError(Exception):
    """An input of the command line does not exist or has no valid value."""


def choose_inputs(config: Mapping[str, object], given: Sequence[str]) -> dict[str, object]:
    """Return the values of a stream's inputs by name.

    Args:
        config: the stream's configuration. It describes each input as the page receives it.
        given: ``name=value`` in place of a default. The value of a slider, checkbox or chatbot is
            JSON; that of any other input is text.

    Raises:
        InputError: an input is not declared, or its value is not JSON.
    """
    declared = config.get("inputs")
    fields = (
        [field for field in declared if isinstance(field, dict)]
        if isinstance(declared, list)
        else []
    )
    kinds = {str(field.get("name")): field.get("kind") for field in fields}
    values: dict[str, object] = {str(field.get("name")): field.get("value") for field in fields}
    for item in given:
        name, _, text = item.partition("=")
        if name not in values:
            names = ", ".join(kinds) or "none"
            raise InputError(f"the stream has no input {name!r}; its inputs: {names}")
        values[name] = text
        if example := _JSON_KINDS.get(str(kinds[name])):
            try:
                values[name] = json.loads(text)
                json.dumps(values[name], allow_nan=False)  # Python's parser accepts NaN
            except (RecursionError, ValueError):
                raise InputError(
                    f"the value of {name!r} must be JSON such as {example}; got {text!r}"
                ) from None
    return values
