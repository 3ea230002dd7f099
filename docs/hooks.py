"""What the site has beside this folder: the READMEs that stay with what they describe, under the paths they have there.

Links are written for the repository. One that leads out of the site (to code, to a folder) becomes its text.
"""

from __future__ import annotations

import posixpath
import re
import tempfile
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.plugins import event_priority
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parent.parent
GUESTS = ("tasks/*/README.md", "tasks/*/TERMS.md", "benchmarks/README.md", "benchmarks/*.svg")
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
            files.append(File.generated(config, name, abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Point links of the repository to pages of the site."""
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

    return LINK.sub(moved, markdown)
