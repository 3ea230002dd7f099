"""Help in groups: which heading an option stands under, and in which order headings come."""

import click
import pytest
from click.testing import CliRunner
from culteval.harness.util.command_help import GroupedCommand, option


def made(kind):
    @click.command(cls=kind)
    @option("--aligner", required=True, group="First run", help="An aligner.")
    @option("--dtype", group="Model", default="auto", help="A number type.")
    @option("--country", group="First run", help="A country.")
    @click.option("--plain", is_flag=True, help="Without a group.")
    @option("--secret", group="Model", hidden=True)
    @click.argument("path")
    def command(**flags):
        """Do it."""
        click.echo(repr(sorted(flags.items(), key=str)))

    return command


def test_sections_come_in_order_of_appearance_and_the_rest_last():
    text = CliRunner().invoke(made(GroupedCommand), ["--help"]).output
    sections = {}
    for line in text.partition("Do it.")[2].splitlines():
        if line.endswith(":") and not line.startswith(" "):
            sections[line[:-1]] = here = []
        elif line.strip():
            here.append(line.split()[0])
    assert list(sections.items()) == [
        ("First run", ["--aligner", "--country"]), ("Model", ["--dtype"]), ("Options", ["--plain", "--help"])
    ]  # fmt: skip


@pytest.mark.parametrize("kind", [click.Command, GroupedCommand])
def test_options_are_click_s_own_otherwise(kind):
    runner = CliRunner()
    done = runner.invoke(made(kind), ["x", "--aligner", "de", "--plain"])
    assert done.exit_code == 0 and "('aligner', 'de')" in done.output and "('dtype', 'auto')" in done.output
    assert "Missing option '--aligner'" in runner.invoke(made(kind), ["x"]).output
    text = runner.invoke(made(kind), ["--help"]).output
    assert "--secret" not in text and "[required]" in text
