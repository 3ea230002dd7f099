"""What the documents say is so: commands are run or parsed, links lead somewhere, and the site is built strictly."""

import glob
import importlib
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest

ROOT = Path(__file__).parents[2]


def test_exported_schema_is_the_code_s():
    from culteval.harness.submissions.manifest import json_schema

    exported = json.loads((ROOT / "docs" / "submission.schema.json").read_text(encoding="utf-8"))
    assert exported == json_schema(), (
        "run: python -m culteval.harness.submissions.manifest > docs/submission.schema.json"
    )


def test_exit_codes_in_the_documents():
    from culteval import errors

    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    kinds = (errors.CultevalError, errors.UsageError, errors.InputError, errors.UnavailableError, errors.RunError)
    for kind in kinds:
        assert f"\n| {kind.exit_code} | " in text


@pytest.mark.parametrize(
    "path",
    [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), *sorted(ROOT.glob("tasks/*/README.md"))],
    ids=lambda path: path.relative_to(ROOT).as_posix(),
)
def test_links_and_folders_exist(path):
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", path.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (path.parent / target).exists(), target


def test_the_names_after_an_upgrade_are_names_of_today():
    from culteval.harness.cli.run import run
    from culteval.harness.registry import table
    from culteval.harness.submissions.manifest import AnswerRow
    from culteval.optimizers.clca.settings import CLCASettings
    from culteval.tasks.schema import Metadata, Split

    flags = {flag for option in run.params for flag in option.opts}
    fields = {name for kind in (AnswerRow, Split, Metadata, CLCASettings) for name in kind.model_fields}
    known = flags | fields | set(table("aligners"))
    text = (ROOT / "docs" / "upgrading.md").read_text(encoding="utf-8")
    rows = [row.split("|")[1:4] for row in text.partition("## Names")[2].splitlines() if row.startswith("| `")]
    for old, new, where in rows:
        for name in re.findall("`(?:--set )?([^`= ]+)[^`]*`", new):
            module = re.search("`(culteval.+)`", where)
            found = module and hasattr(importlib.import_module(module[1]), name)
            assert name in known or found or importlib.import_module(name), name
        assert not set(re.findall("`(--[a-z]+)[^`]*`", old)) & flags, old
    assert len(rows) == 10


def test_the_batch_script_is_one_and_its_command_parses():
    text = (ROOT / "docs" / "sweeps.md").read_text(encoding="utf-8")
    script = text.partition("```bash\n")[2].partition("```")[0]
    assert script.startswith("#!/bin/bash\n#SBATCH")
    subprocess.run(["bash", "-n"], input=script, text=True, check=True)
    parsed(script.partition("-- \\\n")[2].strip())


def test_the_sweep_file_in_the_documents_is_one(tmp_path):
    from culteval.harness.sweeps.grid import cells, read_grid

    text = (ROOT / "docs" / "sweeps.md").read_text(encoding="utf-8")
    file = tmp_path / "grid.yaml"
    file.write_text(text.partition("```yaml\n")[2].partition("```")[0])
    grid = cells(read_grid(file), file)
    assert len(grid) == (4 + 8) * 2 * 2 * 2 + 2
    assert {cell.config.tasks for cell in grid if cell.config.country == "DE"} == {("vsm13",), ("wvs",)}


def test_every_public_name_and_argument_is_documented():
    import culteval
    from culteval.harness.runs.plan import RunRequest

    text = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
    names = set(re.findall(r"`(?:culteval\.)?(\w+)", text))
    assert not set(culteval.__all__) - names
    assert not set(RunRequest.model_fields) - names


def documented_commands():
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), *sorted(ROOT.glob("tasks/*/README.md"))):
        for line in path.read_text(encoding="utf-8").splitlines():
            if line.startswith("    culteval "):
                yield pytest.param(line.split("#")[0].split("  ")[2], id=f"{path.name}: {line.strip()[:60]}")


@pytest.mark.parametrize("line", documented_commands())
def test_documented_commands_parse(line, monkeypatch):
    """Every flag in the documents exists, and every run can be made; what they do is tested where they are."""
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    parsed(line)


ELSEWHERE = (
    "/RUN/",
    "FOLDER/adapter_config.json",
    "own.jsonl",
    "data import",
    "'mytask'",
    "'es'",
    "'copro'",
)  # a reader's own run, adapter, file, data, task, aligners


def parsed(line):
    from culteval.errors import CultevalError
    from culteval.harness.cli.main import cli
    from culteval.harness.cli.run import request_of
    from culteval.harness.runs.plan import plan

    command, words = cli, shlex.split(line)[1:]
    context = cli.make_context("culteval", [], resilient_parsing=True)
    while words and hasattr(command, "get_command") and command.get_command(context, words[0]):
        command = command.get_command(context, words.pop(0))
    assert command is not cli
    try:
        flags = command.make_context(command.name, words).params
        if command.name == "run":
            plan(request_of(flags))
    except click.BadParameter as error:
        assert "does not exist" in error.message, error.message  # RUN and FILE of the documents are nowhere
    except CultevalError as error:
        assert any(name in str(error) for name in ELSEWHERE), str(error)


def blocks(name):
    """The ```sh blocks of a document, which are run as they stand; indented commands are only parsed."""
    return re.findall(r"```sh\n(.*?)```", (ROOT / "docs" / name).read_text(encoding="utf-8"), re.DOTALL)


def test_the_tutorial_holds_on_a_tiny_model(tiny_cache, tmp_path, monkeypatch):
    """The same commands within this process, the embedded model a tiny one."""
    from click.testing import CliRunner
    from culteval.harness.cli.main import cli

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CULTEVAL_CACHE", str(tiny_cache))
    script = "".join(blocks("tutorial.md"))
    for name, text in re.findall(r"^cat > (\S+) <<'END'\n(.*?)^END\n", script, re.MULTILINE | re.DOTALL):
        Path(name).write_text(text)
    shown = {}
    for line in re.sub(r"^cat > .*?^END\n", "", script, flags=re.MULTILINE | re.DOTALL).splitlines():
        program, *words = (found for word in shlex.split(line) for found in (glob.glob(word) or [word]))
        assert program == "culteval"
        done = CliRunner().invoke(cli, words, env={"COLUMNS": "150"})
        assert done.exception is None, f"{line}: {done.exception!r}"
        shown[line] = done.output
    runs, board = sorted(Path("culteval-runs").glob("*/scores.json")), shown["culteval leaderboard show culteval-runs"]
    assert len(runs) == 6  # naive, icl and gd by hand; of the sweep's four, one was there
    assert all(word in board for word in ("Germany", "Saudi Arabia", "gd", "random_prefix", "constant"))
    assert "4 waiting" in shown["culteval sweep grid.yaml --out culteval-runs --dry-run"]
    assert "1 skipped" in shown["culteval sweep grid.yaml --out culteval-runs"]
    assert (
        Path("board/index.html").is_file()
        and "6 submissions" in shown["culteval leaderboard build culteval-runs --out board"]
    )
    table = shown["culteval leaderboard export culteval-runs --format md --country Germany"]
    assert "Germany" in table and "Saudi" not in table and "| random\\_prefix" in table


@pytest.mark.slow
def test_the_tutorial_s_commands_run_as_they_stand(tmp_path):
    from culteval.harness.models.embedded import fetch
    from culteval.harness.runs.config import DEFAULT_MODEL

    (tmp_path / "cache").mkdir()  # of answers empty, and in use as a reader's is
    (tmp_path / "cache" / "models").symlink_to(fetch(DEFAULT_MODEL).parent, target_is_directory=True)
    environment = {name: value for name, value in os.environ.items() if name != "CULTEVAL_NO_CACHE"}
    environment |= {"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin", "COLUMNS": "150"}
    environment |= {"CULTEVAL_CACHE": str(tmp_path / "cache")}
    command = ["bash", "-euo", "pipefail", "-c", "\n".join(blocks("tutorial.md"))]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "Saudi Arabia rest on estimates" in done.stdout and "3 done" in done.stdout


@pytest.mark.slow
def test_the_walk_through_shows_what_its_commands_print(tmp_path, monkeypatch):
    from culteval.harness.models.embedded import fetch

    from benchmarks import documents

    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "models").symlink_to(fetch("smollm2").parent, target_is_directory=True)
    monkeypatch.setenv("CULTEVAL_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("CULTEVAL_NO_CACHE", raising=False)
    text = (ROOT / "docs" / "walk-through.md").read_text(encoding="utf-8")
    assert len(documents.RUN.findall(text)) == 5
    assert words_of(documents.run_again(text)) == words_of(text)


def words_of(text):
    """A text without its numbers, bars and spaces, which differ between processors."""
    return re.sub(r"[^A-Za-z]+", " ", re.sub(r"\b[0-9a-f]{10}\b", "", text)).split()


def test_commands_of_a_document_run_in_one_folder():
    from benchmarks import documents

    made = documents.run_again(
        "<!-- run: culteval task new mine -->\n<!-- end -->\n"
        "<!-- run: culteval task validate m*/*.yaml -->\n<!-- end -->\n"
    )
    assert "```sh\nculteval task new mine\n```\n\n```text\nmine: written." in made and "m*/*.yaml\n```" in made
    assert "mine/mine.yaml: valid" in made and "/tmp" not in made
    assert documents.run_again(made) == made
    with pytest.raises(documents.InputError, match="only commands of culteval"):
        documents.run_again("<!-- run: rm -r x -->\n<!-- end -->")
    with pytest.raises(documents.InputError, match="culteval task validate nowhere"):
        documents.run_again("<!-- run: culteval task validate nowhere.yaml -->\n<!-- end -->")


@pytest.mark.parametrize(
    ("guide", "file"),
    [
        ("writing-an-aligner", "es/culteval_es/__init__.py"),
        ("writing-a-model", "untaught/culteval_untaught/__init__.py"),
    ],
)
def test_guides_show_the_examples_as_they_are(guide, file):
    code = (ROOT / "examples" / file).read_text(encoding="utf-8")
    assert f"```python\n{code}```" in (ROOT / "docs" / f"{guide}.md").read_text(encoding="utf-8")


def test_the_paper_s_table_is_planned_without_a_model():
    from culteval.harness.sweeps.grid import cells, read_grid
    from culteval.optimizers.de import DESettings
    from culteval.tasks.spec import read_yaml

    path = ROOT / "benchmarks" / "llama3-8b.yaml"
    configs = [cell.config for cell in cells(read_grid(path), path)]
    assert len(configs) == 48 and {config.device for config in configs} == {"cuda"}
    assert {config.country for config in configs} == {"SA", "US", "CN", "IN"}
    assert {config.options.constants for config in configs} == {"zero"}
    paper = read_yaml(ROOT / "optimizers" / "configs" / "de-paper.yaml")
    de = [config.settings for config in configs if config.aligner == "de"]
    assert len(de) == 12 and all(settings == DESettings(**paper).model_dump(mode="json") for settings in de)
    fitted = {config.aligner: (config.fit, config.scoring) for config in configs}
    assert fitted["gd"] == (("synthetic_survey",), "expected") and fitted["de"] == (("vsm13",), "argmax")


@pytest.mark.parametrize(("name", "runs"), [("aligners", 164), ("strongest", 10), ("argmax", 6)])
def test_sweeps_behind_the_results_are_planned_without_a_model(name, runs):
    from culteval.harness.sweeps.grid import cells, read_grid

    path = ROOT / "benchmarks" / f"{name}.yaml"
    assert len(cells(read_grid(path), path)) == runs


def test_the_form_for_argmax_is_the_shipped_one():
    from culteval.tasks.spec import read_yaml

    (arm,) = read_yaml(ROOT / "benchmarks" / "argmax.yaml")["aligners"]
    assert arm["settings"] == read_yaml(ROOT / "optimizers" / "configs" / "gd-labels.yaml")


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The documents as a site, built as strictly as mkdocs can."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "-f", str(ROOT / "mkdocs.yml"), "-d", str(folder)]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


def test_the_site_loads_nothing_from_another_host(site):
    pages = sorted(site.rglob("*.html"))
    assert len(pages) > 40
    loads = re.compile(
        r"<(?:script|img|iframe|source|video|audio|embed|object)\b[^>]*?\b(?:src|data)\s*=\s*[\"']?([^\"'\s>]+)"
    )
    linked = re.compile(r"<link\b(?![^>]*rel=[\"']?canonical)[^>]*?href\s*=\s*[\"']?([^\"'\s>]+)")
    for page in pages:
        text = page.read_text(encoding="utf-8")
        found = loads.findall(text) + linked.findall(text)
        assert found and not [target for target in found if re.match(r"(?:[a-z]+:)?//", target)], page
    for sheet in site.rglob("*.css"):
        assert not re.search(r"(?:url\(|@import)\s*[\"']?(?:https?:)?//", sheet.read_text(encoding="utf-8")), sheet


def test_the_site_has_the_reference(site):
    python = (site / "reference" / "python.html").read_text(encoding="utf-8")
    names = ("Aligner.align", "Objective.loss", "Search.ask", "Measure.score", "Score", "Manifest", "AnswerRow")
    anchors = set(re.findall(r'id="(culteval[\w.]+)"', python))
    assert all(any(anchor.endswith(f".{name}") for anchor in anchors) for name in names)
    shell = (site / "reference" / "cli.html").read_text(encoding="utf-8")
    from culteval.harness.cli.main import _COMMANDS

    assert all(f"culteval {name}" in shell for name in _COMMANDS) and "--dry-run" in shell


def test_the_settings_of_every_aligner_are_in_the_reference():
    from culteval.harness.alignment.aligner import Settings
    from culteval.harness.registry import find, table

    text = (ROOT / "docs" / "reference" / "python.md").read_text(encoding="utf-8")
    for name in table("aligners"):
        settings = find("aligners", name).Settings
        if settings is not Settings and settings.__module__.startswith("culteval."):  # a plug-in has its own pages
            assert f"::: {settings.__module__}.{settings.__name__}\n" in text, name
