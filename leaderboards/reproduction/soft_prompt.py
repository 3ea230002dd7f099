"""The reproduction of Masoud et al. (2025): which runs belong to which table, their time, and what differs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from ...harness.cli.options import load, terminal
from ...harness.cli.sweep import carry_out
from ...harness.registry import spec_of
from ...harness.runs.config import RunConfig, budget_of
from ...harness.runs.cross_validation import RESULTS, compare_lengths, folder_name, read_folds
from ...harness.runs.measure import measure, measured
from ...harness.runs.plan import RunRequest, plan
from ...harness.sweeps.grid import Cell, Grid, cells, read_grid
from ...harness.sweeps.scheduler import executor_of, look
from ...tasks.countries import country as resolve
from ...tasks.measure import countries_of
from ...tasks.prompts import ProtocolOptions, split_items
from . import soft_prompt_tables as tables
from .open_questions import question_tables
from .results import Table, read_results

PARTS: dict[str, Callable[[RunConfig], bool] | None] = {  # table -> its runs; None: a cross-validation
    "pairs": tables.is_pairs,
    "survey": tables.is_survey,
    "follow-up": tables.is_follow_up,
    "lengths": None,
    "questions": tables.is_questions,
}
LENGTHS, FOLDS, LENGTHS_BUDGET = tuple(range(10, 101, 10)), 5, 30
SURVEY_ANSWERS = 48  # of a measured survey: 24 items in two paraphrases


@dataclass(frozen=True)
class Work:
    """What a reproduction does: tables, countries by code, the grid of its runs, flags of the command."""

    parts: tuple[str, ...]
    codes: tuple[str, ...]
    grid: Grid
    out: Path
    flags: dict[str, Any]

    @cached_property
    def cells(self) -> list[Cell]:
        """Return the runs of the tables, finished ones marked."""
        tests = [test for name in self.parts if (test := PARTS[name])]
        chosen = [cell for cell in cells(self.grid, tables.SWEEP) if any(test(cell.config) for test in tests)]
        for cell in chosen:
            look(cell, self.out)
        return chosen

    @cached_property
    def lengths(self) -> RunConfig | None:
        """Return the configuration of the cross-validation, without its lengths; None if it is not asked for."""
        if "lengths" not in self.parts:
            return None
        request = {"model": self.grid.models[0], "aligner": "gd", "tasks": tables.SYNTHETIC, "country": self.codes[0]}
        return plan(RunRequest.of(**request, **self.grid.options, budget=self.flags["budget"] or LENGTHS_BUDGET))

    @property
    def lengths_folder(self) -> Path:
        """Return the folder of the cross-validation."""
        assert self.lengths is not None, "asked for"
        return self.out / folder_name(self.lengths, FOLDS)

    @property
    def item_forwards(self) -> int:
        """Return the item forwards of what is not finished."""
        left = sum(cell.item_forwards for cell in self.cells if cell.state == "waiting")
        if self.lengths:
            done = sum(fold.tokens in LENGTHS for fold in read_folds(self.lengths_folder / RESULTS))
            whole = budget_of(self.lengths).total * (FOLDS - 1) // FOLDS
            left += whole * (len(LENGTHS) * FOLDS - done)
        return left

    def estimate(self, as_json: bool) -> str:
        """Estimate the time that is left; a model that was never measured on this machine is measured first."""
        model, device = self.grid.models[0], self.grid.options["device"]
        if not self.item_forwards:
            return "all is finished"
        if device != "cpu":
            return f"{self.item_forwards:,} item forwards; time left is shown after the first run"
        if (here := measured().get(model)) is None:
            with terminal(as_json, self.flags["talk"]) as display:
                display.say(f"measuring {model}: it answers a survey twice")
            here = measure(model)
        minutes = self.item_forwards * here.seconds / SURVEY_ANSWERS / 60
        return f"about {minutes:.0f} min ({self.item_forwards:,} item forwards, {here.seconds:.1f} s a survey)"

    def run(self, as_json: bool) -> None:
        """Run what is not finished."""
        if self.cells:
            executor = executor_of("local", self.cells, self.grid.resources, self.flags["workers"], "local")
            carry_out(self.cells, self.out.absolute(), executor, as_json, self.flags | {"retries": 1})
        if self.lengths:
            with terminal(as_json, self.flags["talk"]) as display:
                config = self.lengths
                compare_lengths(
                    config, LENGTHS, FOLDS, self.lengths_folder, cache(lambda: load(config, display.say)), display
                )

    @property
    def seconds(self) -> dict[str, float]:
        """Return the seconds of the runs behind each table, of all calls; tables share runs."""
        found = {}
        for part in self.parts:
            test = PARTS[part]
            if test:
                spent = [round(cell.seconds, 1) for cell in self.cells if test(cell.config)]  # as `sweep.json` has them
            else:
                spent = [fold.seconds for fold in read_folds(self.lengths_folder / RESULTS)]
            found[part] = round(sum(spent), 1)
        return found

    def tables(self) -> list[Table]:
        """Make the tables of what is finished."""
        results = read_results(self.cells, self.out)
        found: list[Table] = []
        for part in self.parts:
            test = PARTS[part]
            own = results.where(test) if test else results
            if part == "pairs":
                found.append(tables.pairs_table(own))
            elif part == "survey":
                found += tables.survey_tables(own, self.codes)
            elif part == "follow-up":
                found.append(tables.follow_up_table(own, self.codes))
            elif part == "questions":
                found += question_tables(own, self.codes)
            elif self.lengths:
                folder = self.lengths_folder
                figures = [f"{folder.name}/{name}.svg" for name in ("loss", "argmax")]
                folds = [fold for fold in read_folds(folder / RESULTS) if fold.tokens in (0, *LENGTHS)]
                found.append(tables.lengths_table(folds, self.lengths.fit_country, figures))
        return found


def adapted_grid(countries: Sequence[str], flags: dict[str, Any]) -> tuple[Grid, tuple[str, ...]]:
    """Return the sweep for the model, countries, budget and seeds of the command, and the codes of the countries."""
    shipped = read_grid(tables.SWEEP)
    known = countries_of(spec_of(tables.SURVEY), None)
    codes = tuple(dict.fromkeys(resolve(name, known).code for name in countries or map(str, shipped.countries)))
    arms = shipped.aligners
    if flags["budget"] is not None:
        arms = tuple(arm.model_copy(update={"budget": flags["budget"]}) for arm in arms)
    changes = {
        "models": (flags["model"],),
        "countries": codes,
        "seeds": tuple(range(flags["seeds"])),
        "options": shipped.options | {name: flags[name] for name in ("dtype", "device", "threads")},
        "aligners": arms,
    }
    return shipped.model_copy(update=changes), codes


def differences(work: Work) -> list[str]:
    """Name what differs from the paper."""
    fit, heldout = (len(split_items(spec_of("cdeval_idv"), name, ProtocolOptions())) for name in ("fit", "heldout"))
    model, seeds = Path(work.grid.models[0]).name, len(work.grid.seeds)
    over = f"Means over {seeds} seeds" if seeds > 1 else "One seed"
    return [
        f"Model: {model}; the paper's is Llama-3-8B-Instruct.",
        "Wording: instruction, survey and synthetic survey are our own paraphrases; the paper's are not published.",
        f"Pairs: {fit} of `cdeval_core` a dimension to learn from and {heldout} held out; the paper's are about 500 a "
        "dimension, made with CDEval.",
        "Answers are read from the probabilities of the options, open questions as greedy text.",
        "DE: ours, in a random subspace, with the budgets of the sweep file or of --budget; the paper names neither "
        "hyper-parameters nor budgets.",
        "Loss: a sum of squares, which the paper's figures must be by their size; it does not name the norm.",
        "Held-out wordings, constants `world` and expected answers are not in the paper.",
        f"{over}; the paper gives one figure for a method and names no country.",
    ]
