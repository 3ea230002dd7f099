"""``culteval report``: one page on one model that loads nothing, says what it cannot conclude, and believes no text."""

import html
import json
import re
import shutil

import numpy as np
import pytest
from click.testing import CliRunner
from culteval.errors import InputError, UsageError
from culteval.harness.scoring.submission import load_submission
from culteval.leaderboards.report import MOST_ITEMS, report, report_command
from culteval.tasks.measure import measure_of

from ..board_files import EVIL, write
from ..browsing import needs_chromium
from ..published import RESULTS


@pytest.fixture(scope="module")
def published():
    """Three published runs of one model and country."""
    names = ("naive-10876f62bc", "icl-2a69e640be", "augmented-*")
    return [sorted(RESULTS.glob(f"vsm13-US-{name}"))[0] for name in names]


@pytest.fixture(scope="module")
def page(published):
    return report(published)


def text_of(page):
    """The words of a page, without its styles and tags."""
    body = re.sub(r"<style>.*?</style>", "", page, flags=re.DOTALL)
    return html.unescape(re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", body)))


def test_numbers_are_the_scores(page, published):
    text = text_of(page)
    for run in published:
        scores = {(s.task, s.metric, s.scoring, s.split): s for s in load_submission(run).score()}
        assert f" {scores['vsm13', 'loss', 'expected', 'heldout'].value:,.0f} " in text
        accuracy = scores["culture_core", "accuracy", "argmax", "heldout"]
        assert f" {accuracy.value:.3f} {accuracy.low:.3f} to {accuracy.high:.3f} " in text
        assert f" {scores['vsm13', 'loss_paraphrase_spread', 'expected', 'heldout'].value:,.0f} " in text
    assert "Power distance published 40; naive 56; icl 58; augmented 65" in text  # 40: Hofstede's of the United States
    assert " 7,200 " in text  # item forwards: 300 evaluations of 24 items


def test_items_are_ordered_by_total_variation(page, published):
    text = text_of(page)
    part = text.partition("wvs, United States, naive (44 items)")[2].partition("wvs, United States, icl")[0]
    submission = load_submission(published[0])
    spec, asked = submission.cache.spec("wvs"), submission.manifest.task("wvs")
    measure = measure_of(spec, "US", asked.options)
    answers, distances = submission.answers["wvs"], {}
    layout = answers.layout
    held = layout.where(("C", "D"), ("natural", "reversed"))
    for number, item in enumerate(layout.items):
        rows = held & (layout.item == number)
        model, codes = answers.probs[0, rows].mean(0), layout.codes[rows][0]
        shares = {}
        for code, share in zip(codes.astype(int)[: layout.widths[rows][0]], model, strict=False):
            code = {1: 2, 5: 4}.get(code, code) if item in ("Q33", "Q34", "Q35") else code  # asked in three points
            shares[code] = shares.get(code, 0) + share
        people = measure.reference.shares[item]
        distances[item] = sum(abs(people.get(c, 0) - shares.get(c, 0)) for c in {*people, *shares}) / 2
    values = np.sort(list(distances.values()))
    wanted = [*values[:MOST_ITEMS], *values[-MOST_ITEMS:][::-1]]
    assert re.findall(r" (0\.\d\d) ", part) == [f"{value:.2f}" for value in wanted]


def test_what_cannot_be_concluded_follows_from_the_scores(page):
    limits = text_of(page).partition(" What cannot be concluded ")[2].rpartition("What the tasks measure")[0]
    said = limits.rpartition(" What cannot be concluded ")[2]
    assert re.search(r"Not better than answers without knowledge.*vsm13, United States \(naive, icl\); wvs", said)
    assert re.search(r"No valid interval of the headline.*vsm13, United States; wvs, United States; probes", said)
    assert re.search(r"point estimate only.*culture_core, United States \(naive, icl\)", said)
    assert "parity with the literature" in text_of(page)  # what the task says of itself


def test_a_better_point_is_not_called_better(page):
    """0.300 of a baseline's 0.250, between 0.198 and 0.427."""
    row = re.search(r"<tr><th scope=\"row\">naive</th><td class=\"number\"><b>0\.300</b>.*?</tr>", page)[0]
    assert "point estimate only" in row and "every baseline" not in row


def test_the_page_loads_nothing(page):
    assert "<script" not in page and "http://" not in page and "https://" not in page
    assert re.findall(r"""(?:src|href)="([^#"][^"]{0,5})""", page) == ["data:,"]
    assert "default-src 'none'" in page


def test_what_submissions_say_is_text(tmp_path):
    runs = [write(tmp_path, "a", model=EVIL, aligner=EVIL), write(tmp_path, "b", model=EVIL, task="wvs", country="DE")]
    page = report(runs)
    assert EVIL not in page and html.escape(EVIL) in page
    with pytest.raises(UsageError, match=r"ends in \.html"):
        told(*runs, "--out", tmp_path / "page.txt")
    assert told(*runs, "--out", tmp_path / "page.html") == f"open       {tmp_path / 'page.html'}\n"


def told(*words):
    done = CliRunner().invoke(report_command, list(map(str, words)))
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.output


def test_runs_of_one_aligner_are_told_apart(tmp_path):
    runs = [
        write(tmp_path, "a", seed=0, settings={"tokens": 10}),
        write(tmp_path, "b", seed=1, settings={"tokens": 10}),
        write(tmp_path, "c", seed=0, settings={"tokens": 20}),
        write(tmp_path, "d", seed=0, aligner="naive", settings={}),
    ]
    text = text_of(report(runs))
    for name in ("de, tokens=10, seed 0", "de, tokens=10, seed 1", "de, tokens=20", "naive"):
        assert f" {name} " in text


def test_runs_with_other_references_are_not_compared(tmp_path):
    """Other constants and editions are other boards: here they have tables and panels of their own."""
    usual = write(tmp_path, "usual", country="US", aligner="naive")
    manifest = (usual / "manifest.json").read_text()
    for name, task in {"zero": {"constants": "zero"}, "older": {"edition": "2015"}}.items():
        data = json.loads(manifest)
        data["tasks"][0] |= task
        shutil.copytree(usual, tmp_path / name)
        (tmp_path / name / "manifest.json").write_text(json.dumps(data))
    page = report([tmp_path / name for name in ("usual", "zero", "older")])
    titles = re.findall(r"<caption>(vsm13, United States.*?)<small>", page)
    more = "vsm13, United States (edition {}, {} constants)".format
    assert titles == ["vsm13, United States", more("extended", "zero"), more("2015", "world")]
    tables = re.findall(r"<caption>vsm13, United States.*?</table>", page, flags=re.DOTALL)
    for name, title, table in zip(("usual", "zero", "older"), titles, tables, strict=True):
        scores = load_submission(tmp_path / name).score()
        (loss,) = (s.value for s in scores if (s.metric, s.scoring, s.split) == ("loss", "expected", "heldout"))
        assert table.count(">naive</th>") == 1 and f"<b>{loss:,.0f}</b>" in table
        panel = page[page.index(f"<h3>{title}</h3>") :].partition("<h3>")[2].partition("<h3>")[0]
        (index,) = (s.value for s in scores if (s.metric, s.scoring, s.split) == ("ivr", "expected", "heldout"))
        assert panel.count("; naive ") == 6 and f"; naive {index:.0f}</div>" in panel


def test_several_models_and_bad_submissions_are_refused(tmp_path):
    runs = [write(tmp_path, "a"), write(tmp_path, "b", model="another")]
    with pytest.raises(UsageError, match="one model; these are several: another r1, tiny-8B r1"):
        report(runs)
    (runs[0] / "manifest.json").write_text("{}")
    with pytest.raises(InputError):
        told(runs[0], "--out", tmp_path / "page.html")
    assert not (tmp_path / "page.html").exists()


@needs_chromium
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_it_is_seen_as_it_is_meant(browser, page, tmp_path, theme):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed")
    (tmp_path / "page.html").write_text(page, encoding="utf-8")
    context = browser.new_context(color_scheme=theme, viewport={"width": 400, "height": 900}, bypass_csp=True)
    shown, problems, asked = context.new_page(), [], []
    shown.on("console", lambda message: problems.append(message.text))
    shown.on("request", lambda request: asked.append(request.url))
    shown.goto(f"file://{tmp_path}/page.html")
    assert shown.evaluate("document.documentElement.scrollWidth") <= 400  # nothing hangs over on a phone
    paper = shown.evaluate("getComputedStyle(document.body).backgroundColor")
    assert paper == {"light": "rgb(253, 253, 252)", "dark": "rgb(20, 23, 26)"}[theme]
    assert asked == [f"file://{tmp_path}/page.html"] and problems == []
    found = axe.Axe().run(shown).response["violations"]
    assert [(one["id"], one["nodes"][0]["html"][:200]) for one in found] == []
    context.close()
