"""The reference: each listed name is replaced with what its docstring says.

A page in ``reference/`` lists public names, one in each line::

    * `fastrtc_anyio.Stream`
"""

from __future__ import annotations

import ast
import builtins
import importlib
import inspect
import re
import sys
import textwrap
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.ext import napoleon
from sphinx.ext.napoleon.docstring import GoogleDocstring
from sphinx.util.inspect import signature, stringify_signature
from sphinx.util.nodes import make_refnode

import fastrtc_anyio

from .names import ENTRY, public_names, resolve

PACKAGE = Path(fastrtc_anyio.__file__).parent
FOREIGN = ("_pytest", "anyio", "av", "httpx", "hypothesis", "numpy", "pytest", "starlette", "trio")
"""Libraries that document their own names."""
ENTRIES = re.compile(r"(?:^\* `fastrtc_anyio(?:\.\w+)+`\n)+", re.MULTILINE)


def describe(name: str) -> str:
    """Return the directive that documents a name."""
    value = resolve(name)
    if inspect.isclass(value):
        kind = "autoexception" if issubclass(value, BaseException) else "autoclass"
        stops = ", ".join(_shown_bases(value))
        options = f"   :inherited-members: {stops}\n"
        if any(_is_shown(base) for base in value.__bases__):
            options += "   :show-inheritance:\n"
        return f".. {kind}:: {name}\n{options}"
    if inspect.isroutine(value):
        return f".. autofunction:: {name}\n"
    return _describe_data(name)


def _shown_bases(cls: type) -> Iterator[str]:
    """The bases whose members are not repeated: those with an entry, and those of libraries."""
    yield "object"
    for base in cls.__mro__[1:]:
        if base in public_names().values() or not base.__module__.startswith("fastrtc_anyio"):
            yield base.__name__


def _is_shown(base: object) -> bool:
    """Whether a reader can look a base up, and learns from it."""
    known = getattr(base, "__module__", "") in ("builtins", "enum", "typing")
    return base is not object and (known or base in public_names().values())


def _describe_data(name: str) -> str:
    """Describe a constant or an alias, whose text is the string below its assignment."""
    module, _, short = name.rpartition(".")
    for path in [Path(importlib.import_module(module).__file__ or ""), *PACKAGE.rglob("*.py")]:
        body = ast.parse(path.read_text(encoding="utf-8")).body
        for node, below in zip(body, [*body[1:], None], strict=True):
            if not isinstance(node, ast.Assign | ast.AnnAssign) or _target(node) != short:
                continue
            text = below.value.value if isinstance(below, ast.Expr) else ""  # type: ignore[attr-defined]
            lines = [f".. py:data:: {name}", "   :canonical: " + _dotted(path, short)]
            if node.value is not None and len(value := ast.unparse(node.value)) < 200:
                lines.append(f"   :value: {value}")
            lines += ["", textwrap.indent(inspect.cleandoc(text), "   "), ""]
            return "\n".join(lines)
    raise LookupError(f"no assignment to {name}")


def _target(node: ast.Assign | ast.AnnAssign) -> str:
    """The name that an assignment binds; empty for an attribute and other places."""
    target = node.target if isinstance(node, ast.AnnAssign) else node.targets[0]
    return target.id if isinstance(target, ast.Name) else ""


def _dotted(path: Path, name: str) -> str:
    module = ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)
    return f"{module.removesuffix('.__init__')}.{name}"


def _read(app: Sphinx, docname: str, source: list[str]) -> None:
    if docname.startswith("reference/"):
        source[0] = ENTRIES.sub(_expand, source[0])


def _expand(entries: re.Match[str]) -> str:
    directives = "\n".join(describe(name) for name in ENTRY.findall(entries[0]))
    return f"````{{eval-rst}}\n{directives}````\n"


def _drop_private_bases(
    app: Sphinx, name: str, cls: type, options: object, bases: list[object]
) -> None:
    bases[:] = [base for base in bases if _is_shown(base)]


def _show_arguments(
    app: Sphinx,
    what: str,
    name: str,
    value: object,
    options: object,
    given: str | None,
    returned: str,
) -> tuple[str, str] | None:
    """Show the arguments of ``__init__``, and a default that a dataclass makes as an ellipsis."""
    if given is None:
        return None
    if inspect.isclass(value) and "*args: object" in given:
        found = signature(value.__init__, bound_method=True)
        given = stringify_signature(found, show_return_annotation=False, unqualified_typehints=True)
    return given.replace("<factory>", "..."), returned


def _find(
    app: Sphinx, env: BuildEnvironment, node: pending_xref, content: nodes.TextElement
) -> nodes.Node | None:
    """Find the target of a short name, which a docstring writes as its module's code does."""
    if node.get("refdomain") != "py":
        return None
    objects = env.domains.python_domain.objects
    target = node["reftarget"].split(".")
    # A method is named with its class; anything else may have the path of another module.
    tail = target[-2:] if len(target) > 1 and target[-2][0].isupper() else target[-1:]
    found = [name for name in objects if name.split(".")[-len(tail) :] == tail]
    if len({objects[name].node_id for name in found}) == 1:
        entry = objects[min(found, key=len)]
        return make_refnode(app.builder, node["refdoc"], entry.docname, entry.node_id, content)
    return content if is_undocumented(node["reftarget"]) else None


def is_undocumented(name: str) -> bool:
    """Whether a name exists, but belongs to a library or to the inside of the package."""
    first, _, rest = name.partition(".")
    if first in FOREIGN or (rest and first in sys.stdlib_module_names):
        return True
    if first == "fastrtc_anyio" and rest:
        return _exists(name)
    return name in internal_names()


def _exists(name: str) -> bool:
    module, _, attribute = name.rpartition(".")
    try:
        return hasattr(importlib.import_module(module), attribute)
    except ImportError:
        return False


@cache
def internal_names() -> frozenset[str]:
    """Names that modules of the package define or import."""
    found: set[str] = set()
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom):
                found |= {alias.asname or alias.name for alias in node.names}
            elif isinstance(node, ast.Assign | ast.AnnAssign):
                found.add(_target(node))
            elif isinstance(node, ast.ClassDef):
                found.add(node.name)
    return frozenset(found)


def _leave_builtins(app: Sphinx, doctree: nodes.document) -> None:
    """Keep ``bytes`` in a signature from leading to an attribute of this name."""
    for node in list(doctree.findall(pending_xref)):
        if node.get("reftype") == "class" and hasattr(builtins, node["reftarget"]):
            shown = node.children[0]
            node.replace_self(shown.children if shown.children else [shown])


class Docstring(GoogleDocstring):
    """A colon in the text of an attribute is punctuation, and no type stands before it."""

    def _parse(self) -> None:
        if self._what in ("attribute", "data", "property"):
            self._what = "object"
        super()._parse()


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("source-read", _read)
    app.connect("autodoc-process-bases", _drop_private_bases)
    app.connect("autodoc-process-signature", _show_arguments)
    app.connect("doctree-read", _leave_builtins)
    app.connect("missing-reference", _find)
    setattr(napoleon, "GoogleDocstring", Docstring)  # noqa: B010 - not an export
    return {"parallel_read_safe": True, "parallel_write_safe": True}
