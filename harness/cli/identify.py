"""The commands ``identify`` and ``map``: distances of submissions to every country, points on the cultural map."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ...errors import UsageError
from ...tasks.countries import name_of
from ...tasks.metrics.map_projection import AXES
from ...tasks.schema import OWN_SCORINGS
from ..analysis.between_countries import ALL, LEAST_COUNTRIES, Centred
from ..analysis.country_distance import CountryDistances, Placed, distances_to_countries
from ..analysis.cultural_map import CulturalMap, cultural_map
from ..analysis.identification import Identification
from ..report.plots import write_distances, write_matrix
from ..submissions.manifest import submission_of

BAR = 30  # characters of the longest bar


WIDE = 12  # countries up to which the matrix is shown with numbers


@click.command()
@click.argument("paths", metavar="SUBMISSION...", nargs=-1, required=True, type=click.Path())
@click.option("--task", help="Task to compare [default: the first that all share and that has countries].")
@click.option(
    "--scoring", "scoring", type=click.Choice(OWN_SCORINGS), help="Answer scoring [default: the task's first]."
)
@click.option("--edition", help="Edition of the reference [default: the submission's].")
@click.option("--top", type=click.IntRange(1), default=12, show_default=True, help="Number of countries to show.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Seed of the permutation test.")
@click.option("--plot", type=click.Path(dir_okay=False), metavar="FILE.svg", help="Also write a figure.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object and nothing else.")
def identify(paths: tuple[str, ...], plot: str | None, top: int, as_json: bool, **flags: Any) -> None:
    """Identify the nearest countries of a submission, or the country of each submission in an aligned set.

    A distance is the task's headline loss of the held-out answers against a country's reference. Several submissions of
    one model and aligner, each aligned to another country, are an aligned set: the identification rank of each is the
    place of its country among theirs, nearest first, once their distances are double-centred (1: identified).
    """
    if plot and Path(plot).suffix != ".svg":
        raise UsageError(f"--plot {plot!r}: figures are SVG. Name it FILE.svg.")
    result = distances_to_countries(tuple(dict.fromkeys(submission_of(Path(text)) for text in paths)), **flags)
    if plot:
        _draw(Path(plot), result, top)
    if as_json:
        click.echo(json.dumps(_as_json(result), indent=2, allow_nan=False))
        return
    _show(result, top)
    if plot:
        Console().print(f"figure     {plot}", highlight=False, soft_wrap=True, markup=False)


@click.command(name="map")
@click.argument("paths", metavar="SUBMISSION...", nargs=-1, required=True, type=click.Path())
@click.option("--task", help="Task of the map [default: all that were answered: iw_map, its translations].")
@click.option("--scoring", type=click.Choice(OWN_SCORINGS), help="Answer scoring [default: the task's first].")
@click.option("--edition", help="Edition of the projection [default: the submission's].")
@click.option("--out", type=click.Path(dir_okay=False), metavar="FILE.svg|FILE.png", help="Also write the figure.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object and nothing else.")
def map_(paths: tuple[str, ...], out: str | None, as_json: bool, **flags: Any) -> None:
    """Place submissions on the Inglehart-Welzel cultural map, and draw it.

    An arrow leads from the unaligned model (`naive`) to the same model aligned; give the run of `naive` too.
    """
    if out and Path(out).suffix not in (".svg", ".png"):
        raise UsageError(f"--out {out!r}: figures are SVG or PNG. Name it FILE.svg or FILE.png.")
    result = cultural_map(*dict.fromkeys(submission_of(Path(text)) for text in paths), **flags)
    if out:
        result.write(Path(out))
    if as_json:
        click.echo(json.dumps(_map_as_json(result), indent=2, allow_nan=False))
        return
    console = Console()
    console.print(_points(result))
    console.print(result.note, style="dim", highlight=False, markup=False)
    if out:
        console.print(f"figure     {out}", highlight=False, soft_wrap=True, markup=False)


def _map_as_json(result: CulturalMap) -> dict[str, Any]:
    rows = []
    for each in result.points:
        row: dict[str, Any] = {
            "submission": str(each.path),
            "task": each.task.name,
            "name": each.name,
            "zone": each.zone,
        }
        row |= {"aligner": each.manifest.aligner.name, "aligned_to": each.manifest.aligned_to}
        row |= {"point": dict(zip(AXES, each.point, strict=True))}
        row |= {"standard_error": dict(zip(AXES, each.deviation, strict=True))}
        rows.append(row | {"distances": [{"country": c, "distance": d} for c, d in each.distances.items()]})
    projection = result.projection
    error = None if projection.r2 is None else dict(zip(AXES, projection.error.tolist(), strict=True))
    return {"edition": result.edition, "scoring": result.scoring, "projection_error": error, "submissions": rows}


def _points(result: CulturalMap) -> Table:
    """Make a table, a row a submission: coordinates, distance to its own country, zone and nearest countries."""
    table = Table(title=Text(result.title), title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("", "secular", "self-expr.", "distance"):
        table.add_column(heading, justify="right" if heading else "left", no_wrap=bool(heading))
    table.add_column("zone")
    table.add_column("nearest")
    for each in result.points:
        numbers = [f"{value:z.2f} ± {error:.2f}" for value, error in zip(each.point, each.deviation, strict=True)]
        own = each.distances.get(each.manifest.aligned_to) if each.aligned else None
        nearest = ", ".join([*each.distances][:5])
        table.add_row(*map(Text, (each.name, *numbers, "-" if own is None else f"{own:.2f}", each.zone, nearest)))
    return table


def _draw(path: Path, result: CountryDistances, top: int) -> None:
    first = result.placed[0]
    if result.identified:
        about = f"{result.spec.name}: {first.manifest.aligner.name}, {len(result.placed)} countries"
        title = f"{about}, mean identification rank {result.identified.mean_rank:.2f}"
        write_matrix(path, result.identified.countries, result.identified.centred, title)
    elif len(result.placed) == 1:
        title = f"{first.name} ({first.manifest.model.name}), aligned to {name_of(first.own)}"
        write_distances(path, first.shown(top), first.own, title, result.metric)
    else:
        raise UsageError(f"--plot: no figure of these: {result.why}. Give one submission, or an aligned set.")


def _as_json(result: CountryDistances) -> dict[str, Any]:
    shown = {"task": result.spec.name, "scoring": result.scoring, "split": "heldout"}
    shown |= {"metric": result.spec.metadata.headline.metric}
    shown |= {"edition": result.options.edition or result.spec.default_edition, "constants": result.options.constants}
    rows = []
    for each in result.placed:
        about = {"submission": str(each.path), "aligner": each.manifest.aligner.name, "seed": each.manifest.seed}
        about |= {"aligned_to": each.own, "rank": each.rank, "nearest_country": next(iter(each.distances))}
        distances = [{"country": code, "distance": value} for code, value in each.distances.items()]
        rows.append(about | {"distances": distances})
    between = asdict(result.between) if result.between else None
    return shown | {"submissions": rows, "identification": _matrix(result.identified), "between_countries": between}


def _matrix(result: Identification | None) -> dict[str, Any] | None:
    if result is None:
        return None
    arrays = {"distances": result.distances, "double_centred": result.centred, "identification_ranks": result.ranks}
    about = {"countries": result.countries} | {name: array.tolist() for name, array in arrays.items()}
    return about | {"mean_identification_rank": result.mean_rank, "p": result.p, "permutations": result.permutations}


# ---------------------------------------------------------------- the terminal


def _show(result: CountryDistances, top: int) -> None:
    console = Console()

    def say(text: str, style: str = "") -> None:
        console.print(text, style=style, highlight=False, markup=False)

    if len(result.placed) == 1:
        each = result.placed[0]
        say(f"{each.name} ({each.manifest.model.name}), aligned to {name_of(each.own)}", "bold")
        say(f"{result.metric}: nearest of {len(each.distances)} countries first")
        console.print(_bars(result, each, top))
    else:
        console.print(_summary(result))
    if result.identified:
        console.print(_heat_map(result.identified))
        say(_verdict(result.identified, result.between))
    else:
        say(f"no identification rank: {result.why}", "dim")


def _bars(result: CountryDistances, each: Placed, top: int) -> Table:
    """Draw a bar for each country, as long as its distance."""
    table = Table(box=None, pad_edge=False, show_header=False)
    for justify in ("right", "left", "right", "left"):
        table.add_column(justify=justify, no_wrap=True)
    shown = each.shown(top)
    most = max(shown.values()) or 1.0
    for code, value in shown.items():
        style = "bold yellow" if code == each.own else "cyan"
        bar = "━" * max(1, round(value / most * BAR)) + (" ◆ own" if code == each.own else "")
        name = Text(name_of(code))
        name.truncate(24, overflow="ellipsis")
        table.add_row(str([*each.distances].index(code) + 1), name, result.number(value), Text(bar, style))
    return table


def _summary(result: CountryDistances) -> Table:
    """Make a table, a row a submission: the three nearest countries, the rank of its own, the identification rank."""
    table = Table(title=Text(result.metric), title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("aligned to", "aligner", "nearest countries", "rank of its own", "identification rank"):
        table.add_column(heading, justify="right" if "rank" in heading else "left")
    for each in result.placed:
        nearest = ", ".join(name_of(code) for code in [*each.distances][:3])
        whole, inside = f"{each.rank} of {len(each.distances)}" if each.rank else "-", "-"
        if result.identified:
            countries = result.identified.countries
            inside = f"{result.identified.ranks[countries.index(each.own)]:g} of {len(countries)}"
        table.add_row(*map(Text, (name_of(each.own), each.name, nearest, whole, inside)))
    return table


def _heat_map(result: Identification) -> Table:
    """Draw the double-centred matrix: blue is nearer than expected, red farther; numbers where they fit."""
    table = Table(box=None, pad_edge=False, padding=(0, 0))
    table.add_column("", no_wrap=True)
    for code in result.countries:
        table.add_column(code, justify="right", no_wrap=True)
    most = float(abs(result.centred).max()) or 1.0
    form = ",.0f" if most >= 10 else ".3f"
    for row, code in enumerate(result.countries):
        cells = []
        for column, value in enumerate(result.centred[row]):
            mark = "◆" if row == column else " "
            text = f" {value:{form}}{mark}" if len(result.countries) <= WIDE else f" {mark}"
            cells.append(Text(text, _shade(value / most) + (" bold" if row == column else "")))
        table.add_row(f"{code} ", *cells)
    return table


def _shade(share: float) -> str:
    fade = round(255 * (1 - 0.7 * abs(share)))
    return "black on " + (f"rgb({fade},{fade},255)" if share < 0 else f"rgb(255,{fade},{fade})")


def _verdict(result: Identification, between: Centred | None) -> str:
    """Summarise the matrix in a few lines."""
    n = len(result.countries)
    text = "aligned to (rows), scored against (columns), double-centred: below zero is nearer than expected\n"
    text += f"mean identification rank {result.mean_rank:.2f} of {n} (1: all identified, {(n + 1) / 2:g}: by chance); "
    if result.p:
        text += f"p = {result.p:.4f}, {result.permutations:,} permutations"
    else:
        text += f"p needs {LEAST_COUNTRIES} countries"
    if between:
        r = between.correlation[ALL]
        text += f"\nbetween-country R2 {between.explained_variance[ALL]:.2f}, "
        text += "no differences between countries" if r is None else f"correlation {r:.2f}"
    return text
