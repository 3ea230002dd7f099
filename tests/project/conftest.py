"""The clone's own packages, ``benchmarks`` among them, are importable here as from its root."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[2]))
