"""Import of GlobalOpinionQA, from the user's file or the hub: questions with the answer shares of countries.

The columns are those of the data card of ``Anthropic/llm_global_opinions`` (Durmus et al. 2023, arXiv 2306.16388):
``question``, ``selections`` (a printed mapping of countries to shares), ``options`` (a printed list) and ``source``
(GAS, Pew's Global Attitudes Survey, or WVS).
"""

from __future__ import annotations

from ..metrics.share_table import shares_by_country
from ..rows import MOST_SHARES, SELECTIONS, literal, spoken
from .common import Line, Row, Tally, Unusable, checked, column, one_by_one, split, usable
from .tables import MARKS, read_table

GLOBALOPINIONQA = ("question", SELECTIONS, "options")


def globalopinionqa(source: str, seed: int, tally: Tally) -> dict[str, list[Row]]:
    """Convert to questions whose options are no scale, with the shares of each country.

    Raises:
        InputError: another table, or a question that cannot be used. UnavailableError: as ``read_table``.
    """
    table = read_table(source, GLOBALOPINIONQA, marks=MARKS, most=MOST_SHARES)
    return {"globalopinionqa": split(usable(source, one_by_one(table), _question, tally), seed)}


def _question(rows: list[Line]) -> Row:
    ((line, row),) = rows
    with column(line, "options"):
        options = literal(row["options"], "options")
    if not isinstance(options, list | tuple):
        raise Unusable(line, "options", "no list")
    with column(line, SELECTIONS):
        shares = shares_by_country(row[SELECTIONS], options, SELECTIONS)
    if not shares:
        raise Unusable(line, SELECTIONS, "no country has shares")
    made: Row = {
        "id": f"q{line - 1}",
        "question": row["question"].strip(),
        "options": [str(spoken(option)).strip() for option in options],
        "ordered": False,  # the data set does not say which options are a scale
        SELECTIONS: shares,
    }
    return checked(line, "options" if row["question"].strip() else "question", made | _source(row))


def _source(row: dict[str, str]) -> Row:
    return {"topic": row["source"].strip()} if row.get("source", "").strip() else {}
