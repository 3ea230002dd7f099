"""Build the overview of boards: group runs and baselines into rows, pool, compare and rank their cells."""

from __future__ import annotations

import json
import math
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from ..harness.analysis.between_countries import ALL, LEAST_COUNTRIES
from ..harness.report.map_figure import located
from ..harness.report.tables import headline_of
from ..harness.scoring.baselines import BAND, Baseline
from ..harness.scoring.score import TaskCache
from ..tasks.measure import indices_of
from ..tasks.score import place
from ..tasks.spec import TaskSpec
from .boards import Board, Standing, answered, key_of, settings_of
from .country_sets import aligned_sets
from .entries import Entry
from .metric_labels import board_metrics
from .overview import Overview
from .overview_rows import R2, Column, Configuration, Cost, Point, Row, Variant
from .pooling import Cell, SetValue, Value, compared, pooled, pooled_sets, ranked, usual_countries
from .render.tables import columns
from .row_names import differing, model_of

TRIVIAL = ("constant", "uniform", "world mean")  # baselines with a row in the table, before the controls
CONTROL_ROW = "random prefix"
UNALIGNED = "naive"
MAP = "cultural_map"
MOST_SCOPES = 8  # sets of countries to choose from, beside single countries

Located = tuple[tuple[float, float], tuple[float, float]]  # a point of the map and its standard errors


@dataclass
class _Runs:
    """The runs of one row: entries by name, values and standings by column; spreads of a baseline."""

    entries: dict[str, Entry] = field(default_factory=dict)
    values: dict[Variant, list[Value]] = field(default_factory=lambda: defaultdict(list))
    spreads: dict[Variant, list[float]] = field(default_factory=lambda: defaultdict(list))
    standings: dict[Variant, list[tuple[str, Standing]]] = field(default_factory=lambda: defaultdict(list))

    def by_seed(self) -> dict[int, _Runs]:
        """Return the runs of each seed, in order."""
        found: dict[int, _Runs] = defaultdict(_Runs)
        for name, entry in self.entries.items():
            found[entry.manifest.seed].entries[name] = entry
        for variant, values in self.values.items():
            for value in values:
                found[value.seed].values[variant].append(value)
        for variant, standings in self.standings.items():
            for country, standing in standings:
                found[standing.entry.manifest.seed].standings[variant].append((country, standing))
        return dict(sorted(found.items()))


def scopes(found: Sequence[Board]) -> list[tuple[str, ...]]:
    """Return the sets of countries on which rows can be compared: all, those of several rows, each country."""
    sets: dict[Configuration, set[str]] = defaultdict(set)
    for board in found:
        for standing in board.standings:
            sets[configuration_of(standing.entry, board)].add(board.key.country)
    everywhere = tuple(sorted({board.key.country for board in found}))
    counted = Counter(tuple(sorted(one)) for one in sets.values())
    several = [one for one, _ in counted.most_common(MOST_SCOPES) if 1 < len(one) < len(everywhere)]
    single = [(code,) for code in everywhere] if len(everywhere) > 1 else []
    return [everywhere, *sorted(several, key=lambda one: (-len(one), one)), *single]


def configuration_of(entry: Entry, board: Board) -> Configuration:
    """Return what the runs of an entry's row have in common.

    Runs that were fitted to other tasks, by another loss or for another country than the board's are another row; the
    unaligned model is fitted to no task.
    """
    manifest, fit = entry.manifest, {}
    if manifest.aligned_to != board.key.country:
        fit["country"] = manifest.aligned_to
    if fitted := manifest.fitted:
        fit |= {"scoring": fitted.scoring, "norm": fitted.norm, "objective": fitted.objective}
        if manifest.aligner.name != UNALIGNED:
            fit["tasks"] = " ".join(sorted(fitted.tasks))
    model = model_of(manifest)
    return Configuration(
        manifest.aligner.name,
        model.short,
        model.build,
        settings_of(entry),
        manifest.budget.item_forwards_allowed,
        json.dumps(fit, sort_keys=True),
    )


def overview(found: Sequence[Board], shelf: TaskCache, countries: Collection[str] | None = None) -> Overview:
    """Pool the headlines of boards over countries and seeds.

    Args:
        countries: pool and rank over these countries [default: for each column those of ``usual_countries``].
    """
    boards: dict[Variant, list[Board]] = defaultdict(list)
    for board in found:
        if countries is None or board.key.country in countries:
            boards[_variant(board)].append(board)
    return _Builder(boards, shelf, countries is not None).overview()


def is_over_all(table: Overview, found: Iterable[Board]) -> bool:
    """Return whether every column is over all countries of its boards."""
    countries: dict[Variant, set[str]] = defaultdict(set)
    for board in found:
        countries[_variant(board)].add(board.key.country)
    return all(set(column.countries) == countries[column.variant] for column in table.columns)


def _variant(board: Board) -> Variant:
    return Variant(board.key.task, *board.key[2:])


class _Builder:
    """One computation of an overview, from boards grouped by column."""

    def __init__(self, boards: Mapping[Variant, Sequence[Board]], shelf: TaskCache, fixed: bool) -> None:
        self.boards, self.shelf, self.fixed = boards, shelf, fixed
        self.runs: dict[Configuration, _Runs] = defaultdict(_Runs)
        self.baselines: dict[Configuration, _Runs] = defaultdict(_Runs)
        for variant, members in boards.items():
            for board in members:
                self._add(variant, board)

    def overview(self) -> Overview:
        """Return the table."""
        shown = self.columns
        cells = {who: self._cells(runs) for who, runs in self.runs.items()}
        cells = self._compared(cells)
        for at, column in enumerate(shown):
            placed = ranked({who: each[at] for who, each in cells.items()}, column.countries, column.higher_is_better)
            for who, cell in placed.items():
                cells[who][at] = cell
        controls = [who for who in self.baselines if who.aligner == CONTROL_ROW]
        names = _names([*self.runs, *controls])
        rows = [self._row(who, self.runs[who], names[who], cells[who], None) for who in self._ordered(cells)]
        rows += [self._baseline(who, (name, "")) for name in TRIVIAL if (who := Configuration(name)) in self.baselines]
        rows += [self._baseline(who, names[who]) for who in controls]
        countries = sorted({board.key.country for members in self.boards.values() for board in members})
        return Overview(tuple(shown), tuple(rows), tuple(countries))

    @cached_property
    def columns(self) -> list[Column]:
        """Return the between-country R2 of tasks with indices, then a column for each task."""
        made, titles = [], _titles(self.boards)
        for variant, members in self.boards.items():
            spec, metric = members[0].spec, columns(members[0])[0].metric
            every = tuple(sorted(board.key.country for board in members))
            usual = every if self.fixed else usual_countries(self._countries(variant))
            higher = metric == "skill" or spec.metadata.headline.higher_is_better
            cautions = dict.fromkeys(board.caution for board in members if board.caution)
            made.append(Column(variant, titles[variant], metric, higher, usual, tuple(cautions)))
        centred = [column for column in made if indices_of(self._spec(column.variant))]
        return [self._centred(one) for one in centred] + made

    def _centred(self, column: Column) -> Column:
        """Return the column of the between-country R2, over the usual countries of rows with enough of them."""
        enough = usual_countries(one for one in self._countries(column.variant) if len(one) >= LEAST_COUNTRIES)
        enough = column.countries if self.fixed else enough
        return Column(column.variant, column.title, R2, True, enough or column.countries)

    def _countries(self, variant: Variant) -> list[set[str]]:
        """Return the countries of each row in a column."""
        return [{value.country for value in runs.values[variant]} for runs in self.runs.values()]

    def _spec(self, variant: Variant) -> TaskSpec:
        return self.boards[variant][0].spec

    def _add(self, variant: Variant, board: Board) -> None:
        """Add the rows of a board."""
        column, country = columns(board)[0], board.key.country
        metrics = set(board_metrics(board.spec))
        for standing in board.standings:
            entry, runs = standing.entry, self.runs[configuration_of(standing.entry, board)]
            runs.entries[entry.name] = entry
            runs.standings[variant].append((country, standing))
            if (score := column.find(standing.row.scores)) is not None:
                who = country, entry.manifest.seed, answered(standing.row.scores, metrics)
                runs.values[variant].append(Value(*who, score, standing.row.improvement))
        for row in board.trivial:
            equal = row.note if row.note and row.note.startswith("also ") else ""  # on a board, equal rows are one
            for name in (name for name in TRIVIAL if row.name.startswith(name) or name in equal):
                self._add_baseline(Configuration(name), variant, board, row)
        for model, rows in board.controls.items():
            for row in rows:
                self._add_baseline(Configuration(CONTROL_ROW, model.short, model.build), variant, board, row)

    def _add_baseline(self, who: Configuration, variant: Variant, board: Board, row: Baseline) -> None:
        if (score := columns(board)[0].find(row.scores)) is not None:
            runs = self.baselines[who]
            runs.values[variant].append(Value(board.key.country, 0, "", score))
            runs.spreads[variant] += [row.spread[place(score)]] if row.spread else []

    def _cells(self, runs: _Runs) -> list[Cell]:
        """Return a row's cells: over the column's countries where it has them all, else over its own."""
        made = []
        for column in self.columns:
            if column.metric == R2:
                made.append(self._between(runs, column))
                continue
            if not runs.standings.get(column.variant):
                made.append(Cell(reason=f"no run answered {column.title}"))
                continue
            made.append(_complete(_over(column.countries, runs.values[column.variant]), column, runs))
        return made

    def _between(self, runs: _Runs, column: Column) -> Cell:
        """Return the mean between-country R2 of a row's aligned sets."""
        variant, spec = column.variant, self._spec(column.variant)
        known = {code for code, _ in runs.standings[variant]}
        wanted = column.countries if known >= set(column.countries) else tuple(sorted(known))
        if len(wanted) < LEAST_COUNTRIES:
            return Cell(reason=f"between-country R2 needs {LEAST_COUNTRIES} countries, has {len(known)}")
        members = [
            standing.entry
            for code, standing in runs.standings[variant]
            if code in wanted and key_of(standing.entry.manifest.task(variant.task), spec)[2:] == variant[1:]
        ]
        found = [each for each in aligned_sets(members, self.shelf) if each.task == variant.task]
        values = [
            SetValue(each.seed, each.centred.explained_variance[ALL], each.centred.countries)
            for each in found
            if each.centred
        ]
        return pooled_sets(values, wanted)

    def _compared(self, cells: Mapping[Configuration, list[Cell]]) -> dict[Configuration, list[Cell]]:
        """Compare every cell with the unaligned model's mean over the same countries."""
        made = {}
        for who, each in cells.items():
            base = self._unaligned(who)
            if base is None:
                made[who] = list(each)
                continue
            made[who] = [
                compared(
                    cell,
                    self._of_unaligned(base, cells[base][at], column, cell),
                    column.higher_is_better,
                    self._noise(column, who),
                )
                for at, (column, cell) in enumerate(zip(self.columns, each, strict=True))
            ]
        return made

    def _unaligned(self, who: Configuration) -> Configuration | None:
        """Return the row of the unaligned model of a row, the one with most runs; None for an unaligned one."""
        return None if who.aligner == UNALIGNED else self._bare.get((who.model, who.build))

    @cached_property
    def _bare(self) -> dict[tuple[str, str], Configuration]:
        """Return the row of each unaligned model with most runs."""
        rows = sorted((len(runs.entries), who) for who, runs in self.runs.items() if who.aligner == UNALIGNED)
        return {(who.model, who.build): who for _, who in rows}

    def _of_unaligned(self, base: Configuration, own: Cell, column: Column, cell: Cell) -> Cell:
        if column.metric == R2 or own.countries == cell.countries:
            return own
        return pooled(value for value in self.runs[base].values[column.variant] if value.country in cell.countries)

    def _noise(self, column: Column, who: Configuration) -> float | None:
        """Return two standard deviations over random prefixes of a row's model, as for improvements; None without."""
        runs = self.baselines.get(Configuration(CONTROL_ROW, who.model, who.build))
        spreads = runs.spreads.get(column.variant) if runs and column.metric != R2 else None
        return BAND * float(np.mean(spreads)) if spreads else None

    def _ordered(self, cells: Mapping[Configuration, Sequence[Cell]]) -> list[Configuration]:
        """Order rows by the first task's column; rows over other countries come after the ranked ones."""
        at = next((at for at, column in enumerate(self.columns) if column.metric != R2), None)
        if at is None:
            return []
        sign = -1 if self.columns[at].higher_is_better else 1

        def badness(who: Configuration) -> tuple[bool, float, Configuration]:
            cell = cells[who][at]
            return cell.rank is None, math.inf if cell.value is None else sign * cell.value, who

        return sorted(cells, key=badness)

    def _row(
        self, who: Configuration, runs: _Runs, names: tuple[str, str], cells: Sequence[Cell], seed: int | None
    ) -> Row:
        spent = [entry.manifest.budget for entry in runs.entries.values()]
        costs = np.mean([(one.survey_evaluations, one.seconds, one.tokens) for one in spent], axis=0)
        seeds = [
            self._row(who, part, (f"{names[0]} s{one}", names[1]), self._cells(part), one)
            for one, part in (runs.by_seed().items() if seed is None else ())
        ]
        return Row(
            who,
            *names,
            tuple(cells),
            Cost(*costs.tolist()),
            tuple((entry.manifest.country, entry.name) for entry in runs.entries.values()),
            sum(entry.verified for entry in runs.entries.values()),
            sum(entry.differs for entry in runs.entries.values()),
            self._points(who, runs) if seed is None else (),
            seed,
            tuple(seeds),
        )

    def _baseline(self, who: Configuration, names: tuple[str, str]) -> Row:
        runs, cells = self.baselines[who], []
        for column in self.columns:
            values = runs.values.get(column.variant, [])
            if column.metric == R2 or not values:
                cells.append(Cell(reason="not defined for this baseline"))
                continue
            cell, spreads = _over(column.countries, values), runs.spreads[column.variant]
            spread = float(np.mean(spreads)) if spreads else None
            cells.append(Cell(cell.value, countries=cell.countries, spread=spread))
        return Row(who, *names, tuple(cells))

    def _points(self, who: Configuration, runs: _Runs) -> tuple[Point, ...]:
        """Return the row's mean point on the first cultural map of the boards, by country."""
        variant = next((one for one in self.boards if self._spec(one).metadata.measure == MAP), None)
        if variant is None or variant not in runs.standings:
            return ()
        own = self._places(runs, variant)
        bare = self._unaligned(who)
        start = self._places(self.runs[bare], variant) if bare else {}
        return tuple(
            Point(code, variant.edition, at, error, start[code][0] if code in start else None)
            for code, (at, error) in sorted(own.items())
        )

    def _places(self, runs: _Runs, variant: Variant) -> dict[str, Located]:
        """Return mean point and mean standard errors by country."""
        scoring, found = headline_of(self._spec(variant)).scoring, defaultdict(list)
        for code, standing in runs.standings.get(variant, ()):
            if (one := located(standing.row.scores, scoring, "heldout")) is not None:
                found[code].append(one)
        means = {code: np.mean(each, axis=0).tolist() for code, each in found.items()}
        return {code: (tuple(at), tuple(error)) for code, (at, error) in means.items()}


def _over(countries: Collection[str], values: Sequence[Value]) -> Cell:
    """Pool values over the given countries if all are there, else over those that are."""
    whole = {value.country for value in values} >= set(countries)
    return pooled(value for value in values if value.country in countries or not whole)


def _complete(cell: Cell, column: Column, runs: _Runs) -> Cell:
    """Say in a cell how many runs in its countries answered the task and have no such score."""
    if cell.value is None:
        return cell
    answered = sum(country in cell.countries for country, _ in runs.standings[column.variant])
    lacking = answered - cell.runs
    return replace(cell, reason=f"{lacking} of {answered} runs without a score of {column.title}") if lacking else cell


def _titles(boards: Mapping[Variant, Sequence[Board]]) -> dict[Variant, str]:
    """Return the titles of columns: the task, and edition and protocol if a task has several columns."""
    names = [variant.task for variant in boards]
    return {
        variant: variant.task if names.count(variant.task) == 1 else f"{variant.task} ({members[0].variant})"
        for variant, members in boards.items()
    }


def _names(runs: Iterable[Configuration]) -> dict[Configuration, tuple[str, str]]:
    """Return name and detail of rows: the aligner, and the model if there are several; differing budget, settings."""
    groups: dict[tuple[str, str], list[Configuration]] = defaultdict(list)
    for who in runs:
        groups[who.aligner, who.model].append(who)
    several = len({model for _, model in groups}) > 1
    names = {}
    for (aligner, model), members in groups.items():
        more = differing({who: _settings(who) for who in members})
        budgets = len({who.allowed for who in members}) > 1
        for who in members:
            parts = [f"{who.allowed:,} item forwards"] if budgets else []
            names[who] = (f"{aligner} {model}" if several else aligner, ", ".join([*parts, *more[who]]))
    return names


def _settings(who: Configuration) -> dict[str, Any]:
    """Return the settings of a row, the build of its model, and what it was fitted to."""
    fitted = {f"fit {name}": value for name, value in json.loads(who.fitted).items()}
    return json.loads(who.settings) | fitted | {f"model {key}": one for key, one in json.loads(who.build).items()}
