"""``culteval map``: points, nearest countries, arrows from the unaligned model, figures, and what is refused."""

import csv
import json
from pathlib import Path

import culteval
import numpy as np
import pytest
from culteval.errors import InputError, UsageError
from culteval.harness.registry import spec_of
from culteval.harness.submissions.writer import write_submission
from culteval.leaderboards.leaderboard import leaderboard
from culteval.tasks.answers import UNPARSED, Answers
from culteval.tasks.prompts import ProtocolOptions, render_protocol
from scipy.special import stdtrit

from ...command import invoked
from ...submission_files import manifest_of

FIGURES = Path(__file__).parents[3] / "tasks" / "iw_map" / "countries.csv"
AXES = ("traditional_secular", "survival_selfexpression")


def write(folder, aligner="icl", country="SA", *, task="iw_map", seed=0, personas=0, model="m", texts=False, salt=None):
    """A submission of answers drawn from its names, the same for every country if unaligned."""
    layout = render_protocol(spec_of(task), ProtocolOptions(personas, seed)).layout
    rng = np.random.default_rng(
        [len(aligner), *map(ord, country if aligner != "naive" else ""), seed, *map(ord, model)]
    )
    by_item = rng.dirichlet(np.ones(layout.codes.shape[1]), 14)[layout.item] * layout.inside
    noise = rng.uniform(0.5, 1.5, by_item.shape)
    probs = by_item * noise / (by_item * noise).sum(1, keepdims=True)
    parsed = np.full(len(layout), UNPARSED if salt == "silent" else 1)
    more = {"texts": ("?",) * len(layout), "parsed": parsed} if texts else {}
    manifest = manifest_of((task,), personas, seed)
    manifest["tasks"][0] |= {"country": country, "edition": "2022"}
    manifest |= {"country": country, "fitted": None}
    manifest["aligner"]["name"], manifest["model"]["name"] = aligner, model
    if aligner == "naive":
        manifest["aligner"]["settings"] = {}
    name = f"{task}-{country}-{aligner}-{seed}-{personas}-{model}"
    write_submission(folder / name, manifest, {task: Answers(layout, probs[None], np.zeros((1, len(layout))), **more)})
    return folder / name


def call(*words):
    return json.loads(invoked("map", *words, "--json").stdout)


def test_points_are_those_of_score_and_countries_come_nearest_first(tmp_path):
    home = write(tmp_path, country="SE")
    found = call(home)
    scores = {
        row["metric"]: row["value"]
        for row in json.loads(invoked("score", home, "--json").stdout)["scores"]
        if (row["split"], row["scoring"]) == ("heldout", "expected")
    }
    (row,) = found["submissions"]
    assert row["point"] == pytest.approx({axis: scores[axis] for axis in AXES})
    assert list(row["standard_error"].values()) == pytest.approx([scores["projection_error"]] * 2)
    at = {line["iso2"]: [float(line[axis]) for axis in AXES] for line in csv.DictReader(FIGURES.open())}
    reach = {code: float(np.hypot(*np.subtract(point, list(row["point"].values())))) for code, point in at.items()}
    assert [each["country"] for each in row["distances"]] == sorted(reach, key=reach.get)
    own = next(each["distance"] for each in row["distances"] if each["country"] == "SE")
    assert own == pytest.approx(scores["distance"]) == pytest.approx(reach["SE"])
    assert found["projection_error"] == pytest.approx(dict(zip(AXES, (0.2129, 0.2069), strict=True)), abs=1e-4)


def test_arrows_lead_from_the_same_model_asked_as_many_personas(tmp_path):
    homes = [
        write(tmp_path, "naive", "SA"), write(tmp_path, "naive", "US"), write(tmp_path, "icl", "SA"),
        write(tmp_path, "icl", "US"), write(tmp_path, "icl", "SA", model="other"),
        write(tmp_path, "icl", "SA", personas=2), write(tmp_path, "icl", "SA", task="iw_map_de"),
    ]  # fmt: skip
    found = culteval.cultural_map(*homes)
    names = {each.name: each for each in found.points}
    assert len(found.points) == 6  # the unaligned model answers alike for every country
    bare = names["m unaligned, iw_map"]
    assert bare.origin is None and not bare.aligned
    started = [each for each in found.points if each.origin is not None]
    assert [(each.manifest.aligned_to, each.manifest.model.name, each.task.personas) for each in started] == [
        ("SA", "m", 0), ("US", "m", 0)]  # fmt: skip
    assert all(each.origin == bare.point and each.task.name == "iw_map" for each in started)
    marks = found.marks
    assert [mark.kind for mark in marks] == ["unaligned", *["aligned"] * 5, "null"]
    assert len({mark.name for mark in marks}) == len(marks) and found.own == ["SA", "US"]
    frame = found.to_frame()
    assert frame["distance"].isna().sum() == 1 and set(frame["zone"]) <= {row["zone"] for row in
                                                                        csv.DictReader(FIGURES.open())}  # fmt: skip


def test_random_prefixes_are_one_mark(tmp_path):
    homes = [write(tmp_path, "random_prefix", seed=seed) for seed in range(3)]
    found = culteval.cultural_map(*homes, write(tmp_path, "naive"))
    points = np.array([each.point for each in found.points if each.manifest.aligner.name == "random_prefix"])
    unaligned, control, world = found.marks
    assert (unaligned.kind, control.kind, control.name, world.kind) == (
        "unaligned",
        "null",
        "random prefix (3)",
        "null",
    )
    assert control.point == pytest.approx(points.mean(0)) and control.deviation == pytest.approx(points.std(0, ddof=1))
    assert found.own == [] and all(each.origin is None for each in found.points)


def test_personas_widen_the_standard_error(tmp_path):
    home = write(tmp_path, personas=25)
    (row,) = call(home)["submissions"]
    scores = json.loads(invoked("score", home, "--json").stdout)["scores"]
    found = {s["metric"]: s for s in scores if (s["split"], s["scoring"]) == ("heldout", "expected")}
    for axis in AXES:
        half = (found[axis]["high"] - found[axis]["low"]) / 2 / stdtrit(24, 0.975)
        assert half > 0 and row["standard_error"][axis] == pytest.approx(
            np.hypot(half, found["projection_error"]["value"])
        )


@pytest.mark.parametrize("suffix", ["svg", "png"])
def test_the_figure_is_written(tmp_path, suffix):
    homes, out = [write(tmp_path, "naive"), write(tmp_path, "icl")], tmp_path / f"map.{suffix}"
    said = invoked("map", *homes, "--out", out).stdout
    assert str(out) in said.replace("\n", "") and "Edition 2022, held-out answers, expected" in said and "0.21" in said
    data = out.read_bytes()
    assert data.startswith(b"\x89PNG") if suffix == "png" else b"icl SA" in data and b"m unaligned" in data


def test_a_board_is_drawn_as_the_map(tmp_path):
    from culteval.leaderboards.render import figure

    for aligner, seed in (("naive", 0), ("icl", 0), ("random_prefix", 1), ("random_prefix", 2)):
        write(tmp_path / "in", aligner, seed=seed)
    board = leaderboard(tmp_path / "in").select("iw_map", "SA")[0]
    assert figure.write(tmp_path / "board.svg", board) == 0
    text = (tmp_path / "board.svg").read_text(encoding="utf-8")
    for name in ("icl s0", "unaligned", "random prefix (2)", "mean of all countries", "iw_map, Saudi Arabia", "0.21"):
        assert name in text, name


def test_an_aligned_set_has_a_between_country_r2(tmp_path):
    """Against coordinates read from the pages of score, centred here."""
    homes = [write(tmp_path, country=code) for code in ("BR", "CN", "DE", "IN", "JP", "US")]
    found = culteval.identify(*homes, task="iw_map")
    at = {line["iso2"]: [float(line[axis]) for axis in AXES] for line in csv.DictReader(FIGURES.open())}
    model = np.array([[each["point"][axis] for axis in AXES] for each in call(*homes)["submissions"]])
    published = np.array([at[code] for code in ("BR", "CN", "DE", "IN", "JP", "US")])
    x, y = model - model.mean(0), published - published.mean(0)
    assert found.between.explained_variance["all"] == pytest.approx(1 - ((x - y) ** 2).sum() / (y**2).sum())
    for axis, name in enumerate(AXES):
        one = 1 - ((x - y)[:, axis] ** 2).sum() / (y[:, axis] ** 2).sum()
        assert found.between.explained_variance[name] == pytest.approx(one)
    assert found.between.skill is None and found.identified.mean_rank >= 1
    text = leaderboard(tmp_path).to_markdown()
    assert "| aligner | countries | between-country R2 | correlation | traditional_secular |" in text.replace("\\", "")
    assert "nan" not in text


def test_what_is_refused(tmp_path):
    home = write(tmp_path)
    write_submission(tmp_path / "vsm", manifest_of(), {"vsm13": answers("vsm13")})
    silent = write(tmp_path, task="iw_map_text", texts=True, salt="silent")
    (tmp_path / "begun").mkdir()
    (tmp_path / "begun" / "log.jsonl").touch()
    cases = [
        ((home, "--out", "map.pdf"), UsageError, r"--out 'map.pdf': figures are SVG or PNG. Name it"),
        ((tmp_path / "vsm",), UsageError, r"it answered vsm13, not iw_map. `culteval run --task iw_map` asks it"),
        ((home, "--task", "iw_map_de"), UsageError, "it answered iw_map, not iw_map_de"),
        ((home, "--scoring", "text"), UsageError, "--scoring 'text': iw_map has expected, argmax"),
        ((home, "--edition", "2020"), UsageError, "--edition '2020': iw_map has 2022"),
        ((silent, "--scoring", "text"), InputError, "iw_map_text has no answer by text, so there is no point"),
        ((tmp_path / "nothing",), InputError, "nothing"),
        ((home, tmp_path / "begun"), InputError, "begun: an unfinished run. `culteval resume .*begun` ends it"),
    ]  # fmt: skip
    for words, kind, message in cases:
        with pytest.raises(kind, match=message) as caught:
            invoked("map", *words)
        assert len(str(caught.value).splitlines()) <= 2
    assert invoked("map").exit_code == 2
    with pytest.raises(UsageError, match="give a submission"):
        culteval.cultural_map()


def answers(task):
    layout = render_protocol(spec_of(task), ProtocolOptions()).layout
    probs = layout.inside / layout.widths[:, None]
    return Answers(layout, probs[None], np.zeros((1, len(layout))))
