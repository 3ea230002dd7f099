"""The glossary: every metric, mark, baseline and column with its label, definition, unit and direction.

One table feeds the legends and tooltips of tables and sites, and the page that
``python -m culteval.tasks.glossary > docs/glossary.md`` writes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from .metrics.reference import DIMENSIONS


@dataclass(frozen=True)
class Term:
    """A glossary entry: a label for headings, a definition, the unit or range, the better direction, the source."""

    label: str
    meaning: str
    unit: str = ""
    better: str = ""  # "higher", "lower", or neither
    source: str = ""


HOFSTEDE, OPINIONS = "Hofstede & Minkov 2013, VSM 2013", "Durmus et al. 2023, arXiv 2306.16388"
SHARE, POINTS = "0 to 1", "index points"

DIMENSION_LABELS = {
    "pdi": "Power distance",
    "idv": "Individualism",
    "mas": "Masculinity",
    "uai": "Uncertainty avoidance",
    "lto": "Long-term orientation",
    "ivr": "Indulgence",
}

METRICS: Mapping[str, Term] = {
    "distance": Term(
        "Cultural distance",
        "distance on the cultural map between the point of the mean answers and the country's published point",
        "map units",
        "lower",
        "Tao et al. 2024, PNAS Nexus 3(9)",
    ),
    "traditional_secular": Term(
        "Traditional to secular",
        "coordinate of the mean answers on the cultural map, positive towards secular-rational values",
        "map units",
        source="Inglehart & Welzel 2005",
    ),
    "survival_selfexpression": Term(
        "Survival to self-expression",
        "coordinate of the mean answers on the cultural map, positive towards self-expression values",
        "map units",
        source="Inglehart & Welzel 2005",
    ),
    "country_rank": Term(
        "Rank of the country",
        "place of the country among all countries of the map, the nearest first",
        "1 or more",
        "lower",
    ),
    "zone_hit": Term(
        "Zone hit", "1 where the cultural zone with the nearest mean point is the country's, else 0", "0 or 1", "higher"
    ),
    "projection_error": Term(
        "Projection error",
        "standard error of a coordinate from ten means, which grows with their distance from those of countries",
        "map units",
    ),
    "skill": Term(
        "Skill",
        "1 - loss / loss of the constant answer: 0 is as far off as the constant answer, 1 is perfect",
        "at most 1",
        "higher",
    ),
    "loss": Term(
        "Loss",
        "sum of squared errors of the six indices against the published ones; of probes and questions "
        "with right answers, mean -log probability of the country's answers",
        "squared index points, or nats",
        "lower",
        "Masoud et al. 2025, arXiv 2503.16094",
    ),
    "l2": Term("L2", "root of the sum of squared errors of the six indices", POINTS, "lower"),
    "l1": Term("L1", "sum of absolute errors of the six indices", POINTS, "lower"),
    "collapsed": Term("Collapsed", "1 where the answers to all items are nearly the same, else 0", "0 or 1", "lower"),
    "spread": Term("Spread of answers", "standard deviation of the item means over the items", "scale steps"),
    "distinct": Term("Distinct answers", "number of different rounded item means", "items"),
    "off_options": Term("Probability off the options", "probability on anything but an option", SHARE, "lower"),
    "unparsed": Term("Unparsed", "share of generated texts without an option", SHARE, "lower"),
    "w1": Term(
        "W1",
        "Wasserstein-1 distance between the model's and the country's answers, as a share of the scale, mean "
        "over items",
        SHARE,
        "lower",
    ),
    "js": Term(
        "JS",
        "Jensen-Shannon distance between the model's and the country's answers (natural logarithm), mean over items",
        "0 to 0.833",
        "lower",
        OPINIONS,
    ),
    "tv": Term("TV", "total variation between the model's and the country's answers, mean over items", SHARE, "lower"),
    "kl": Term(
        "KL", "smoothed Kullback-Leibler divergence from the country's answers, mean over items", "nats", "lower"
    ),
    "kl_clca": Term(
        "KL (CLCA)",
        "Kullback-Leibler divergence as the CLCA paper computes it, mean over items",
        "nats",
        "lower",
        "Liu, Korhonen & Gurevych 2025, arXiv 2504.02953",
    ),
    "similarity": Term(
        "Similarity",
        "1 - Jensen-Shannon distance (base 2) between the model's and the country's answers, mean over items",
        SHARE,
        "higher",
        OPINIONS,
    ),
    "representativeness": Term(
        "Representativeness",
        "1 - W1: nearness of the model's answers to the people's on a scale, mean over items",
        SHARE,
        "higher",
        "Santurkar et al. 2023, arXiv 2303.17548",
    ),
    "simbench": Term(
        "SimBench score",
        "100 (1 - total variation / that of equal shares in the same source), mean over questions: 0 is no better "
        "than equal shares",
        "at most 100",
        "higher",
        "Hu et al. 2025, arXiv 2510.17516",
    ),
    "items": Term("Items", "number of items with a valid answer; others count as equal shares", "items"),
    "accuracy": Term(
        "Accuracy",
        "share of right answers on the country's own questions, or on all where it has none",
        SHARE,
        "higher",
    ),
    "accuracy_all": Term("Accuracy, all", "share of right answers on the questions of all countries", SHARE, "higher"),
    "accuracy_majority": Term(
        "Majority hit", "share of items where the model's modal answer is the country's", SHARE, "higher"
    ),
    "accuracy_sampled": Term(
        "Sampled hit", "probability that a sampled answer equals that of a sampled respondent", SHARE, "higher"
    ),
    "pole_accuracy": Term(
        "Pole accuracy", "share of pairs answered towards the pole that the country leans to", SHARE, "higher"
    ),
    "agreement": Term("Agreement", "share of parsed texts whose option is the most probable one", SHARE, "higher"),
    "consistency": Term(
        "Consistency", "share of forced choices answered alike when the options change places", SHARE, "higher"
    ),
    "position_bias": Term(
        "Position bias", "how far the most favoured position of an option is from an equal share", SHARE, "lower"
    ),
    "refusal": Term("Refusals", "share of texts that decline to answer", SHARE, "lower"),
    "empty": Term("Empty", "share of generated texts without a character", SHARE, "lower"),
    "distinct_1": Term(
        "Distinct words",
        "different words by all words of the open answers",
        SHARE,
        "higher",
        "Li et al. 2016, distinct-1",
    ),
    "distinct_2": Term(
        "Distinct word pairs",
        "different pairs of words by all pairs of the open answers",
        SHARE,
        "higher",
        "Li et al. 2016, distinct-2",
    ),
    "identical": Term("Identical texts", "share of open answers that equal another one word for word", SHARE, "lower"),
    "repetition": Term(
        "Repetition",
        "share of three-word sequences that occurred before in the same open answer, mean over answers",
        SHARE,
        "lower",
    ),
    "judged_pole_accuracy": Term(
        "Judged pole accuracy",
        "share of leaning answers that a judge model finds on the country's pole",
        SHARE,
        "higher",
    ),
    "judged_neither": Term("Judged neither", "share of open answers that a judge model finds on neither pole", SHARE),
    "judged_unread": Term("Judge unread", "share of a judge model's replies without a verdict", SHARE, "lower"),
    "explained_variance": Term(
        "Between-country R2",
        "explained variance of the country-centred indices: 0 is no "
        "difference between countries, 1 is the published ones",
        "at most 1",
        "higher",
    ),
    "correlation": Term(
        "Correlation",
        "correlation of the country-centred indices, whatever the size of their differences",
        "-1 to 1",
        "higher",
    ),
}

SPLITS = {
    "heldout": "wordings or questions that no aligner was given, in both option orders; `loss` and `skill` of the "
    "indices in the natural one, beside `loss_reversed`",
    "fit": "what the aligner was given",
    "control": "prompts that show what a score means, such as options without the question",
}
SCORINGS = {
    "expected": "options weighted by their probabilities",
    "argmax": "the most probable option",
    "text": "the answer as generated and parsed",
    "cloze": "options by the likelihood of their texts per byte, without letters; knowledge tasks take the likeliest",
    "cloze_pmi": "log-likelihood of an option's text minus that after a content-free question",
    "verbalized": "shares of people that the model states for the options in text",
    "expected_calibrated": "probabilities divided by those of content-free questions",
    "argmax_calibrated": "the most probable option after dividing by the probabilities of content-free questions",
}
OBJECTIVES = {
    "task": "the task's own loss",
    "distribution": "mean Kullback-Leibler divergence from the people's answer distribution to the model's, over items",
    "worst_paraphrase": "the task's loss in the fitted paraphrase that is farthest off; of drawn answers for argmax",
}
MARKS = {
    "verified": "the board's maintainers regenerated a sample of the answers from model and adapter, and it matched "
    "within tolerance",
    "self-reported": "the answers are the submitter's; the scores were computed here from them",
    "improvement": "better than every baseline by its whole interval or its range over three or more seeds, else by "
    "point estimate, and than the random prefixes by two standard deviations; not collapsed",
    "no improvement": "one of the conditions of an improvement does not hold",
    "collapsed": "the answers are nearly equal for every question, so the score has no information about the country",
    "scores differ": "submitted scores differ from recomputed ones; the recomputed ones are shown",
}
BASELINES = {
    "constant": "the same answer to every question",
    "uniform": "equal probability on every option",
    "world mean": "the mean answer of the other countries of the reference",
    "majority": "the modal answer of the other countries to every question; of questions with right answers, "
    "the code that is right most often",
    "split-half": "one half of the country's own respondents against the other: a ceiling",
    "random prefix": "mean over unselected soft prompts of random tokens: the effect of any prefix",
}
COLUMNS = {
    "rank": Term(
        "Rank",
        "one more than the number of rows whose whole range is better; rows whose ranges overlap share "
        "it; in brackets it is a point estimate only",
    ),
    "name": Term("Submission", "aligner and seed; the folder's name leads to its page"),
    "aligner": Term("Aligner", "the method that aligned the model, or the name of a baseline"),
    "seed": Term("Seed", "the seed of the aligner's random numbers"),
    "model": Term("Model", "the model that answered, and its size if the name contains it"),
    "size": Term("Size", "number of parameters, if the model's name contains it"),
    "range": Term(
        "Range", "95 % interval, or (s) from the lowest to the highest seed: of three or more, in the overview of two"
    ),
    "noise": Term(
        "Noise",
        "the headline on one axis: bar, its 95 % interval; thin bar, the range over seeds; dotted line, "
        "the best baseline",
    ),
    "fitted": Term("Fitted to", "tasks and country that the aligner was given"),
    "evaluations": Term("Evaluations", "survey evaluations spent on fitting: item forwards by the items of the survey"),
    "seconds": Term("Seconds", "time of fitting, on the submitter's machine", "s"),
    "tokens": Term("Tokens", "tokens read in fitting"),
    "improvement": Term("Improvement", MARKS["improvement"]),
    "marks": Term("Marks", "verification, improvement and warnings of the row; each mark is explained below the table"),
    "countries": Term("Countries", "countries of a set of runs that differ in their country alone"),
}

_FAMILIES: tuple[tuple[str, str, str], ...] = (  # pattern of the rest of a name, label, meaning
    ("order_spread", "{label}: spread over option orders", "largest minus smallest {label} over the option orders"),
    ("paraphrase_spread", "{label}: spread over paraphrases", "largest minus smallest {label} over the paraphrases"),
    ("reversed", "{label}, reversed order", "the same with the options in the reversed order: {meaning}"),
    ("split_half", "{label}, split-half", "the same between two halves of the country's own respondents: {meaning}"),
    ("error", "{label}: error", "the model's index minus the published one"),
)
_LOW_HIGH = re.compile(rf"(loss_)?(high|low)_({'|'.join(DIMENSIONS)})")
_THEME = re.compile(r"(w1|js|tv|kl)_([a-z][a-z_]*)")
_COUNTRY = re.compile(r"accuracy_([A-Z]{2})")
_SOURCE = re.compile(r"simbench_([A-Za-z0-9_]+)")
_KIND = re.compile(r"accuracy_of_([a-z][a-z_]*)")


def term(metric: str) -> Term | None:
    """Find a metric's entry, put together where its name is that of a family; None where there is none."""
    if metric in METRICS:
        return METRICS[metric]
    if metric in DIMENSION_LABELS:
        label = DIMENSION_LABELS[metric]
        return Term(label, f"the index of {label.lower()} of the answers", POINTS, source=HOFSTEDE)
    for ending, label, meaning in _FAMILIES:
        if metric.endswith(f"_{ending}") and (base := term(metric.removesuffix(f"_{ending}"))):
            given = {"label": base.label, "meaning": base.meaning}
            better = "" if ending == "error" else "lower" if ending.endswith("spread") else base.better
            return replace(base, label=label.format(**given), meaning=meaning.format(**given), better=better)
    if found := _LOW_HIGH.fullmatch(metric):
        loss, pole, dimension = found.groups()
        what = f"{pole} pole of {DIMENSION_LABELS[dimension].lower()}"
        if loss:
            return Term(f"Loss: {what}", f"mean -log probability of the {what}", "nats", source=METRICS["loss"].source)
        return Term(f"Share of the {what}", f"share of pairs answered towards the {what}", SHARE)
    if found := _COUNTRY.fullmatch(metric):
        return replace(
            METRICS["accuracy"], label=f"Accuracy, {found[1]}", meaning=f"share of right answers on those of {found[1]}"
        )
    if found := _SOURCE.fullmatch(metric):
        base, source = METRICS["simbench"], found[1].replace("_", " ")
        return replace(base, label=f"{base.label}: {source}", meaning=f"{base.meaning}, of the questions from {source}")
    if found := _KIND.fullmatch(metric):
        kind = found[1].replace("_", " ")
        what = f"share of right answers on the questions of the kind {kind}"
        return replace(METRICS["accuracy"], label=f"Accuracy: {kind}", meaning=what)
    if found := _THEME.fullmatch(metric):
        base, theme = METRICS[found[1]], found[2].replace("_", " ")
        return replace(base, label=f"{base.label}: {theme}", meaning=f"{base.meaning}, of the theme {theme}")
    return None


def label(metric: str) -> str:
    """Return a metric's short name; for a metric that is not in the glossary, its name in words."""
    found = term(metric)
    return found.label if found else metric.replace("_", " ")


def meaning(metric: str) -> str:
    """Return a metric's definition in a sentence; for a metric that is not in the glossary, a reference to its task."""
    found = term(metric)
    return found.meaning if found else f"{metric}, as the task's own page defines it"


def _definitions(title: str, rows: Mapping[str, str]) -> list[str]:
    """Return the lines of a section."""
    lines = [f"| {name} | {text} |" for name, text in rows.items()]
    return [f"## {title}", "", "| name | definition |", "|---|---|", *lines, ""]


def markdown() -> str:
    """Render the glossary as a page."""
    from .spec import read_yaml

    parts = [
        "# Glossary",
        "",
        "Generated by `python -m culteval.tasks.glossary`; legends and tooltips use the same table.",
        "",
        *_definitions("Words", read_yaml(Path(__file__).with_name("words.yaml"))),
        "## Metrics",
        "",
        "| name | label | definition | unit or range | better | source |",
        "|---|---|---|---|---|---|",
    ]
    named = {**METRICS, **{name: found for name in DIMENSION_LABELS if (found := term(name))}}
    families = [f"loss_{ending}" for ending in ("reversed", "paraphrase_spread", "order_spread")]
    families += ["w1_split_half", "w1_family_gender", "pdi_error", "high_pdi", "loss_high_pdi", "accuracy_SA"]
    families += ["accuracy_of_west_java", "simbench_Afrobarometer"]
    named |= {name: found for name in families if (found := term(name))}
    for name, one in named.items():
        parts.append(f"| `{name}` | {one.label} | {one.meaning} | {one.unit} | {one.better} | {one.source} |")
    parts += ["", "Of each family one is listed: endings and dimensions, themes and countries combine as shown.", ""]
    listed = {"Splits": SPLITS, "Answer scoring": SCORINGS, "Objectives of a fit": OBJECTIVES}
    for title, rows in (listed | {"Marks": MARKS, "Baselines": BASELINES}).items():
        parts += _definitions(title, rows)
    parts += ["## Columns", "", "| column | definition |", "|---|---|"]
    parts += [f"| {one.label} | {one.meaning} |" for one in COLUMNS.values()]
    return "\n".join(parts)


if __name__ == "__main__":  # export: python -m culteval.tasks.glossary > docs/glossary.md
    print(markdown())
