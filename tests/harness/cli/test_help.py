"""``--help`` of every command: one screen, options in groups where there are many, standard words."""

import re

import click
import pytest
from culteval.harness.cli.main import _COMMANDS, cli
from culteval.harness.util.command_help import GroupedCommand
from culteval.leaderboards.commands import leaderboard

SCREEN = 50  # lines of 80 characters
OLD_WORDS = ("respondent", "wording", "read-out", "somebody", "nobody", "stranger", "told apart", "engine")


def walk(command, path):
    yield path, command
    if isinstance(command, click.Group):
        context = click.Context(command, info_name=path[-1] if path else "culteval")
        names = _COMMANDS if not path else command.list_commands(context)
        for name in names:
            yield from walk(command.get_command(context, name), (*path, name))


EVERY = {" ".join(path): command for path, command in (*walk(cli, ()), *walk(leaderboard, ("leaderboard",))) if path}


def help_of(name):
    return EVERY[name].get_help(click.Context(EVERY[name], info_name=f"culteval {name}", terminal_width=80))


@pytest.mark.parametrize("name", EVERY)
def test_it_fits_one_screen_of_standard_words(name):
    text = help_of(name)
    assert len(text.splitlines()) <= SCREEN and max(map(len, text.splitlines())) <= 80
    assert not [word for word in OLD_WORDS if re.search(rf"\b{word}s?\b", text, re.IGNORECASE)]


@pytest.mark.parametrize("name", EVERY)
def test_many_options_stand_in_groups(name):
    options = [param for param in EVERY[name].params if isinstance(param, click.Option)]
    if len(options) > 10:
        assert isinstance(EVERY[name], GroupedCommand)
        sections = re.findall(r"^\w[\w ]*:$", help_of(name), re.MULTILINE)
        assert len(sections) >= 3


@pytest.mark.parametrize("name", EVERY)
def test_it_opens_with_one_line(name):
    """It is the command's line in the list of commands too, which is read from the source."""
    first = (EVERY[name].help or "").splitlines()[0]
    assert 10 < len(first) <= 105 and first[0].isupper() and first[-1] in ".:"
