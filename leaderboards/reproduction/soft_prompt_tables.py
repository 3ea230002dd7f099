"""The tables of Masoud et al. (2025, arXiv 2503.16094), with the published figures beside ours."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from ...harness.runs.config import RunConfig
from ...harness.runs.cross_validation import Fold
from ...tasks.countries import name_of
from ..literature import reported_for
from .results import Results, Table, Value

SWEEP = Path(__file__).with_name("soft-prompt.yaml")
PAIRS = {"cdeval_idv": "individualism", "cdeval_ivr": "indulgence"}
"""Tasks of Table 1(a) and the trained pole, the high one of both dimensions in the country of the sweep."""
SURVEY, KNOWLEDGE, PROBES, SYNTHETIC = "vsm13", "culture_core", "probes", "synthetic_survey"
ARMS = {"naive": "baseline", "icl": "baseline + instruction", "gd": "GD", "de": "DE"}
SURVEY_ARMS = ARMS | {"gd": "GD on the synthetic survey"}
FOLLOW_UP = {"naive": "naive", "icl": "ICL", "de": "DE"}
PUBLISHED = {  # the names of `reported.yaml`
    "naive": "no prompt",
    "icl": "instruction",
    "gd": "gradient descent on a synthetic survey",
    "de": "Differential Evolution",
}
PUBLISHED_ORDER = ("de", "gd", "naive", "icl")
COIN = 0.693  # natural logarithm of 2


def is_pairs(config: RunConfig) -> bool:
    """Return whether a run belongs to Table 1(a)."""
    return config.tasks[0] in PAIRS


def is_survey(config: RunConfig) -> bool:
    """Return whether a run belongs to Table 1(b)."""
    return config.tasks[0] == SURVEY


def is_follow_up(config: RunConfig) -> bool:
    """Return whether a run belongs to the follow-up's table: constants ``zero``, fitted to the survey itself."""
    return is_survey(config) and config.options.constants == "zero" and config.fit == (SURVEY,)


def is_questions(config: RunConfig) -> bool:
    """Return whether a run answers the open questions before or after."""
    return is_follow_up(config) and config.aligner in ("naive", "de")


def pairs_table(results: Results) -> Table:
    """Make Table 1(a): losses on held-out preference pairs of both dimensions, by method and trained dimension."""
    rows: list[dict[str, Value]] = []
    for aligner, method in ARMS.items():
        for fit in (None,) if aligner in ("naive", "icl") else PAIRS:
            of_arm = results.of(aligner=aligner, **({"fit": (fit,)} if fit else {}))
            row: dict[str, Value] = {"method": method, "trained on": PAIRS[fit] if fit else "-"}
            for task, pole in PAIRS.items():
                high = f"loss_high_{task.removeprefix('cdeval_')}"
                row[pole] = of_arm.mean(task, (high, "expected", "heldout"))
                row[f"{pole}, published"] = _published_pairs(task, aligner, fit)
            for task, pole in PAIRS.items():
                row[f"{pole}, of two"] = of_arm.mean(task, ("loss", "expected", "heldout"))
                row[f"{pole}, accuracy"] = of_arm.mean(task, ("pole_accuracy", "argmax", "heldout"))
            rows.append(row)
    notes = [
        "Cross-entropy of the trained pole on held-out pairs; as published, probability off the two options counts "
        f"(`of two`: it does not; a coin has {COIN}). Accuracy by the more probable option. The published figures "
        "are one a dimension: read as gradient descent, trained and tested on the same dimension.",
        *(_lower_note(rows, pole, suffix) for pole in PAIRS.values() for suffix in ("", ", of two")),
    ]
    return Table("pairs", "Table 1(a): preference pairs", list(rows[0]), rows, notes=notes)


def _published_pairs(task: str, aligner: str, fit: str | None) -> float | None:
    figures = reported_for(task)[0].figures
    if aligner == "naive":
        return figures["no prompt"]
    return figures["soft prompt trained on the pairs"] if (aligner, fit) == ("gd", task) else None


def _lower_note(rows: Sequence[dict[str, Value]], pole: str, suffix: str) -> str:
    """Say which prompts trained on a pole lower its loss, as published."""
    column = pole + suffix
    bare = rows[0][column]
    trained = {str(row["method"]): row[column] for row in rows if row["trained on"] == pole}
    lower = [name for name, value in trained.items() if _below(value, bare)]
    return f"{column}: trained on it, below the baseline (published: GD): {', '.join(lower) or 'none'}."


def _below(value: Value, other: Value) -> bool:
    return isinstance(value, int | float) and isinstance(other, int | float) and value < other


def survey_tables(results: Results, countries: Sequence[str]) -> list[Table]:
    """Make Table 1(b): squared losses on the survey, by constants and answer scoring; the first is the paper's."""
    tables = []
    for constants in ("zero", "world"):
        own = Results(tuple(run for run in results.runs if run.config.options.constants == constants))
        tables += [_survey_table(own, countries, constants, scoring) for scoring in ("argmax", "expected")]
    return tables


def _survey_table(results: Results, countries: Sequence[str], constants: str, scoring: str) -> Table:
    figures = reported_for(SURVEY)[0].figures
    as_published = (constants, scoring) == ("zero", "argmax")
    rows: list[dict[str, Value]] = []
    for aligner, method in SURVEY_ARMS.items():
        row: dict[str, Value] = {"method": method}
        if as_published:
            row["published"] = figures[PUBLISHED[aligner]]
        collapsed = []
        for code in countries:
            own = results.of(aligner=aligner, country=code)
            for split, heading in (("fit", code), ("heldout", f"{code} held out")):
                row[heading] = own.mean(SURVEY, ("loss", scoring, split))
            if own.mean(SURVEY, ("collapsed", scoring, "fit")):
                collapsed.append(code)
        rows.append(row | {"one answer": ", ".join(collapsed) or "-"})
    notes = [_best_note(rows, countries, ""), _best_note(rows, countries, " held out")]
    if as_published:
        order = " < ".join(ARMS[name] for name in PUBLISHED_ORDER)
        notes += [f"Order as published: {order}. Here, fitted: {'; '.join(_orders(rows, countries))}."]
    notes += ["One answer: countries with nearly the same answer to all 24 questions; such a loss shows nothing."]
    title = f"Table 1(b): survey, constants {constants}, {scoring} answers" + (" (as published)" * as_published)
    return Table(f"survey {constants} {scoring}", title, list(rows[0]), rows, form=",.0f", notes=notes)


def _best_note(rows: Sequence[dict[str, Value]], countries: Sequence[str], suffix: str) -> str:
    """Say in which countries DE has the lowest loss."""
    *others, de = rows
    known = [code for code in countries if all(row[code + suffix] is not None for row in rows)]
    best = [code for code in known if all(_below(de[code + suffix], row[code + suffix]) for row in others)]
    what = "held out" if suffix else "fitted"
    return f"DE below baseline, instruction and GD, {what}: {', '.join(best) or 'none'}; {len(best)} of {len(known)}."


def _orders(rows: Sequence[dict[str, Value]], countries: Sequence[str]) -> Iterable[str]:
    for code in countries:
        known = [(row[code], name) for row, name in zip(rows, ARMS.values(), strict=True) if row[code] is not None]
        if known:
            yield f"{code} {' < '.join(name for _, name in sorted(known))}"


def follow_up_table(results: Results, countries: Sequence[str]) -> Table:
    """Make the follow-up's table: squared loss on the survey and accuracy on cultural knowledge, by country."""
    rows: list[dict[str, Value]] = []
    for aligner, method in FOLLOW_UP.items():
        row: dict[str, Value] = {"method": method}
        for code in countries:
            own = results.of(aligner=aligner, country=code)
            row[f"{code} loss"] = _whole(own.mean(SURVEY, ("loss", "argmax", "fit")))
            row[f"{code} accuracy"] = own.mean(
                KNOWLEDGE, (f"accuracy_{code}", "argmax", "heldout")
            )  # `accuracy` of a country without questions is that of all
        rows.append(row)
    naive, _, de = rows
    lower = _where(countries, lambda code: _below(de[f"{code} loss"], naive[f"{code} loss"]))
    fewer = _where(countries, lambda code: _below(de[f"{code} accuracy"], naive[f"{code} accuracy"]))
    more = _where(countries, lambda code: _below(naive[f"{code} accuracy"], de[f"{code} accuracy"]))
    notes = [
        "Published: DE lowers the loss in all four countries; accuracy (CulturalBench there, `culture_core` here) does "
        "not follow, and falls in China and India. The figures are not in our sources.",
        f"DE below naive in loss: {lower}; in accuracy: {fewer}; above it in accuracy: {more}.",
    ]
    return Table("follow-up", "Follow-up: survey and cultural knowledge", list(rows[0]), rows, notes=notes)


def _whole(value: float | None) -> int | None:
    """Round a loss, which is shown beside accuracies."""
    return None if value is None else round(value)


def _where(countries: Iterable[str], test: Callable[[str], bool]) -> str:
    return ", ".join(filter(test, countries)) or "none"


def lengths_table(folds: Sequence[Fold], country: str, figures: Sequence[str]) -> Table:
    """Make the table of prompt lengths: means and standard deviations over folds on fitted and left-out items."""
    rows: list[dict[str, Value]] = []
    for tokens in sorted({fold.tokens for fold in folds}):
        own = [fold for fold in folds if fold.tokens == tokens]
        row: dict[str, Value] = {"tokens": str(tokens)}
        for heading, name in (("fitted", "train"), ("left out", "validation")):
            losses = [getattr(fold, f"{name}_loss") for fold in own]
            row[f"{heading} loss"], row[f"{heading} SD"] = statistics.fmean(losses), statistics.stdev(losses)
            row[f"{heading} errors"] = statistics.fmean(getattr(fold, f"{name}_argmax") for fold in own)
        rows.append(row)
    best = min((row for row in rows if row["tokens"] != "0"), key=lambda row: float(row["left out loss"] or 0))
    notes = [
        f"GD on the labels of `{SYNTHETIC}` for {name_of(country)}; cross-entropy and share of wrong labels on items "
        "that were fitted and on whole groups of paraphrases left out. 0 tokens: the bare model.",
        f"Lowest left-out loss: {best['tokens']} tokens, {best['left out loss']:.3f} (published: a balance near 60).",
    ]
    return Table("lengths", "Prompt length, 10 to 100 tokens", list(rows[0]), rows, notes=notes, figures=figures)
