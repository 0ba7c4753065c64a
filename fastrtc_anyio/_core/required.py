"""Check that a library still has the private names that this package relies on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib.metadata import version
from types import ModuleType


def check_required(
    required: Mapping[type | ModuleType, tuple[str, ...]], supported: Mapping[str, str]
) -> None:
    """Check that all names that ``required`` lists for a class or module exist.

    Names with two leading underscores are written as in the library's source, without Python's name
    mangling; ``method.name`` is an attribute of some object that a method uses. ``supported`` are
    version specifiers by distribution name.

    Raises:
        ImportError: states the missing name, the supported versions and the installed ones.
    """
    for owner, name in _missing(required):
        raise ImportError(_explain(owner, name, supported))


def find_missing(required: Mapping[type | ModuleType, tuple[str, ...]]) -> list[str]:
    """Return the names in ``required`` that do not exist, each with its class or module.

    They are written as for :func:`check_required`.
    """
    return [f"{owner.__name__}.{name}" for owner, name in _missing(required)]


def _missing(
    required: Mapping[type | ModuleType, tuple[str, ...]],
) -> Iterator[tuple[type | ModuleType, str]]:
    for owner, names in required.items():
        for name in names:
            if not _has(owner, name):
                yield owner, name


def _has(owner: type | ModuleType, name: str) -> bool:
    if isinstance(owner, ModuleType):
        return hasattr(owner, name)
    method, _, used = name.rpartition(".")
    if method:
        code = getattr(getattr(owner, method, None), "__code__", None)
        return code is not None and used in code.co_names
    if name.startswith("__"):
        name = f"_{owner.__name__}{name}"
    # An attribute that only instances have is among the names that the constructor's code uses.
    constructor = getattr(vars(owner).get("__init__"), "__code__", None)
    return hasattr(owner, name) or (constructor is not None and name in constructor.co_names)


def _explain(owner: type | ModuleType, name: str, supported: Mapping[str, str]) -> str:
    library = (owner.__name__ if isinstance(owner, ModuleType) else owner.__module__).split(".")[0]
    works = " and ".join(f"{package}{versions}" for package, versions in supported.items())
    installed = ", ".join(f"{package} {version(package)}" for package in supported)
    return (
        f"{library} {version(library)} has no {owner.__name__}.{name}; "
        f"fastrtc_anyio works with {works} (installed: {installed})"
    )
