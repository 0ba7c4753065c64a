"""Makes the scripts of docs/ importable: they are not part of the installed package."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[2]))
