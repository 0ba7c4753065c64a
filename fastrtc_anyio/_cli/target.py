"""``module:attribute``: which stream to serve."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType

from fastrtc_anyio.stream import Stream

__all__ = ["TargetError", "load_stream"]

_DEFAULT_ATTRIBUTE = "stream"


class TargetError(Exception):
    """There is no stream of that name."""


def load_stream(target: str) -> Stream:
    """Import a stream. Modules are found from the working directory, too.

    Args:
        target: ``module:attribute``; the attribute may have dots in it, and is ``stream`` if there
            is none. Instead of a module's name, the path of its file does.

    Raises:
        TargetError: there is no such module or attribute, or it is no :class:`Stream`.
        What importing the module raises.
    """
    name, _, attribute = target.partition(":")
    module = _load_module(name)
    found: object = module
    for part in (attribute or _DEFAULT_ATTRIBUTE).split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            streams = [key for key, value in vars(module).items() if isinstance(value, Stream)]
            hint = f"; its streams are {', '.join(streams)}" if streams else " and no stream at all"
            raise TargetError(f"{name} has no {attribute or _DEFAULT_ATTRIBUTE}{hint}") from None
    if not isinstance(found, Stream):
        raise TargetError(
            f"{name}:{attribute or _DEFAULT_ATTRIBUTE} is no Stream but of type "
            f"{type(found).__name__}"
        )
    return found


def _load_module(name: str) -> ModuleType:
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    path = Path(name)
    if path.suffix == ".py":
        if not path.is_file():
            raise TargetError(f"there is no file {name}")
        sys.path.insert(0, str(path.parent.resolve()))
        name = path.stem
    elif not all(part.isidentifier() for part in name.split(".")):
        raise TargetError(f"a target is module:stream or file.py:stream; got {name!r}")
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as exc:
        if exc.name is not None and f"{name}.".startswith(f"{exc.name}."):
            raise TargetError(f"there is no module {name}, looked for from {here}") from exc
        raise  # something that the module itself imports
