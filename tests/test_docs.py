"""What the documents say is so."""

import json
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def test_exported_schema_is_the_code_s():
    from culteval.harness.submission import json_schema

    exported = json.loads((ROOT / "docs" / "submission.schema.json").read_text(encoding="utf-8"))
    assert exported == json_schema(), "run: python -m culteval.harness.submission > docs/submission.schema.json"


def test_exit_codes_in_the_documents():
    from culteval import errors

    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    kinds = (errors.CultevalError, errors.UsageError, errors.InputError, errors.UnavailableError, errors.RunError)
    for kind in kinds:
        assert f"\n| {kind.exit_code} | " in text


@pytest.mark.parametrize(
    "name",
    ["README.md", *(f"docs/{name}.md" for name in ("architecture", "submission", "aligners", "clca", "robustness"))],
)
def test_links_and_folders_exist(name):
    import re

    path = ROOT / name
    for target in re.findall(r"\]\(([^)#]+)\)", path.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (path.parent / target).exists(), target


def test_public_face_is_pinned():
    import culteval

    assert culteval.__all__ == ["CultevalError", "InputError", "RunError", "UnavailableError", "UsageError"]


def documented_commands():
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted(ROOT.glob("tasks/*/README.md"))):
        for line in path.read_text(encoding="utf-8").splitlines():
            if line.startswith("    culteval "):
                yield pytest.param(line.split("#")[0].split("  ")[2], id=f"{path.name}: {line.strip()[:60]}")


@pytest.mark.parametrize("line", documented_commands())
def test_documented_commands_parse(line):
    """Every flag in the documents exists; what they do is tested where they are."""
    import shlex

    from culteval.harness.cli import cli

    command, words = cli, shlex.split(line)[1:]
    context = cli.make_context("culteval", [], resilient_parsing=True)
    while words and hasattr(command, "get_command") and command.get_command(context, words[0]):
        command = command.get_command(context, words.pop(0))
    assert command is not cli
    command.make_context(command.name, words)
