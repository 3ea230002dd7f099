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


@pytest.mark.parametrize("name", ["README.md", "docs/architecture.md", "docs/submission.md"])
def test_links_and_folders_exist(name):
    import re

    path = ROOT / name
    for target in re.findall(r"\]\(([^)#]+)\)", path.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (path.parent / target).exists(), target


def test_public_face_is_pinned():
    import culteval

    assert culteval.__all__ == ["CultevalError", "InputError", "RunError", "UnavailableError", "UsageError"]
