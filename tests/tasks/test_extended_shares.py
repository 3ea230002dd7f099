"""The edition ``extended``: countries beside the reference file, which change nothing for those in it."""

import csv
import hashlib
import shutil
from pathlib import Path

import numpy as np
import pytest
from culteval.errors import InputError, UsageError
from culteval.harness.registry import spec_path
from culteval.tasks.measure import MeasureOptions, countries_of, measure_of
from culteval.tasks.metrics.share_table import load_shares
from culteval.tasks.prompts import render
from culteval.tasks.spec import load_spec

WVS = Path(__file__).parents[2] / "tasks" / "wvs"
ADDED = ("AU", "CA", "NL", "TH", "UA")
EXTENDED = MeasureOptions(edition="extended")


@pytest.fixture(scope="module")
def wvs():
    return load_spec(spec_path("wvs"))


def test_hashes_are_those_of_the_published_entries(wvs):
    """As in version 2026.1 of the suite, and the sha256 of the reference file under its name."""
    assert wvs.hash == "4139bfe92cc905c500efcfda165f4dea403803f7971d7d6b3fd1ba97288c2ae4"
    whole = hashlib.sha256(b"shares.csv\0" + (WVS / "shares.csv").read_bytes() + b"\0").hexdigest()
    assert wvs.compared_with(None) == wvs.compared_with("shipped") == whole
    assert wvs.compared_with("extended") not in (None, whole)


@pytest.mark.parametrize(("task", "asked"), [("wvs", [44] * 5), ("wvs_themes", [47, 48, 46, 48, 48])])
def test_five_countries_more(task, asked):
    """Australia was not asked Q207; the Netherlands had two options in place of three in Q122 and Q124."""
    spec = load_spec(spec_path(task))
    before = countries_of(spec, None)
    assert len(before) == 12 and countries_of(spec, "extended") == (*before, *ADDED)
    assert [len(measure_of(spec, country, EXTENDED).items) for country in ADDED] == asked


def test_shares_are_those_of_the_file(wvs):
    with (WVS / "shares_extended.csv").open(encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if (row["country"], row["question"]) == ("AU", "Q1")]
    assert [float(row["share"]) for row in rows] == [0.907377, 0.077094, 0.013311, 0.002219]
    found = measure_of(wvs, "AU", EXTENDED).target[0]
    assert np.allclose(found, [0.907377, 0.077094, 0.013311, 0.002219], atol=2e-6)


def test_the_world_mean_of_the_shipped_edition_has_the_shipped_countries(wvs):
    layout = render(wvs, "fit").layout
    item = wvs.items.ids.index("Q1")
    row = int(np.flatnonzero(layout.item == item)[0])
    table = load_shares(WVS / "shares.csv")
    for options, added in ((MeasureOptions(), ()), (EXTENDED, ADDED)):
        whole = load_shares(WVS / "shares.csv", WVS / "shares_extended.csv") if added else table
        others = [country for country in (*table.countries, *added) if country != "US"]
        mean = np.mean([[whole.of(c)["Q1"].get(code, (0, 0))[0] for code in (1, 2, 3, 4)] for c in others], axis=0)
        found = measure_of(wvs, "US", options).baselines(layout)["world mean"].probs[0, row]
        assert np.allclose(found[:4], mean / mean.sum(), atol=1e-12)
    assert len(others) == 16


def test_the_remedy_names_the_edition(wvs):
    with pytest.raises(UsageError, match=r"'shipped' of wvs has no shares of Australia\. `edition` extended has it"):
        measure_of(wvs, "AU", MeasureOptions())
    with pytest.raises(UsageError, match=r"'extended' of wvs has no shares of France\. It has AU, BR, CA"):
        measure_of(wvs, "FR", EXTENDED)


@pytest.fixture
def folder(tmp_path):
    shutil.copytree(WVS, tmp_path / "wvs")
    return tmp_path / "wvs"


def test_a_country_in_both_files(folder):
    with (folder / "shares_extended.csv").open("a") as file:
        file.write("US,Q1,1,1\n")
    with pytest.raises(InputError, match=r"shares_extended\.csv: US is in the file that it extends"):
        measure_of(load_spec(folder / "wvs.yaml"), "AU", EXTENDED)


def test_without_the_file_there_is_no_such_edition(folder):
    (folder / "shares_extended.csv").unlink()
    spec = load_spec(folder / "wvs.yaml")
    assert spec.editions == ("shipped",) and spec.compared_with("extended") is None
    with pytest.raises(UsageError, match="--edition 'extended': wvs has shipped"):
        measure_of(spec, "AU", EXTENDED)
