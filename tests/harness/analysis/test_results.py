"""Comparisons and country distances as tables and pictures for notebooks."""

import matplotlib
import numpy as np
import pytest
from culteval.errors import UsageError
from culteval.harness.analysis.compare import compare, read_sides
from culteval.harness.analysis.country_distance import distances_to_countries
from culteval.harness.analysis.country_set import why_no_set
from culteval.harness.analysis.rank_correlation import correlate
from culteval.harness.registry import spec_of
from culteval.harness.scoring.submission import load_submission
from rich.console import Console

from .test_compare import write

matplotlib.use("agg")
SIX = ("BR", "CN", "DE", "IN", "SA", "US")
TEN = (*SIX, "FR", "JP", "GB", "MX")
HOSTILE = "<script>alert(1)</script>[/bold]"


def printed(result):
    console = Console(record=True, width=160)
    console.print(result)
    return console.export_text()


def test_a_comparison(tmp_path):
    one = write(tmp_path / "a", people=20, answers=1)
    two = write(tmp_path / "b", people=20, answers=2, aligner=HOSTILE)
    found = compare(read_sides([load_submission(one), two]), np.random.default_rng(0))
    table, (each,) = found.to_frame(), found
    assert len(table) == len(each.differences) and set(table["a"]) == {HOSTILE} and set(table["b"]) == {"de"}
    assert np.allclose(table["value_a"] - table["value_b"], table["difference"])
    assert list(table["difference"]) == [row.difference for row in each.differences]
    assert list(found.item_frame()["change"]) == [row.change for row in each.changes]
    axes = found.plot("pdi")
    rows = [row for row in each.differences if row.metric == "pdi"]
    assert [line.get_xdata()[0] for line in axes.lines if line.get_marker() == "o"] == [r.difference for r in rows]
    assert len(found.plot().get_yticks()) == sum(row.metric == "loss" for row in each.differences)
    with pytest.raises(UsageError, match="pdo"):
        found.plot("pdo")
    assert "<script>" not in found._repr_html_() and HOSTILE[:8] in printed(found)


def test_distances_of_one_and_of_a_set(tmp_path):
    folders = [write(tmp_path / code, country=code, answers=k) for k, code in enumerate(SIX)]
    found = distances_to_countries([load_submission(folders[0]), *folders[1:]])
    table = found.to_frame()
    assert len(table) == 6 * 94 and table["own"].sum() == 6
    inside = table.pivot(index="aligned_to", columns="country", values="centred")[list(SIX)].loc[list(SIX)]
    assert np.array_equal(inside.to_numpy(), found.identified.centred)
    assert np.isnan(table.loc[~table["country"].isin(SIX), "centred"]).all()
    for _, rows in table.groupby("aligned_to"):
        assert list(rows["distance"]) == sorted(rows["distance"]) and list(rows["place"]) == list(range(1, 95))
    assert [label.get_text() for label in found.plot().get_xticklabels()] == list(SIX)
    assert "Traceback" not in printed(found) and found._repr_html_().startswith("<table")
    alone = distances_to_countries(folders[:1])
    assert len(alone.plot(5).get_yticks()) in (5, 6)
    pair = distances_to_countries([folders[0], write(tmp_path / "x", country="US", aligner="gd")])
    with pytest.raises(UsageError, match="differ in more than the country: aligner"):
        pair.plot()


def test_rank_correlations(tmp_path):
    found = correlate(read_sides([write(tmp_path / code, country=code, answers=k) for k, code in enumerate(TEN)]))
    table = found.to_frame()
    assert len(table) == 2 * 6 * 2 and set(table["statistic"]) == {"kendall", "spearman"}
    assert len(found.plot("spearman").get_yticks()) == 12 and "spearman" in printed(found)


@pytest.mark.parametrize(
    ("more", "needle"),
    [({}, None), ({"seed": 3}, None), ({"people": 2}, "personas"), ({"constants": "zero"}, "constants"),
     ({"model": {"dtype": "bfloat16"}}, "dtype"), ({"country": "US"}, "United States")],
)  # fmt: skip
def test_what_an_aligned_set_is(tmp_path, more, needle):
    one, two = write(tmp_path / "a", country="US"), write(tmp_path / "b", **{"country": "SA"} | more)
    why = why_no_set([load_submission(path).manifest for path in (one, two)], spec_of("vsm13"))
    assert why is None if needle is None else needle in why
