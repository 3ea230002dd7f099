"""Drawing the cultural map with twenty marks: the aim is two seconds a file. There is no peer."""

from __future__ import annotations

import statistics
import tempfile
from functools import partial
from pathlib import Path

import numpy as np
from culteval.harness.registry import spec_path
from culteval.harness.report.map_figure import Mark, write_map
from culteval.tasks.metrics.map_projection import load_projection

from .common import Row, Settings, alternate, say

MARKS = 20


def measure(settings: Settings) -> list[Row]:
    """Measure one row per format; matplotlib is loaded and its fonts are read before the clock starts."""
    projection = load_projection(spec_path("iw_map").parent / "countries.csv")
    rng = np.random.default_rng(0)
    start = (0.4, 0.6)
    points = (np.array(start) + rng.normal(size=(MARKS - 1, 2))).tolist()
    marks = [Mark("unaligned", start, (0.2, 0.2), "unaligned")]
    marks += [Mark(f"aligned {n}", (x, y), (0.25, 0.3), "aligned", start) for n, (x, y) in enumerate(points)]
    say(f"map: {MARKS} marks, {settings.repeats + 1} times each")
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / name for name in ("map.png", "map.svg")]
        works = {file.name: partial(write_map, file, projection, marks, "title", "note") for file in files}
        times = alternate(works, settings.repeats)
    return [Row(name=name, seconds=statistics.median(seconds)) for name, seconds in times.items()]
