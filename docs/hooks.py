"""What the site has beside this folder: the READMEs that stay with what they describe, under the paths they have there.

Links are written for the repository. One that leads out of the site (to code, to a folder) becomes its text. The page
of the command line is made of what ``--help`` says.
"""

from __future__ import annotations

import posixpath
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

import click
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.plugins import event_priority
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parent.parent
GUESTS = ("tasks/*/README.md", "tasks/*/TERMS.md", "benchmarks/README.md", "benchmarks/*.svg")
HELP = "reference/cli.md"
FORM = "tasks/template/README.md"  # to be filled by who copies it
LINK = re.compile(r"\]\(([^)#\s]+)(#[^)]*)?\)")

_named = tempfile.TemporaryDirectory(prefix="culteval-docs-")


@event_priority(100)
def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Let docstrings be found whatever the clone is called: the package is the repository's root."""
    package = Path(_named.name) / "culteval"
    if not package.is_symlink():
        package.symlink_to(ROOT, target_is_directory=True)
    config.plugins["mkdocstrings"].config.handlers.setdefault("python", {})["paths"] = [_named.name]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the guests."""
    for pattern in GUESTS:
        for path in sorted(ROOT.glob(pattern)):
            name = path.relative_to(ROOT).as_posix()
            if name != FORM:
                files.append(File.generated(config, name, abs_src_path=str(path)))
    return files


def helps(command: click.Command, name: str, parent: click.Context | None = None) -> Iterator[str]:
    """What ``--help`` says of a command and of those below it, a section each."""
    context = click.Context(command, info_name=name, parent=parent, terminal_width=80)
    yield f"## {context.command_path}\n\n```text\n{command.get_help(context)}\n```"
    if isinstance(command, click.Group):
        for each in command.list_commands(context):
            yield from helps(command.get_command(context, each), each, context)


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Point links of the repository to pages of the site, and fill the page of the command line."""
    own = page.file.src_uri
    guest = Path(page.file.abs_src_path or "").is_relative_to(ROOT) and not (ROOT / "docs" / own).is_file()
    place = own if guest else f"docs/{own}"

    def moved(link: re.Match[str]) -> str:
        target, anchor = link[1], link[2] or ""
        if "://" in target:
            return link[0]
        wanted = posixpath.normpath(posixpath.join(posixpath.dirname(place), target))
        there = wanted.removeprefix("docs/")
        if files.get_file_from_path(there):
            return f"]({posixpath.relpath(there, posixpath.dirname(own) or '.')}{anchor})"
        return "]" if (ROOT / wanted).exists() else link[0]  # nothing there at all: let the build complain

    if own == HELP:
        from culteval.harness.cli.main import cli

        return "\n\n".join([LINK.sub(moved, markdown), *helps(cli, "culteval")])
    return LINK.sub(moved, markdown)
