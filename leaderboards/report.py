"""A report on one model: a page of its submissions that stands alone, with what cannot be concluded from them."""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import click

from ..errors import UsageError
from ..harness.analysis.cultural_map import MEASURE as MAP
from ..harness.analysis.cultural_map import cultural_map
from ..harness.report.plots import dimensions, pictured
from ..harness.report.tables import headline_of
from ..harness.scoring.baselines import Baseline, baselines
from ..harness.scoring.score import TaskCache
from ..harness.scoring.scores import Scores
from ..harness.scoring.submission import Submission
from ..harness.submissions.manifest import AskedTask, Manifest, submission_of
from ..harness.submissions.reader import read_manifest
from ..harness.util.atomic_io import write_text
from ..tasks.countries import name_of
from ..tasks.glossary import label, meaning
from ..tasks.measure import measure_of
from ..tasks.prompts import layout_of
from ..tasks.score import COLLAPSED, Score, find
from ..tasks.spec import TaskSpec
from .boards import Key, is_usual, key_of, variant_of
from .metric_labels import precision
from .report_subgroups import subgroup_tables
from .submission_page import command, item_answers, items, visible

TEMPLATES = Path(__file__).with_name("templates")
MOST_ITEMS = 4  # of those that agree most, and of those that agree least
ROBUSTNESS = ("_paraphrase_spread", "_order_spread")
SHARES_OUTSIDE = ("off_options", "unparsed")
SURVEYS = ("hofstede", "shares", MAP)  # measures of values; the others measure knowledge or behaviour


Verdict = Literal["yes", "point", "no"]


@dataclass(frozen=True)
class Part:
    """One task of one submission, with its scores and the baselines on its prompts."""

    name: str
    submission: Submission
    asked: AskedTask
    spec: TaskSpec
    scores: Scores
    baselines: Sequence[Baseline]

    @property
    def title(self) -> str:
        """Return task and country; also edition, constants, personas and limit if they are not the usual ones."""
        title = f"{self.spec.name}, {name_of(self.asked.country)}"
        return title if is_usual(self.key, self.spec) else f"{title} ({variant_of(self.key, self.spec)})"

    @property
    def key(self) -> Key:
        """Return the key of its board: only runs with the same one are compared."""
        return key_of(self.asked, self.spec)

    @property
    def headline(self) -> Score | None:
        """Return the held-out headline; None where the answers give none."""
        return headline_of(self.spec).find(self.scores)


def report(runs: Sequence[Path]) -> str:
    """Return the page of one model as HTML; it loads nothing and holds no script.

    Raises:
        UsageError: runs of several models. InputError: a bad submission.
    """
    import jinja2

    cache = TaskCache()
    places = [submission_of(run) for run in runs]
    submissions = [Submission(place, read_manifest(place), cache=cache) for place in places]
    models = {(s.manifest.model.name, s.manifest.model.revision, s.manifest.model.adapter_sha256) for s in submissions}
    if len(models) > 1:
        names = ", ".join(sorted(f"{name} {revision[:12]}" for name, revision, _ in models))
        raise UsageError(f"a report is on one model; these are several: {names}. Give the runs of one.")
    parts = [part for one, name in zip(submissions, _names(submissions), strict=True) for part in _parts(one, name)]
    loader = jinja2.FileSystemLoader(TEMPLATES)
    pages = jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    style = (TEMPLATES / "site.css").read_text(encoding="utf-8")
    return pages.get_template("report.html").render(style=style, **visible(_page(submissions, parts)))


def _page(submissions: Sequence[Submission], parts: Sequence[Part]) -> dict[str, Any]:
    model = submissions[0].manifest.model
    return {
        "model": model.name,
        "facts": _facts(submissions),
        "results": _results(parts),
        "map": _map([each for each in submissions if _has_map(each)]),
        "dimensions": _dimensions(parts),
        "opinions": [found for part in parts if (found := _opinions(part))],
        "subgroups": [
            found | {"title": part.title, "name": part.name}
            for part in parts
            if (found := subgroup_tables(part.submission, part.asked))
        ],
        "cost": [_cost(each, name) for each, name in zip(submissions, _names(submissions), strict=True)],
        "robustness": [found for part in parts if (found := _robustness(part))],
        "limits": _limits(parts),
        "constructs": _constructs(parts),
        "commands": [command(each.manifest, each.cache.spec) for each in submissions],
    }


def _names(submissions: Sequence[Submission]) -> list[str]:
    """Name submissions by their aligner, with what tells those of one aligner apart."""
    manifests = [each.manifest for each in submissions]
    names = [manifest.aligner.name for manifest in manifests]
    for more in (
        _settings,
        lambda manifest: f"to {name_of(manifest.aligned_to)}",
        lambda manifest: f"seed {manifest.seed}",
    ):
        times = Counter(names)
        groups: dict[str, set[str]] = {}
        for name, manifest in zip(names, manifests, strict=True):
            groups.setdefault(name, set()).add(more(manifest))
        names = [
            f"{name}, {more(manifest)}" if times[name] > 1 and len(groups[name]) > 1 and more(manifest) else name
            for name, manifest in zip(names, manifests, strict=True)
        ]
    return names


def _settings(manifest: Manifest) -> str:
    return " ".join(f"{key}={value}" for key, value in sorted(manifest.aligner.settings.items()))[:80]


def _parts(submission: Submission, name: str) -> Iterator[Part]:
    for asked in submission.manifest.tasks:
        spec = submission.cache.spec(asked.name)
        scores = submission.score(task=asked.name)
        layout = layout_of(spec, asked.protocol(submission.manifest.seed))
        yield Part(name, submission, asked, spec, scores, baselines(spec, layout, asked.country, asked.options))


def _shown(value: float | None, metric: str) -> str:
    return "–" if value is None else f"{value:z,.{precision(metric)}f}"


def _interval(score: Score) -> str:
    if score.low is None or score.high is None:
        return ""
    return f"{_shown(score.low, score.metric)} to {_shown(score.high, score.metric)}"


def _results(parts: Sequence[Part]) -> list[dict[str, Any]]:
    """Return the headline of each board by run, beside the baselines."""
    groups: dict[Key, list[Part]] = {}
    for part in parts:
        groups.setdefault(part.key, []).append(part)
    made = []
    for group in groups.values():
        place = headline_of(group[0].spec)
        nulls, floor = _nulls(group[0])
        rows = [
            {
                "name": part.name,
                "value": _shown(part.headline.value if part.headline else None, place.metric),
                "interval": _interval(part.headline) if part.headline else "",
                "note": (part.headline.note or "") if part.headline else "answers that cannot be read",
                "verdict": _verdict(part),
            }
            for part in group
        ]
        made.append(
            {
                "title": group[0].title,
                "survey": group[0].spec.metadata.measure in SURVEYS,
                "metric": label(place.metric),
                "meaning": meaning(place.metric),
                "scoring": place.scoring,
                "rows": rows,
                "nulls": [(name, _shown(value, place.metric)) for name, value in nulls.items()],
                "floor": None if floor is None else _shown(floor, place.metric),
            }
        )
    return made


def _nulls(part: Part) -> tuple[dict[str, float], float | None]:
    """Return the headline of each baseline by name, and the split-half distance between respondents."""
    place = headline_of(part.spec).place
    found = {each.name: score.value for each in part.baselines if (score := find(each.scores, place))}
    return found, found.pop("split-half", None)


def _verdict(part: Part) -> Verdict | None:
    """Return whether the headline is better than every baseline; None where that is not known.

    By its interval, or else by the point estimate only.
    """
    score, nulls = part.headline, list(_nulls(part)[0].values())
    if score is None or score.higher_is_better is None or not nulls:
        return None
    sign = 1 if score.higher_is_better else -1
    least = max(sign * null for null in nulls)
    if sign * score.value <= least:
        return "no"
    worst = score.low if score.higher_is_better else score.high
    return "yes" if worst is not None and sign * worst > least else "point"


def _has_map(submission: Submission) -> bool:
    return any(submission.cache.spec(asked.name).metadata.measure == MAP for asked in submission.manifest.tasks)


def _map(submissions: Sequence[Submission]) -> dict[str, Any] | None:
    """Draw the cultural map of the submissions that answered it, as an image that the page holds."""
    if not submissions:
        return None
    found = cultural_map(*submissions)
    with TemporaryDirectory() as folder:
        found.write(path := Path(folder) / "map.svg")
        data = base64.b64encode(path.read_bytes()).decode("ascii")
    points = [(each.name, each.zone, [name_of(code) for code in list(each.distances)[:3]]) for each in found.points]
    return {"image": f"data:image/svg+xml;base64,{data}", "points": points}


def _dimensions(parts: Sequence[Part]) -> list[dict[str, Any]]:
    """Return the six indices of each run that has them, on one scale for each board."""
    groups: dict[Key, list[tuple[Part, Mapping[str, tuple[float, float]]]]] = {}
    for part in parts:
        rows = [score for score in part.scores if score.country == part.asked.country]
        if found := dimensions(rows, pictured(rows), "heldout"):
            groups.setdefault(part.key, []).append((part, found))
    return [_panel(runs[0][0].title, [(part.name, found) for part, found in runs]) for runs in groups.values()]


def _panel(title: str, runs: Sequence[tuple[str, Mapping[str, tuple[float, float]]]]) -> dict[str, Any]:
    numbers = [number for _, found in runs for pair in found.values() for number in pair]
    low, high = min(0.0, *numbers), max(100.0, *numbers)

    def place(value: float) -> float:
        return round(100 * (value - low) / (high - low), 2)

    rows = []
    for name, (_, target) in runs[0][1].items():
        marks = [(place(found[name][0]), f"{found[name][0]:.0f}", run) for run, found in runs]
        rows.append({"name": label(name), "target": place(target), "published": f"{target:.0f}", "marks": marks})
    ends = [(place(value), f"{value:.0f}") for value in sorted({low, 0.0, 50.0, 100.0, high}) if low <= value <= high]
    return {"title": title, "rows": rows, "runs": [name for name, _ in runs], "ends": ends}


def _opinions(part: Part) -> dict[str, Any] | None:
    """Return the items whose answers are nearest to and farthest from the people's, by total variation."""
    shares = item_answers(part.spec, part.submission.answers[part.asked.name])["shares"].get("heldout", {})
    rows = []
    for item in items(part.spec, part.asked, part.submission.cache):
        people, model = item.get("people"), shares.get(item["id"])
        if people is None or model is None:
            continue
        merged = [0.0] * len(model)
        for at, share in zip(item.get("as", range(len(model))), model, strict=True):
            merged[at] += share
        far = sum(abs(a - b) for a, b in zip(merged, people, strict=True)) / 2
        options = [
            (name, place, a, b) for place, (name, a, b) in enumerate(zip(item["options"], merged, people, strict=True))
        ]
        step = 8 / max(1, len(options) - 1)
        bars = [(f"o{round(place * step)}", name, f"{100 * a:.4g}", f"{100 * b:.4g}") for name, place, a, b in options]
        rows.append({"text": item["text"], "far": far, "shown": f"{far:.2f}", "bars": bars})
    if len(rows) < 2:
        return None
    rows.sort(key=lambda row: row["far"])
    most = min(MOST_ITEMS, len(rows) // 2)
    groups = [("Agree most", rows[:most]), ("Agree least", rows[-most:][::-1])]
    return {
        "title": part.title,
        "name": part.name,
        "country": name_of(part.asked.country),
        "groups": groups,
        "n": len(rows),
    }


def _cost(submission: Submission, name: str) -> dict[str, Any]:
    budget = submission.manifest.budget
    return {
        "name": name,
        "fitted": submission.manifest.fitted_to,
        "evaluations": f"{budget.survey_evaluations:,.0f}",
        "forwards": f"{budget.item_forwards:,}",
        "tokens": f"{budget.tokens:,}",
        "seconds": f"{budget.seconds:,.0f}",
    }


def _robustness(part: Part) -> dict[str, Any] | None:
    """Return how far the held-out headline moves with paraphrase, order and split, and what is off the options."""
    place, score = headline_of(part.spec), part.headline
    if score is None:
        return None
    held = {s.metric: s for s in part.scores if (s.scoring, s.split) == (place.scoring, "heldout")}
    fit = find(part.scores, (place.metric, place.scoring, "fit"))
    cells = [
        _shown(held[name].value if name in held else None, place.metric)
        for name in (place.metric + end for end in ROBUSTNESS)
    ]
    outside = next((held[name] for name in SHARES_OUTSIDE if name in held), None)
    return {
        "title": part.title,
        "name": part.name,
        "value": _shown(score.value, place.metric),
        "fit": _shown(fit.value if fit else None, place.metric),
        "cells": cells,
        "outside": "–" if outside is None else f"{outside.value:.0%}",
    }


def _limits(parts: Sequence[Part]) -> list[tuple[str, str]]:
    """Return what cannot be concluded, each with the tasks and runs that it is said of."""
    said: dict[str, dict[str, list[str]]] = {}
    for part in parts:
        for limit in _limits_of(part):
            said.setdefault(limit, {}).setdefault(part.title, []).append(part.name)
    runs = len({part.name for part in parts})
    return [(limit, "; ".join(_where(title, names, runs) for title, names in of.items())) for limit, of in said.items()]


def _where(title: str, names: Sequence[str], runs: int) -> str:
    return title if len(set(names)) == runs else f"{title} ({', '.join(names)})"


def _limits_of(part: Part) -> Iterator[str]:
    score, verdict = part.headline, _verdict(part)
    if score is None:
        yield "No value: items have no answer that could be read."
        return
    if score.note == COLLAPSED:
        yield "Collapsed: the answers are nearly equal for every question and carry no information on the country."
    if verdict == "no":
        yield "Not better than answers without knowledge of the country: no alignment can be concluded."
    if verdict == "point":
        yield "Better than every baseline by the point estimate only: it may be chance."
    if score.low is None:
        yield "No valid interval of the headline: differences between runs may be chance."
    held = {s.metric: s.value for s in part.scores if (s.scoring, s.split) == (score.scoring, "heldout")}
    if max(held.get(score.metric + end, 0.0) for end in ROBUSTNESS) > abs(score.value) / 2:
        yield "Paraphrase or option order alone moves the headline by more than half of its value."
    measure = measure_of(part.spec, part.asked.country, part.asked.options)
    if measure.caution:
        yield f"Caution: {measure.caution}."
    if part.asked.heldout_only or part.asked.limit:
        yield "Only a part of the protocol was asked."


def _constructs(parts: Sequence[Part]) -> list[tuple[str, str]]:
    return list(dict.fromkeys((part.spec.name, part.spec.metadata.construct_text) for part in parts))


def _facts(submissions: Sequence[Submission]) -> list[tuple[str, str]]:
    manifests = [each.manifest for each in submissions]
    model = manifests[0].model
    versions = {name: version for manifest in manifests for name, version in manifest.versions.items()}
    seeds = sorted({manifest.seed for manifest in manifests})
    return [
        ("Model", model.name),
        ("Revision", model.revision),
        ("Computed in", f"{', '.join(sorted({m.model.dtype for m in manifests}))} on {model.device}"),
        ("Adapter", model.adapter_sha256 or "none"),
        ("Chat template", model.chat_template or "none"),
        ("Seeds", ", ".join(map(str, seeds))),
        ("Submissions", str(len(manifests))),
        ("Versions", ", ".join(f"{name} {version}" for name, version in sorted(versions.items()))),
    ]


@click.command(name="report")
@click.argument("runs", nargs=-1, required=True, type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), required=True, help="The page, .html.")
def report_command(runs: tuple[Path, ...], out: Path) -> None:
    """Report on one model: a single page of its runs that loads nothing, for a model card."""
    if out.suffix != ".html":
        raise UsageError(f"--out {out}: a page; give a name that ends in .html.")
    write_text(out, report(runs))
    click.echo(f"open       {out}")
