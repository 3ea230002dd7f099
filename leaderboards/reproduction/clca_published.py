"""The table of CLCA's metrics in the paper's form: before and after, with published figures."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from ..literature import reported_for
from .clca_metrics import GENERAL, TASK
from .clca_study import CLEAR, CONTROL, NAIVE, PUBLISHED, WHOLE
from .results import Table, Value

METRICS = {  # metric -> heading, words of its published figure
    "kl_clca": ("KL as released", "KL as released"),
    "kl": ("KL", None),
    "js": ("JS", "Jensen-Shannon"),
    "accuracy": ("accuracy", "exact match"),
    GENERAL: ("general", None),
}
METHODS = {
    NAIVE: "no training",
    PUBLISHED: "CLCA, LoRA as published",
    WHOLE: "CLCA, LoRA that learns",
    CONTROL: CONTROL,
}
IN_THE_PAPER = {NAIVE: "no training", PUBLISHED: "CLCA"}  # the names of its rows
MODELS = ("Qwen2.5-0.5B", "Llama-3.1-8B")  # those with published figures


def metrics_table(rows: Sequence[Mapping[str, Any]], countries: Sequence[str]) -> Table:
    """Make the table of metrics by method and country, with their means and the published figures."""
    found = {(row["arm"], row["country"]): row for row in rows}
    lines: list[dict[str, Value]] = []
    for metric, (heading, words) in METRICS.items():
        for arm, method in METHODS.items():
            own = [found[arm, code]["metrics"][metric] if (arm, code) in found else None for code in countries]
            known = [value for value in own if value is not None]
            line: dict[str, Value] = {"metric": heading, "method": method} | dict(zip(countries, own, strict=True))
            line["mean"] = statistics.fmean(known) if len(known) == len(countries) else None
            line |= {f"{model}, published": _published(words, model, arm) for model in MODELS}
            lines.append(line)
    notes = [
        "44 items of the World Values Survey by personas, greedy answers; KL and JS: lower is better. `KL as "
        "released`: that of the paper's code, where a perfect answer is not 0. Published: means over CN, DE, GB, MX, "
        "JP; mathematics or wiki text of the same size moved KL by 0.01 to 0.02 there.",
        *(_clear_note(found, countries, metrics) for metrics in (("kl", "js"), ("kl_probs", "js_probs"))),
    ]
    return Table("metrics", "Metrics before and after", list(lines[0]), lines, form=".4f", notes=notes)


def _published(words: str | None, model: str, arm: str) -> float | None:
    """Return a published figure; None where there is none."""
    rows = [row for row in reported_for(TASK) if words and words in row.metric and row.model == model]
    return rows[0].figures.get(IN_THE_PAPER.get(arm, "")) if rows else None


def _clear_note(
    found: Mapping[tuple[str, str], Mapping[str, Any]], countries: Sequence[str], metrics: Sequence[str]
) -> str:
    """Name the countries where the whole beats the control by two standard errors in one of two distances."""
    known = [code for code in countries if (WHOLE, code) in found]
    best = []
    for code in known:
        changes = {each["metric"]: each for each in found[WHOLE, code]["from_control"]}
        own = [changes[metric] for metric in metrics if metric in changes]
        if any(each["standard_error"] and -each["difference"] >= CLEAR * each["standard_error"] for each in own):
            best.append(code)
    return (
        f"Two standard errors or more below the unrelated text in {' or '.join(metrics)}: {', '.join(best) or 'none'}; "
        f"{len(best)} of {len(known)}."
    )
