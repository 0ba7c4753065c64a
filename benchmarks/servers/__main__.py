"""Run a server: ``python -m benchmarks.servers KIND HANDLER RATE BACKEND [TREE]``."""

from __future__ import annotations

import sys
from importlib import import_module

MODULES = {"bridge": "bridge", "ours": "ours", "fastrtc": "fastrtc_server", "raw": "raw"}


def main(kind: str, handler: str, rate: str, backend: str, tree: str = "") -> None:
    if tree:  # before the first import of the package; benchmarks stays that of this tree
        sys.path.insert(0, tree)
    import_module(f"benchmarks.servers.{MODULES[kind]}").serve(handler, int(rate), backend)


if __name__ == "__main__":
    main(*sys.argv[1:])
