"""A small dialect of Mermaid, translated into the language of Graphviz.

It has ``flowchart`` with boxes, subgraphs and labelled arrows, and ``stateDiagram-v2`` with
labelled arrows. GitHub draws the same text itself.
"""

from __future__ import annotations

import re

BOX = r'(?P<{0}>\[\*\]|\w+)(?:(?P<{0}_open>\(\[|[\[({{])"?(?P<{0}_text>[^"\])}}]*)"?[\])}}]+)?'
ARROW = r'(?P<arrow>-->|-\.->|==>|---)(?:\|"?(?P<label>[^|"]*)"?\|)?'
LINE = re.compile(rf"{BOX.format('a')}(?: *{ARROW} *{BOX.format('b')}(?:: *(?P<after>.*))?)?")
SUBGRAPH = re.compile(r'subgraph (\w+)(?:\["?([^"\]]*)"?\])?')
STYLES = {"-.->": "style=dashed", "==>": "penwidth=2.5", "---": "arrowhead=none"}
SHAPES = {"([": "shape=box style=rounded class=end", "{": "shape=diamond", "(": "style=rounded"}


class DiagramError(ValueError):
    """A line of a diagram is outside the dialect."""


def to_dot(text: str) -> str:
    """Translate a Mermaid diagram into the language of Graphviz.

    Raises:
        DiagramError: a line has a form that is not known here.
    """
    kind, *lines = [line.strip() for line in text.strip().splitlines() if line.strip()]
    direction = kind.partition(" ")[2] or "TD"
    font = "fontname=Arial fontsize"
    dot = [
        "digraph {",
        f"rankdir={direction.replace('TD', 'TB')} bgcolor=transparent nodesep=0.35 ranksep=0.45",
        f'{font}=13 node [shape=box style=rounded {font}=13 margin="0.16,0.08"]',
        f"edge [{font}=11 arrowsize=0.7]",
    ]
    return "\n".join([*dot, *map(_translate, lines), "}"])


def _translate(line: str) -> str:
    if line == "end":
        return "}"
    if subgraph := SUBGRAPH.fullmatch(line):
        label = _quoted(subgraph[2] or subgraph[1])
        return (
            f"subgraph cluster_{subgraph[1]} {{ label={label} style=rounded margin=14 labeljust=l"
        )
    found = LINE.fullmatch(line)
    if found is None:
        raise DiagramError(f"not known in a diagram: {line}")
    parts = [_box(found, "a")]
    if found["arrow"] is not None:
        parts.append(_box(found, "b"))
        label = found["label"] or found["after"] or ""
        style = STYLES.get(found["arrow"], "")
        parts.append(
            f"{_id(found['a'])} -> {_id(found['b'])} [label={_quoted(label, pad=' ')} {style}]"
        )
    return "\n".join(filter(None, parts))


def _box(found: re.Match[str], side: str) -> str:
    if found[side] == "[*]":
        return "start [shape=point width=0.16]"
    if found[f"{side}_text"] is None:
        return ""
    shape = SHAPES.get(found[f"{side}_open"], "")
    return f"{found[side]} [label={_quoted(found[f'{side}_text'])} {shape}]"


def _id(name: str) -> str:
    return "start" if name == "[*]" else name


def _quoted(text: str, pad: str = "") -> str:
    """Quote a text, with a line for each ``<br>``, and for each name of a long list of them."""
    lines = re.split(r"<br ?/?>|, (?=[A-Z])" if len(text) > 16 else r"<br ?/?>", text)
    joined = "\\n".join(f"{pad}{line.strip()}{pad}" for line in lines)
    return '"' + joined.replace('"', "'") + '"'
