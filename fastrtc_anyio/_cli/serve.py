"""``serve module:stream``: serve a stream and its page until a signal ends it."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from types import ModuleType

from fastrtc_anyio.server.launch import ListenError, invitation, open_page, wait_for_interrupt
from fastrtc_anyio.stream import Stream


async def serve(stream: Stream, host: str, port: int, as_json: bool) -> bool:
    """Serve until SIGINT or SIGTERM, which drains first. Return whether the server could listen.

    With ``as_json``, the address is printed as one line of JSON.
    """
    try:
        async with open_page(stream, host, port) as url:
            where = {"event": "serving", "url": url}
            where |= {"modality": stream.modality, "mode": stream.mode}
            message = json.dumps(where) if as_json else invitation(url)
            await wait_for_interrupt(message, drain=stream.drain)
    except ListenError as exc:
        print(f"error: {exc}. Choose another port with --port", file=sys.stderr)
        return False
    return True


class TargetError(Exception):
    """The target does not name a stream."""


def load_stream(target: str) -> Stream:
    """Import a stream. The working directory is searched first.

    Args:
        target: ``module:attribute``, or ``path/to/module.py:attribute``. The attribute may be
            dotted, and is ``stream`` by default.

    Raises:
        TargetError: there is no such module or attribute, or it is not a :class:`Stream`.
        Exception: importing the module failed.
    """
    name, _, attribute = target.partition(":")
    attribute = attribute or "stream"
    module = _load_module(name)
    found: object = module
    for part in attribute.split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            streams = [key for key, value in vars(module).items() if isinstance(value, Stream)]
            known = ", ".join(streams) or "none"
            raise TargetError(f"{name} has no {attribute}; its streams: {known}") from None
    if not isinstance(found, Stream):
        raise TargetError(f"{name}:{attribute} must be a Stream; got {type(found).__name__}")
    return found


def _load_module(name: str) -> ModuleType:
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    path = Path(name)
    if path.suffix == ".py":
        if not path.is_file():
            raise TargetError(f"file {name} not found")
        sys.path.insert(0, str(path.parent.resolve()))
        name = path.stem
    elif not all(part.isidentifier() for part in name.split(".")):
        raise TargetError(f"the target must be module:stream or file.py:stream; got {name!r}")
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as exc:
        if exc.name is not None and f"{name}.".startswith(f"{exc.name}."):
            raise TargetError(f"module {name} not found from {here}") from exc
        raise  # a module that this one imports
