"""Keep numbers and plots of the published board and of studies, and output of commands, in README and docs up to date.

python -m benchmarks.documents            # renews README.md and docs/*.md
python -m benchmarks.documents --check    # says which are out of date
python -m benchmarks.documents --run      # also runs the commands of walk-throughs again

A document holds a block between two comments, which Markdown does not show; the first one names what stands there, or
the command whose output it is. The commands of a document run in one new folder:

    <!-- board: overview -->
    <!-- end -->
    <!-- study: ways of asking -->
    <!-- end -->
    <!-- run: culteval ls tasks -->
    <!-- end -->
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from pathlib import Path

import click
import numpy as np
from culteval.errors import InputError
from culteval.harness.report.tables import escape, markdown_table
from culteval.harness.scoring.baselines import CONTROL
from culteval.harness.util.atomic_io import write_text
from culteval.leaderboards.identification import HEADINGS, WORDS, identified
from culteval.leaderboards.leaderboard import Leaderboard, leaderboard
from culteval.leaderboards.overview import heading, headings, texts
from culteval.leaderboards.render import between
from culteval.tasks.countries import name_of

from . import elicitation, travel

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "leaderboards" / "results"
STUDIED = ROOT / "benchmarks" / "results"
BLOCK = re.compile(r"(<!-- (board|study): ([\w ]+) -->\n).*?(<!-- end -->)", re.DOTALL)
RUN = re.compile(r"(<!-- run: (.+?) -->\n).*?(<!-- end -->)", re.DOTALL)
WIDTH = 100  # characters of a line of output
FEW = ("rank", "aligner", "evaluations")  # columns of the short table beside those of scores
SCORES = ("vsm13", "wvs", "general")  # its tasks


def overview(found: Leaderboard) -> str:
    """Return the overview as Markdown."""
    return found.overview().to_markdown()


def short(found: Leaderboard) -> str:
    """Return the overview without ranges and without most columns."""
    table = found.overview()
    names = headings(table)
    scores = {heading(column) for column in table.columns if column.variant.task in SCORES}
    kept = [place for place, name in enumerate(names) if name in scores or name in FEW]
    rows = [[escape(line[place]) for place in kept] for line in texts(table, whole=False)]
    return markdown_table([escape(names[place]) for place in kept], rows, words=(1,))


def facts(found: Leaderboard) -> str:
    """Return in one sentence what the board holds."""
    runs = [entry.manifest for entry in found.entries]
    models = sorted({run.model.name for run in runs})
    countries = [name_of(code) for code in sorted({run.aligned_to for run in runs})]
    controls = sum(run.aligner.name == CONTROL for run in runs)
    seeds = Counter(run.seed for run in runs if run.aligner.name != CONTROL)
    return (
        f"{len(runs)} runs, {controls} of them random prefixes: {', '.join(models)}; {', '.join(countries)}; "
        f"{len(seeds)} seeds.\n"
    )


def between_countries(found: Leaderboard) -> str:
    """Return the aligned sets' tables as Markdown."""
    tables = []
    for title, sets in between.grouped(found.sets).items():
        if any(each.centred for each in sets):
            lines = [[escape(cell) for cell in row] for row in between.rows(sets)]
            tables.append(f"{escape(title)}\n\n{markdown_table(between.headings(sets), lines, between.WORDS)}")
    return "\n".join(tables)


def identification(found: Leaderboard) -> str:
    """Return the identification of the countries in all aligned sets as Markdown."""
    rows = [[escape(cell) for cell in row.cells] for row in identified(found, np.random.default_rng(0))]
    return markdown_table(HEADINGS, rows, WORDS)


BLOCKS: Mapping[str, Callable[[Leaderboard], str]] = {
    "overview": overview,
    "short overview": short,
    "facts": facts,
    "between countries": between_countries,
    "identification": identification,
}


@cache
def asked() -> Sequence[elicitation.Point]:
    """Read the study of ways of asking, once for table and plot."""
    return elicitation.read(STUDIED / "elicitation")


def ways_of_asking() -> str:
    """Return the study of ways of asking as Markdown: a table, and which way is nearest."""
    points = asked()
    return "\n".join([elicitation.means(points), *(f"- {line}" for line in elicitation.verdicts(points))])


@cache
def fitted_once() -> Sequence[travel.Answered]:
    """Read the study of travel, once for its two tables."""
    return travel.read(STUDIED / "travel")


def travelled() -> str:
    """Return the study of travel as Markdown."""
    return travel.table(fitted_once())


def learned() -> str:
    """Return the aligner of the study of travel that learned from most wordings, in a short table."""
    return travel.brief(fitted_once(), "sft", "wvs + wvs_training")


STUDIES: Mapping[str, Callable[[], str]] = {
    "ways of asking": ways_of_asking,
    "travel": travelled,
    "learned": learned,
}


def sizes(path: Path) -> None:
    """Draw the distances of the study of ways of asking against the size of the model."""
    elicitation.draw_sizes(asked(), path)


FIGURES: Mapping[str, Callable[[Path], None]] = {"docs/sizes.svg": sizes}


def renewed(text: str, found: Leaderboard) -> str:
    """Return a document with its blocks made again.

    Raises:
        InputError: a block has no such name.
    """

    known = {"board": {name: partial(make, found) for name, make in BLOCKS.items()}, "study": STUDIES}

    def block(match: re.Match[str]) -> str:
        begin, kind, name, end = match.groups()
        if name not in known[kind]:
            raise InputError(f"{kind}: {name}: no such block. There are {', '.join(known[kind])}.")
        return f"{begin}\n{known[kind][name]().rstrip()}\n\n{end}"

    return BLOCK.sub(block, text)


def run_again(text: str) -> str:
    """Return a document with its commands run again, in one new folder.

    Raises:
        InputError: a command fails.
    """
    with tempfile.TemporaryDirectory() as folder:
        return RUN.sub(lambda match: f"{match[1]}\n{_output(match[2], Path(folder))}\n{match[3]}", text)


def _output(command: str, folder: Path) -> str:
    """Run a command of culteval and return it and its output as two blocks of code."""
    program, *words = shlex.split(command)
    if program != "culteval":
        raise InputError(f"run: {command}: only commands of culteval can be run.")
    given = [found for word in words for found in (sorted(map(str, folder.glob(word))) if "*" in word else [word])]
    names = [str(Path(word).relative_to(folder)) if word.startswith(str(folder)) else word for word in given]
    done = subprocess.run(
        [sys.executable, "-m", "culteval", *names],
        cwd=folder,
        env={**os.environ, "COLUMNS": str(WIDTH)},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise InputError(f"run: {command}: {done.stderr.strip()[-300:]}")
    lines = [line.rstrip() for line in done.stdout.replace(f"{folder}/", "").splitlines()]
    return "\n".join(["```sh", command, "```", "", "```text", *lines, "```", ""])


def documents() -> Sequence[Path]:
    """Return the files that may hold blocks."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


@click.command()
@click.option("--check", is_flag=True, help="Change nothing; exit with 1 if a document is out of date.")
@click.option("--run", is_flag=True, help="Also run the commands of walk-throughs again.")
def main(check: bool, run: bool) -> None:
    """Renew the figures of the published board, and the output of commands, in README and docs."""
    found, late = leaderboard(RESULTS), []
    for path in documents():
        text = path.read_text(encoding="utf-8")
        try:
            new = renewed(text, found)
            new = run_again(new) if run else new
        except InputError as error:
            raise click.ClickException(f"{path.relative_to(ROOT)}: {error}") from None
        if new != text:
            late.append(path)
            if not check:
                write_text(path, new)
    for name, draw in FIGURES.items():
        with tempfile.TemporaryDirectory() as folder:
            drawn = Path(folder) / Path(name).name
            draw(drawn)
            if not (ROOT / name).is_file() or (ROOT / name).read_bytes() != drawn.read_bytes():
                late.append(ROOT / name)
                if not check:
                    shutil.copyfile(drawn, ROOT / name)
    for path in late:
        click.echo(f"{path.relative_to(ROOT)}: {'out of date' if check else 'renewed'}")
    sys.exit(1 if check and late else 0)


if __name__ == "__main__":
    main()
