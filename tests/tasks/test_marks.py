"""Byte-order marks: whatever a person's editor puts before a text, it reads as without it."""

from __future__ import annotations

import codecs
import hashlib
import json

import numpy as np
import pytest
from culteval.errors import InputError
from culteval.harness.registry import spec_of
from culteval.harness.submissions.reader import read_submission
from culteval.tasks.answers import Answers
from culteval.tasks.metrics.reference import load_scores
from culteval.tasks.metrics.share_table import load_shares
from culteval.tasks.prompts import ProtocolOptions, render_protocol
from culteval.tasks.reading import read_csv, read_lines, read_text, read_unmarked, read_yaml

from ..submission_files import bytes_of, unpacked

MARKS = {
    "UTF-8": lambda text: codecs.BOM_UTF8 + text.encode(),
    "UTF-16 LE": lambda text: codecs.BOM_UTF16_LE + text.encode("utf-16-le"),
    "UTF-16 BE": lambda text: codecs.BOM_UTF16_BE + text.encode("utf-16-be"),
    "UTF-32": lambda text: text.encode("utf-32"),
}


@pytest.mark.parametrize("mark", MARKS)
def test_texts_yaml_and_tables(mark, tmp_path):
    path = tmp_path / "file.csv"

    def put(text):
        path.write_bytes(MARKS[mark](text))
        return path

    assert read_text(put("Grüße\n")) == "Grüße\n"
    assert read_yaml(put("a: [1, ü]\n")) == {"a": [1, "ü"]}
    assert read_csv(put("a,b\n1,ü\n"), ("a", "b")) == [{"a": "1", "b": "ü"}]
    assert load_shares(put("country,question,code,share\nSE,q,1,1\n")).of("SE") == {"q": {1: (1.0, 0)}}
    scores = load_scores(put("iso2,pdi,idv,mas,uai,lto,ivr,source\nSE,1,2,3,4,5,6,matrix-2015\n"), "2015")
    assert scores.target("SE").tolist() == [1, 2, 3, 4, 5, 6]


def test_lines_and_json(tmp_path):
    path = tmp_path / "file.jsonl"
    path.write_bytes(codecs.BOM_UTF8 + b'{"a": 1}\n\xef\xbb\xbf{}\n')
    assert list(read_lines(path, 100)) == [b'{"a": 1}\n', b"\xef\xbb\xbf{}\n"]  # it is a mark before the text alone
    assert next(iter(read_lines(path, 100, whole=True))).startswith(codecs.BOM_UTF8)
    path.write_bytes(codecs.BOM_UTF8 + b"[]")
    assert json.loads(read_unmarked(path)) == []


def test_a_task_all_of_whose_files_have_one(tmp_path, monkeypatch):
    from click.testing import CliRunner
    from culteval.harness.cli.main import cli

    monkeypatch.chdir(tmp_path)
    CliRunner().invoke(cli, ["task", "new", "mytask"])
    plain = render_protocol(spec_of("mytask"), ProtocolOptions()).texts
    for path in (tmp_path / "mytask").iterdir():
        path.write_bytes(codecs.BOM_UTF8 + path.read_bytes())
    assert render_protocol(spec_of("mytask"), ProtocolOptions()).texts == plain


def test_a_submission_from_elsewhere(tmp_path, submit):
    """Its sum is that of the file as it is, mark included."""
    layout = render_protocol(spec_of("wvs"), ProtocolOptions()).layout
    answers = Answers(layout, layout.inside[None] / layout.widths[None, :, None], np.zeros((1, len(layout))))
    folder = submit(tmp_path / "run", {"wvs": answers}, "DE", "naive", 0) / "submission"
    lines = codecs.BOM_UTF8 + bytes_of(unpacked(folder))
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["answers"]["sha256"] = hashlib.sha256(lines).hexdigest()
    (folder / "answers.jsonl").write_bytes(lines)
    (folder / "manifest.json").write_bytes(codecs.BOM_UTF8 + json.dumps(manifest).encode())
    _, found = read_submission(folder)
    assert found["wvs"].probs == pytest.approx(answers.probs, abs=1e-6)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"$FL2@(#) SPSS DATA FILE", "this is an SPSS file"),
        (b"%PDF-1.4", "this is a PDF"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1", "this is an Excel file"),
        (b"PAR1....", "this is a Parquet file"),
        (b"<!DOCTYPE html>", "this is a web page"),
        (b"a,b\n1,\xff\n", ":2: not UTF-8"),
    ],
)
def test_what_is_no_text_is_named(data, says, tmp_path):
    path = tmp_path / "file.csv"
    path.write_bytes(data)
    for read_it in (read_text, lambda path: read_csv(path, ("a",)), load_shares):
        with pytest.raises(InputError, match=says):
            read_it(path)
