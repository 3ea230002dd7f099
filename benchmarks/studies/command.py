"""What the commands of studies share."""

from __future__ import annotations

from typing import Any

import click
from culteval.errors import CultevalError

personas_option = click.option(
    "--personas", type=click.IntRange(2, 100_000), help="Who answers [default: 50, with --set preset=paper 1000]."
)


class Command(click.Command):
    """A command that shows an error of culteval in a line, with its exit code."""

    def invoke(self, ctx: click.Context) -> Any:
        """As click does."""
        try:
            return super().invoke(ctx)
        except CultevalError as error:
            shown = click.ClickException(str(error))
            shown.exit_code = error.exit_code
            raise shown from None
