"""Entry point of ``python -m fastrtc_anyio``; see :mod:`fastrtc_anyio._cli.main`."""

from __future__ import annotations

import sys

from ._cli.main import main

if __name__ == "__main__":
    sys.exit(main())
