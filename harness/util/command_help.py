"""Help of a command with many options: options are listed in groups, in the order in which groups first appear."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

REST = "Options"  # the heading of options without a group; click's own --help is one


class _GroupedOption(click.Option):
    """An option with the heading of its group in the help."""

    def __init__(self, *names: Any, group: str = REST, **settings: Any) -> None:
        super().__init__(*names, **settings)
        self.group = group


def option(*names: str, group: str = REST, **settings: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Declare an option as ``click.option`` does, under the heading ``group`` where its command is grouped.

        @click.command(cls=GroupedCommand)
        @option("--aligner", group="First run", help="Name of an aligner.")
        def run(aligner: str) -> None: ...

    Any other command shows it among its options.
    """
    return click.option(*names, cls=_GroupedOption, group=group, **settings)


class GroupedCommand(click.Command):
    """A command whose help has a section for each group of options; options without a group come last."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        groups: dict[str, list[tuple[str, str]]] = {}
        for param in self.get_params(ctx):
            if isinstance(param, click.Option) and (record := param.get_help_record(ctx)) is not None:
                groups.setdefault(getattr(param, "group", REST), []).append(record)
        rest = groups.pop(REST, [])
        for heading, records in [*groups.items(), (REST, rest)]:
            if records:
                with formatter.section(heading):
                    formatter.write_dl(records)
