"""The command line: names of commands, loaded when called; errors as one or two lines with an exit code."""

from __future__ import annotations

import importlib
import os
import signal
import sys
from typing import Any

import click

from ...errors import CultevalError, is_memory, shown

_COMMANDS = {
    "run": ("culteval.harness.cli.run:run", "Align a model to a country, answer tasks, write and score a submission."),
    "resume": ("culteval.harness.cli.run:resume", "Go on with a run that was interrupted."),
    "sweep": ("culteval.harness.cli.sweep:sweep", "Run a grid of models, aligners, settings, tasks, countries, seeds."),
    "clca": ("culteval.optimizers.clca.commands:clca", "Learn a culture from simulated interactions, stage by stage."),
    "cross-validate": (
        "culteval.harness.cli.cross_validate:command",
        "Choose the length of a soft prompt by left-out items.",
    ),
    "score": ("culteval.harness.cli.score:score", "Score a submission again, also against other countries."),
    "compare": (
        "culteval.harness.cli.compare:compare_command",
        "Compare submissions: differences, tests, moved answers.",
    ),
    "correlate": (
        "culteval.harness.cli.compare:correlate_command",
        "Rank countries by a model's indices and as published.",
    ),
    "whose": ("culteval.harness.cli.identify:whose", "Score submissions against every country: whose values are they?"),
    "judge": ("culteval.harness.cli.judge:judge", "Have a model judge the open answers of a submission."),
    "ls": ("culteval.harness.cli.ls:ls", "List tasks, aligners, models, countries or runs."),
    "task": ("culteval.harness.cli.task:task", "Begin a new task, or check one."),
    "data": ("culteval.harness.cli.data:data", "Import your own copies of licensed data."),
    "cache": ("culteval.harness.cli.cache:cache", "Show, check or drop answers kept from one run to the next."),
    "doctor": ("culteval.harness.cli.doctor:doctor", "Look at this machine, with a remedy for what is wrong."),
    "leaderboard": ("culteval.leaderboards.commands:leaderboard", "Put finished runs side by side."),
}


class _LazyGroup(click.Group):
    """A group that imports a command's module only when the command is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in _COMMANDS:
            return None
        module, _, attribute = _COMMANDS[name][0].partition(":")
        return getattr(importlib.import_module(module), attribute)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in _COMMANDS and not args[0].startswith("-"):
            from ...errors import did_you_mean

            ctx.fail(f"No such command {args[0]!r}.{did_you_mean(args[0], _COMMANDS)}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in _COMMANDS.items()])

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; what the library says of its arguments is said of flags."""
        try:
            return super().invoke(ctx)
        except CultevalError as error:
            from .options import flagged

            error.args = tuple(flagged(part) if isinstance(part, str) else part for part in error.args)
            raise


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="culteval")
@click.option("--debug", is_flag=True, help="Show a traceback with an error.")
def cli(debug: bool) -> None:
    """Whose values does a language model speak with, and can it be moved to another culture?

    \b
    First steps:
      culteval run --aligner de --task vsm13        the embedded model, Saudi Arabia
      culteval ls aligners                          what else there is

    Exit codes: 0 done, 1 internal error, 2 wrong usage, 3 bad input file, 4 model or network not available,
    5 a run that could not go on, 130 interrupted.
    """


def main() -> None:
    """Entry point of the ``culteval`` command."""
    try:
        _main()
    except MemoryError:  # even telling of an error takes some
        os.write(2, _NO_MEMORY)
        raise SystemExit(5) from None


def _main() -> None:
    debug = "--debug" in sys.argv
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # end as by Ctrl-C: cleaned up, with the same word
    try:
        cli.main(standalone_mode=False)
    except click.exceptions.Exit as stop:
        sys.exit(stop.exit_code)
    except click.Abort:
        _fail("interrupted. `culteval resume RUN` goes on.", 130)
    except KeyboardInterrupt:
        _fail("interrupted. `culteval resume RUN` goes on.", 130)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except CultevalError as error:
        if debug:
            raise
        _fail(str(error), error.exit_code)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(0)
    except OSError as error:
        if debug:
            raise
        _fail(f"{error.filename or 'disk'}: {error.strerror}. Check path, permissions and free space.", 5)
    except Exception as error:
        if debug:
            raise
        if is_memory(error):
            raise MemoryError from None
        what = f"{type(error).__name__}: {' '.join(str(error).split())[:500]}"
        _fail(f"internal error: {what}. Report what `culteval --debug ...` shows.", 1)


_NO_MEMORY = b"Error: memory ran out. Give it more; `culteval resume RUN` goes on with a run.\n"


def _fail(text: str, code: int) -> None:
    click.echo(f"Error: {shown(text)}", err=True)
    sys.exit(code)
