"""Ablation of CLCA: the complete method against the same without a part, and against controls.

A country's dialogues are simulated once; later arms reuse all stages that are equal. The arm ``wrong country`` is the
adapter of another of the given countries, scored against this one, without additional cost.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ...errors import RunError
from ...harness.adapters.peft_files import lora_hash
from ...harness.util.atomic_io import write_json
from ...optimizers.clca.pipeline import Pipeline
from ...optimizers.clca.settings import CLCASettings
from ...optimizers.clca.training.train import LORA
from ...optimizers.lora.adapter import size_of
from .clca_metrics import WEIGHED, Country, Replies, ask, change, habits, take_over, values
from .clca_tables import COLLAPSED, JUDGED

if TYPE_CHECKING:
    from ...harness.models.local import LanguageModel


class Arm(NamedTuple):
    """A pipeline that differs from the complete one from the stage ``own`` on, by some settings."""

    name: str
    own: str
    changes: dict[str, Any]


NAIVE, WHOLE, CONTROL, WRONG, PUBLISHED = "naive", "whole", "unrelated text", "wrong country", "published LoRA"
CLEAR = 2  # standard errors of a significant difference
# A hundredth of a step of bfloat16. Adapters of 2e-6 differed by up to five standard errors (docs/results-clca.md).
FAINT = 4e-5
COMPARED = ("kl", "js", "accuracy", *WEIGHED)  # the tested metrics, beside general ability
# The most informative arms come first, so that a study that is stopped early is of use.
ARMS = (
    Arm(WHOLE, "scenarios", {}),
    Arm(CONTROL, "train", {"unrelated": True}),
    Arm(PUBLISHED, "train", {"rate": 1e-4, "alpha": 0.1}),
    Arm("dialogue only", "train", {"parts": ("dialogue",)}),
    Arm("intent only", "train", {"parts": ("intent",)}),
    Arm("no filter", "filter", {"checks": (), "judge": False}),
    Arm("embeddings too", "train", {"save_embeddings": True}),
)


@dataclass(frozen=True)
class Study:
    """Arms by country in a folder, with the same questions as the bare model.

    ``pipeline_of`` returns a country's pipeline in a folder, ``model_of`` the bare model; ``tell`` receives progress.
    ``arms`` begin with the whole and the control.
    """

    folder: Path
    countries: tuple[str, ...]
    pipeline_of: Callable[[str, Path], Pipeline]
    model_of: Callable[[], LanguageModel]
    personas: int
    seed: int
    tell: Callable[[str, int, int], None]
    arms: tuple[Arm, ...] = ARMS

    def run(self) -> Iterator[list[dict[str, Any]]]:
        """Run what is unfinished, and compare: one row per country and arm, of all arms so far, from the control on."""
        steps, done = 1 + len(self.countries) * len(self.arms), 1
        self.tell("ablation", 0, steps)
        naive = self._ask(self.folder / NAIVE, self.model_of)
        replies = {(code, NAIVE): naive for code in self.countries}
        asked: dict[bytes, Path] = {}
        rows: dict[tuple[str, str], dict[str, Any]] = {}
        for number, arm in enumerate(self.arms, start=1):
            for code in self.countries:
                self.tell("ablation", done, steps)
                replies[code, arm.name] = self._arm(code, arm, asked)
                done += 1
            if arm.name == WHOLE:
                continue
            names = [NAIVE, *(each.name for each in self.arms[:number]), *([WRONG] if len(self.countries) > 1 else [])]
            places = [(code, name) for code in self.countries for name in names]
            rows |= {place: self._row(*place, replies) for place in places if place not in rows}
            self.tell("ablation", done, steps)
            yield [rows[place] for place in places]

    def _arm(self, code: str, arm: Arm, asked: dict[bytes, Path]) -> Replies:
        """Return an arm's answers.

        ``asked`` are folders by adapter, so that arms with equal adapters are evaluated once.
        """
        folder, whole = self._folder(code, arm.name), self.whole(code)
        settings = CLCASettings.model_validate(whole.settings.model_dump() | arm.changes)
        pipeline = replace(whole, folder=folder, settings=settings)
        if arm.name != WHOLE:
            pipeline.share(whole, arm.own)
        pipeline.run()
        take_over(asked.setdefault(lora_hash(folder / LORA), folder), folder)
        return self._ask(folder, lambda: self.model_of().adapted(folder / LORA))

    def _folder(self, code: str, arm: str) -> Path:
        return self.folder / code / arm.replace(" ", "-")

    def _ask(self, folder: Path, model_of: Callable[[], LanguageModel]) -> Replies:
        def heard(done: int, total: int) -> None:
            self.tell(f"asking {folder.relative_to(self.folder)}", done, total)

        return ask(model_of, self.personas, self.seed, folder, heard)

    def _row(self, code: str, name: str, replies: Mapping[tuple[str, str], Replies]) -> dict[str, Any]:
        """Compute an arm's metrics in a country and its change from the control, for ``WHOLE`` also from ``naive``."""
        country, other = Country(code), self.countries[(self.countries.index(code) + 1) % len(self.countries)]
        trained = (other, WHOLE) if name == WRONG else (code, name)
        own, naive = replies[trained], replies[code, NAIVE]
        row: dict[str, Any] = {"country": code, "arm": name, "metrics": values(country, own) | habits(own, naive)}
        if name != NAIVE:
            row["adapter size"] = size_of(self._folder(*trained) / LORA)
        against = {"from_control": replies[code, CONTROL]} | ({"from_naive": naive} if name == WHOLE else {})
        for key, reference in against.items():
            if own is not reference:
                row[key] = change(country, reference, own, np.random.default_rng(self.seed), COMPARED)
        return row

    def whole(self, code: str) -> Pipeline:
        """Return a country's complete pipeline."""
        return self.pipeline_of(code, self._folder(code, WHOLE))


def missing(rows: list[dict[str, Any]], arms: Sequence[Arm] = ARMS) -> list[str]:
    """Return the arms without rows in a study."""
    return [arm.name for arm in arms if arm.name not in {row["arm"] for row in rows}]


def verdicts(rows: list[dict[str, Any]], code: str) -> list[str]:
    """Summarise a country's rows, one line each.

    The comparison with the control, and reasons why answers are uninformative.
    """
    own = [row for row in rows if row["country"] == code]
    metrics_of = {row["arm"]: row["metrics"] for row in own}
    lines = [verdict(rows, code, metric) for metric in JUDGED]
    if collapsed := [arm for arm, metrics in metrics_of.items() if metrics["modal_share"] >= COLLAPSED]:
        lines.append(f"{code}: collapsed, since nearly all answers are one number: {', '.join(collapsed)}.")
    if still := [arm for arm, metrics in metrics_of.items() if arm != NAIVE and not metrics["changed_answers"]]:
        lines.append(f"{code}: no answer differs from the bare model's: {', '.join(still)}.")
    if faint := [row["arm"] for row in own if max(row.get("adapter size", {"": 1.0}).values()) < FAINT]:
        lines.append(
            f"{code}: adapters of less than {FAINT:g} of the weights: in bfloat16 most of what distinguishes "
            f"them is rounding, which standard errors over personas do not show: {', '.join(faint)}."
        )
    return lines


def verdict(rows: list[dict[str, Any]], code: str, metric: str = "kl") -> str:
    """Return whether the complete method beats the control in a country, by two standard errors or more."""
    [whole] = [row for row in rows if (row["country"], row["arm"]) == (code, WHOLE)]
    [found] = [each for each in whole["from_control"] if each["metric"] == metric]
    size, error = found["difference"], found["standard_error"]
    if not error:
        return f"{code}: {metric}: the whole and the control answer alike."
    relation = "beats" if (size > 0) == bool(found["higher_is_better"]) else "is worse than"
    if abs(size) < CLEAR * error:
        relation = "does not differ significantly from"
    p = "" if found["p"] is None else f", p {found['p']:.3g}"
    return (
        f"{code}: {metric}: the whole {relation} the control: {size:+.4f}, {abs(size) / error:.1f} standard errors{p}."
    )


def require_same_study(path: Path, config: dict[str, Any]) -> None:
    """Raise RunError if this folder has a study with other settings.

    Countries may be added; the request rate and the prices of an endpoint do not matter.
    """
    url = (config["endpoint"] or {}).get("base_url")
    config = {name: value for name, value in config.items() if name not in ("country", "fit_country", "endpoint")}
    config["base_url"] = url
    before = json.loads(path.read_text(encoding="utf-8")) if path.exists() else config
    flat = [each | {f"setting {name}": value for name, value in each["settings"].items()} for each in (config, before)]
    if differing := [name for name in flat[0] if flat[0][name] != flat[1].get(name) and name != "settings"]:
        raise RunError(
            f"{path.parent}: a study with other settings is here ({', '.join(differing)} differ). Change --out."
        )
    write_json(path, config)
