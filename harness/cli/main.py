"""Command line: commands are imported when they are called; errors are one or two lines with an exit code."""

from __future__ import annotations

import importlib
import os
import signal
import sys
from typing import Any

import click

from ...errors import CultevalError, UsageError, did_you_mean, is_memory, shown
from ..registry import find, listing, summary, table

_COMMANDS = {
    "run": "culteval.harness.cli.run:run",
    "resume": "culteval.harness.cli.run:resume",
    "sweep": "culteval.harness.cli.sweep:sweep",
    "cross-validate": "culteval.harness.cli.cross_validate:command",
    "score": "culteval.harness.cli.score:score",
    "compare": "culteval.harness.cli.compare:compare_command",
    "identify": "culteval.harness.cli.identify:identify",
    "subgroups": "culteval.harness.cli.people.subgroups:subgroups",
    "structure": "culteval.harness.cli.people.structure:structure",
    "map": "culteval.harness.cli.identify:map_",
    "judge": "culteval.harness.cli.judge:judge",
    "ls": "culteval.harness.cli.ls:ls",
    "task": "culteval.harness.cli.task:task",
    "data": "culteval.harness.cli.data:data",
    "cache": "culteval.harness.cli.cache:cache",
    "doctor": "culteval.harness.cli.doctor:doctor",
}
_REGISTERED = (
    "leaderboard",
    "publish",
    "report",
    "clca",
)  # built in, but entry points of the group culteval.commands like plug-ins
_REINSTALL = "this installation does not list it yet. Reinstall culteval: pip install ."


class _LazyGroup(click.Group):
    """The group of built-in commands and of those that the entry-point group ``culteval.commands`` adds.

    A command's module is imported only when the command is called; its line in the help is the first line of its
    docstring, read from the source.
    """

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(dict.fromkeys((*_COMMANDS, *_REGISTERED, *table("commands"))))

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name in _COMMANDS:
            module, _, attribute = _COMMANDS[name].partition(":")
            return getattr(importlib.import_module(module), attribute)
        if name not in table("commands"):
            return None
        command = find("commands", name)
        if not isinstance(command, click.Command):
            raise UsageError(
                f"command {name!r}: {table('commands')[name]!r} is no click command. Report it to its author."
            )
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0] if args else "-"
        if name not in _COMMANDS and not name.startswith("-"):
            if name in _REGISTERED and name not in table("commands"):
                ctx.fail(f"{name}: {_REINSTALL}")
            if name not in table("commands"):
                ctx.fail(f"No such command {name!r}.{did_you_mean(name, self.list_commands(ctx))}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        known = table("commands") | _COMMANDS
        rows = {name: summary(known[name]) for name in _COMMANDS}
        for name, text in listing("commands", lambda name: (name, summary(known[name]) or f"From {known[name]}.")):
            rows.setdefault(name, text)
        missing = [(name, _REINSTALL) for name in _REGISTERED if name not in known]
        with formatter.section("Commands"):
            formatter.write_dl([*((name, shown(text)) for name, text in rows.items()), *missing])

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; messages of the library on its arguments are translated to flags."""
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
    """Measure how a language model is aligned to a country's culture, and align it to another.

    \b
    First steps:
      culteval run --aligner de --task vsm13        the embedded model, Saudi Arabia
      culteval ls aligners                          all aligners

    Exit codes: 0 done, 1 internal error, 2 wrong usage, 3 bad input file, 4 model or network not available,
    5 a run that could not be finished, 130 interrupted.
    """


def main() -> None:
    """Entry point of the ``culteval`` command."""
    try:
        _main()
    except MemoryError:  # printing an error needs memory too
        os.write(2, _NO_MEMORY)
        raise SystemExit(5) from None


def _main() -> None:
    debug = "--debug" in sys.argv
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # end like Ctrl-C, with the same cleanup and message
    try:
        cli.main(standalone_mode=False)
    except click.exceptions.Exit as stop:
        sys.exit(stop.exit_code)
    except (click.Abort, KeyboardInterrupt):
        _fail("interrupted. The same command continues; a run also by `culteval resume RUN`.", 130)
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


_NO_MEMORY = b"Error: out of memory. Free some memory; `culteval resume RUN` continues a run.\n"


def _fail(text: str, code: int) -> None:
    click.echo(f"Error: {shown(text)}", err=True)
    sys.exit(code)
