"""The figure of the cultural map: labels without overlap, colours that the colour-blind tell apart, arrows, regions."""

import itertools
import re
from pathlib import Path

import numpy as np
import pytest
from culteval.harness.report import map_figure
from culteval.harness.report.label_places import place_labels
from culteval.harness.report.map_figure import Mark, draw_map, located, write_map
from culteval.tasks.metrics.map_projection import load_projection
from culteval.tasks.score import Score

PROJECTION = load_projection(Path(__file__).parents[3] / "tasks" / "iw_map" / "countries.csv")


def twenty(seed, spread):
    """Twenty marks, all near one place for a small spread: one unaligned model and nineteen aligned ones."""
    rng = np.random.default_rng(seed)
    start = (0.4, 0.6)
    marks = [Mark("a model of ours, unaligned", start, (0.21, 0.2), "unaligned")]
    for number in range(19):
        point = tuple((np.array(start) + spread * rng.normal(size=2)).tolist())
        marks.append(Mark(f"{('icl', 'de', 'gd')[number % 3]} country {number}", point, (0.25, 0.3), "aligned", start))
    return marks


def drawn(marks, own=()):
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 9), dpi=100, layout="constrained")  # 1,200 pixels wide
    canvas = FigureCanvasAgg(figure)
    axes = figure.subplots()
    draw_map(axes, PROJECTION, marks, "title", "note", own)
    canvas.draw()
    boxes = {text.get_text(): text.get_window_extent().extents for text in axes.texts if text.get_text()}
    assert len(boxes) == len([text for text in axes.texts if text.get_text()])
    return axes, boxes


def overlapping(boxes):
    for (one, a), (other, b) in itertools.combinations(boxes.items(), 2):
        if (np.maximum(a[:2], b[:2]) < np.minimum(a[2:], b[2:])).all():
            yield one, other


@pytest.mark.parametrize(("seed", "spread"), [(0, 1.0), (1, 0.3), (2, 0.05)])
def test_labels_do_not_overlap(seed, spread):
    """All twenty marks are named, even when they crowd, and the names of most countries find room beside them."""
    marks = twenty(seed, spread)
    axes, boxes = drawn(marks, ("SA",))
    assert {mark.name for mark in marks} <= set(boxes)
    assert len(boxes) > 20 + 85 and list(overlapping(boxes)) == []
    frame = axes.get_window_extent().extents
    assert all((box[:2] >= frame[:2] - 1).all() and (box[2:] <= frame[2:] + 1).all() for box in boxes.values())
    legend = axes.get_legend().get_window_extent().extents
    assert list(overlapping({"legend": legend} | {mark.name: boxes[mark.name] for mark in marks})) == []
    spots = axes.transData.transform([mark.point[::-1] for mark in marks])
    for name in (mark.name for mark in marks):
        box = boxes[name]
        assert not ((spots > box[:2]) & (spots < box[2:])).all(1).any(), name


def test_files_are_reproducible_and_hold_names_as_text(tmp_path):
    marks = [Mark("$x$ <b>&", (0.1, 0.2), (0.2, 0.2), "aligned"), Mark("mean", (0.0, 0.1), (0.0, 0.0), "null")]
    for name in ("a.svg", "b.svg"):
        write_map(tmp_path / name, PROJECTION, marks, "A title: $5", "note")
    text = (tmp_path / "a.svg").read_text(encoding="utf-8")
    assert text == (tmp_path / "b.svg").read_text(encoding="utf-8")
    assert "Sweden" in text and "African-Islamic" in text and "$x$ &lt;b&gt;&amp;" in text and "<b>" not in text
    write_map(tmp_path / "a.png", PROJECTION, marks, "t", "n")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


def simulated(colour, matrix):
    """A colour as people with a colour deficiency see it, in CIELAB (matrices of Viénot, Brettel & Mollon 1999)."""
    from matplotlib.colors import to_rgb

    linear = np.array([c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(colour)])
    seen = np.clip(matrix @ linear, 0, 1)
    xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]) @ seen
    f = np.cbrt(np.maximum(xyz / (0.9505, 1.0, 1.089), 1e-9))
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


PROTAN = np.array([[0.11238, 0.88762, 0.0], [0.11238, 0.88762, 0.0], [0.00401, -0.00401, 1.0]])
DEUTAN = np.array([[0.29275, 0.70725, 0.0], [0.29275, 0.70725, 0.0], [-0.02234, 0.02234, 1.0]])


@pytest.mark.parametrize("matrix", [np.eye(3), PROTAN, DEUTAN], ids=["usual", "protanopia", "deuteranopia"])
def test_zones_are_told_apart_by_the_colour_blind(matrix):
    """In files, and on pages in light and dark."""
    assert len({marker for _, marker in map_figure.STYLES.values()}) == 8  # and by their shape
    css = (Path(__file__).parents[3] / "leaderboards" / "templates" / "site.css").read_text()
    pages = [re.findall(r"--z\d: (#\w{6});", line) for line in css.splitlines() if "--z0:" in line]
    assert list(map(len, pages)) == [8, 8, 8] and pages[1] == pages[2]
    for colours in ([colour for colour, _ in map_figure.STYLES.values()], *pages):
        for one, other in itertools.combinations(colours, 2):
            assert np.linalg.norm(simulated(one, matrix) - simulated(other, matrix)) > 9, (one, other)


def score(metric, value, low=None, high=None, split="heldout"):
    return Score(
        task="iw_map", country="SA", metric=metric, scoring="expected", split=split, value=value, low=low, high=high,
        n=20, higher_is_better=None, edition="2022", paraphrases=("C",), orders=("natural",),
    )  # fmt: skip


def test_a_point_s_error_is_that_of_personas_and_projection():
    """The interval of 20 personas is Student's, with 19 degrees of freedom."""
    rows = [
        score("traditional_secular", 0.5, 0.5 - 2.093024 * 0.3, 0.5 + 2.093024 * 0.3), score("projection_error", 0.4),
        score("survival_selfexpression", -1.0), score("survival_selfexpression", 9.0, split="fit"),
    ]  # fmt: skip
    point, deviation = located(rows, "expected", "heldout")
    assert point == (0.5, -1.0) and deviation == pytest.approx((0.5, 0.4))
    assert located(rows[:2], "expected", "heldout") is None and located(rows, "argmax", "heldout") is None


def test_the_region_and_the_arrow():
    """An ellipse of 2.448 standard deviations, half of its width to each side, and an arrow that ends at the mark."""
    mark = Mark("icl", (0.5, -0.2), (0.1, 0.3), "aligned", (1.0, 1.0))
    axes, _ = drawn([mark])
    ellipse = next(patch for patch in axes.patches if type(patch).__name__ == "Ellipse")
    assert tuple(ellipse.center) == (-0.2, 0.5)
    assert (ellipse.width / 2, ellipse.height / 2) == pytest.approx((2.4477 * 0.3, 2.4477 * 0.1), rel=1e-3)
    arrow = next(text for text in axes.texts if getattr(text, "arrow_patch", None) is not None)
    assert arrow.xy == (-0.2, 0.5) and arrow.xyann == (1.0, 1.0)


def test_labels_go_where_there_is_room():
    frame = (0, 0, 100, 100)
    anchors, sizes = np.array([[50, 50], [50, 50], [2, 50]]), np.array([[20, 10]] * 3)
    placed = place_labels(anchors, sizes, [[5]] * 3, frame, np.array([[46, 46, 54, 54]]))
    assert not np.isnan(placed).any()
    assert placed[0][0] >= 54 and abs(placed[0][1] + placed[0][3] - 100) < 20  # to the right, about level
    assert list(overlapping(dict(enumerate(placed)))) == []
    nowhere = place_labels(anchors[:1], np.array([[200, 10]]), [[5, 50]], frame, np.zeros((0, 4)))
    assert np.isnan(nowhere).all()
