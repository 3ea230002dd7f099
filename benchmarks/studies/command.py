"""Common parts of the commands of studies."""

from __future__ import annotations

from typing import Any

import click
from culteval.errors import CultevalError

personas_option = click.option(
    "--personas", type=click.IntRange(2, 100_000), help="How many personas [default: 50, with --set preset=paper 1000]."
)


class Command(click.Command):
    """A command that prints an error of culteval in a line, with its exit code."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command, and convert culteval's errors to click's."""
        try:
            return super().invoke(ctx)
        except CultevalError as error:
            shown = click.ClickException(str(error))
            shown.exit_code = error.exit_code
            raise shown from None
