"""Tables and figures for papers: csv, latex, markdown, pictures, bold; and the commands ``export`` and ``build``."""

import csv
import io
import json
import shutil

import numpy as np
import pytest
from culteval.errors import UsageError
from culteval.harness.registry import spec_of
from culteval.harness.report.plots import write_distances
from culteval.harness.scoring.score import TaskCache
from culteval.harness.scoring.submission import load_submission
from culteval.harness.submissions.reader import read_submission
from culteval.harness.submissions.writer import write_submission
from culteval.leaderboards import boards as rank
from culteval.leaderboards import entries as collect
from culteval.leaderboards.answer_reader import AnswerReader
from culteval.leaderboards.render import records, tables
from culteval.leaderboards.render.figure import _name_lines
from culteval.leaderboards.significance import proven
from culteval.leaderboards.suite import read_suite
from culteval.tasks.answers import Answers
from matplotlib.figure import Figure

from ..board_files import write
from ..command import invoked


def board_of(home):
    """The only board of a folder; nothing may be left out."""
    (board,) = rank.boards(collect.entries(home, pytest.fail), TaskCache(), read_suite())
    return board


def quiz(home, name, share, seed):
    """Answers to the quiz, right on the given share of its questions and wrong on the others."""
    spec = spec_of("culture_core")
    path = write(home, name, task="culture_core", aligner=name, seed=seed)
    manifest, given = read_submission(path)
    layout, rng = given["culture_core"].layout, np.random.default_rng(seed)
    knows = rng.random(len(layout.items)) < share
    right = np.array([question.right[0] - 1 for question in spec.items.questions])
    chosen = np.where(knows, right, (right + 1) % 4)[layout.item]
    probs = np.where(np.arange(layout.codes.shape[1]) == chosen[:, None], 0.94, 0.02)
    answers = Answers(layout, probs[None], given["culture_core"].off_options)
    shutil.rmtree(path)
    write_submission(path, manifest.model_dump(mode="json", exclude={"answers"}), {"culture_core": answers})


@pytest.mark.parametrize(("shares", "bold"), [((1.0, 0.1, 0.2), (0,)), ((1.0, 0.95, 0.1), ()), ((0.8,), ())])
def test_bold_is_what_paired_tests_support(tmp_path, shares, bold):
    """Twenty questions: all right against a fifth is no chance, against all but one it is."""
    for number, share in enumerate(shares):
        quiz(tmp_path, f"q{number}", share, number)
    board = board_of(tmp_path)
    assert proven(board, AnswerReader(TaskCache()), np.random.default_rng(0)) == bold
    text = call("export", tmp_path, "--format", "md")
    assert ("**q0**" in text, tables.BOLD_NOTE in text) == (bool(bold), bool(bold))


def call(*words):
    return invoked("leaderboard", *words).stdout


def test_csv_is_read_back_and_no_cell_is_a_formula(board_folder, tmp_path):
    write(tmp_path, "f", aligner="=1+1", model="@SUM(A1)")
    rows = list(csv.DictReader(io.StringIO(call("export", tmp_path, "--format", "csv"))))
    assert {row["aligner"] for row in rows if row["submission"]} == {"'=1+1"}
    assert rows[0]["kind"] == "overview" and rows[0]["model"] == "'@SUM(A1) float32"
    board = board_of(tmp_path)
    told = {(row["metric"], row["scoring"], row["split"]): float(row["value"]) for row in rows if row["submission"]}
    for column in tables.columns(board):
        found = column.find(board.standings[0].row.scores)
        assert told[column.metric, column.scoring, column.split] == found.value
    suites = {row["suite"] for row in json.loads(call("export", board_folder, "--format", "json"))}
    assert read_suite().version in suites
    own = [row for row in rows if not row["kind"].startswith("overview")]
    assert {(row["seconds"], row["tokens"]) for row in own} == {("2.5", "5"), ("", "")}  # rows of no aligner have none


@pytest.mark.parametrize("text", ["=1", "+1", "-1", "@x", "\t=1", "|x", "%0a"])
def test_csv_quotes_what_spreadsheets_calculate(text):
    assert records.csv_safe(text) == f"'{text}" and records.csv_safe("x" + text) == "x" + text


def test_latex_is_escaped_and_whole(board_folder):
    text = call("export", board_folder, "--format", "latex", "--task", "vsm13")
    assert text.count(r"\toprule") == text.count(r"\begin{tabular}") == text.count(r"\end{tabular}") == 3
    assert r"\label{tab:reported-vsm13}" in text and "arXiv:2503.16094" in text
    body = text[text.index(r"\midrule") : text.index(r"\bottomrule")]
    lines = [line for line in body.splitlines() if line.endswith(r"\\")]
    columns = text[text.index(r"\begin{tabular}{") :].split("{")[2].split("}")[0]
    assert all(line.replace(r"\&", "").count("&") == len(columns) - 1 for line in lines)
    assert r"\textless{}img src=x onerror=window.hit=1\textgreater{}" in text
    assert tables.latex_escape(r"\input{/etc/passwd}%$#_&~^") == (
        r"\textbackslash{}input\{/etc/passwd\}\%\$\#\_\&\textasciitilde{}\textasciicircum{}"
    )


def test_markdown_is_inert(board_folder):
    text = call("export", board_folder, "--format", "md")
    assert "<img" not in text and "&lt;img" in text and "**" not in text  # nothing is bold without a test


@pytest.mark.parametrize("form", ["png", "svg"])
def test_figures_are_the_same_bytes_twice(board_folder, tmp_path, form):
    for name in "ab":
        call("export", board_folder, "--format", form, "--task", "vsm13", "--out", tmp_path / f"{name}.{form}")
    first, second = ((tmp_path / f"{name}.{form}").read_bytes() for name in "ab")
    assert first == second and len(first) > 5000 and b"<img" not in first


def test_usage_of_export(board_folder):
    for words, text in [
        (("--format", "png"), "--out"),
        (("--format", "svg", "--out", "x.svg"), "--task"),
        (("--format", "md", "--task", "vsm14"), "vsm13"),
        (("--format", "md", "--country", "Germany"), "SA"),
    ]:
        with pytest.raises(UsageError, match=text):
            call("export", board_folder, *words)


def test_an_export_reads_each_answers_file_once(tmp_path, monkeypatch):
    """Four entries on one board and a control that serves others: tests and controls take what was read for scoring."""
    from culteval.leaderboards import answer_reader

    for number, share in enumerate((1.0, 0.1, 0.2, 0.3)):
        quiz(tmp_path, f"q{number}", share, number)
    for seed in (1, 2):
        write(tmp_path, f"prefix{seed}", task="culture_core", country="US", aligner="random_prefix", seed=seed)
    read = []

    def counted(path, *more):
        read.append(path.name)
        return load_submission(path, *more)

    for module in (collect, answer_reader):
        monkeypatch.setattr(module, "load_submission", counted)
    before = call("export", tmp_path, "--format", "md")
    assert sorted(read) == ["prefix1", "prefix2", "q0", "q1", "q2", "q3"]
    read.clear()
    monkeypatch.setattr(answer_reader.AnswerReader.__init__, "__defaults__", (0,))
    assert call("export", tmp_path, "--format", "md") == before  # without memory for them, they are read again
    assert len(read) > 6


def test_build_command(board_folder, tmp_path):
    told = json.loads(call("build", board_folder, "--out", tmp_path / "x", "--json"))
    assert told == {"submissions": 9, "boards": 3, "renewed": 9, "page": str(tmp_path / "x" / "index.html")}
    assert "0 read again" in call("build", board_folder, "--out", tmp_path / "x")


def test_names_of_reference_lines_stand_clear_of_one_another(board_folder, tmp_path):
    axes = Figure().subplots()
    axes.set_xlim(10, 0)  # better to the right, where less is better
    assert _name_lines(axes, {9.0: "constant", 8.9: "majority", 2.0: "world mean"}) == 2
    heights = {text.get_text(): text.xyann[1] for text in axes.texts}
    assert heights["constant"] == heights["world mean"] < heights["majority"]
    call("export", board_folder, "--format", "svg", "--task", "culture_core", "--out", tmp_path / "a.svg")
    assert ">constant, uniform</text>" in (tmp_path / "a.svg").read_text(encoding="utf-8")


def test_a_title_wider_than_its_picture_has_more_lines(tmp_path):
    title = "a name of a plug-in that is long, aligned to Saint Vincent and the Grenadines, against every country"
    write_distances(tmp_path / "a.svg", {"US": 1.0, "CN": 2.0}, "US", title, "distance")
    text = (tmp_path / "a.svg").read_text(encoding="utf-8")
    assert ">a name of a plug-in" in text and f">{title}" not in text
