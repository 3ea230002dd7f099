"""The first page of the site, and pages of models and aligners: what they say, filter, unfold and escape."""

import json

import pytest
from culteval.leaderboards.leaderboard import leaderboard
from culteval.leaderboards.overview_builder import overview
from culteval.leaderboards.render import site

from ..board_files import EVIL, SPENT, data_of, write
from ..browsing import needs_chromium

CODES = ("BR", "CN", "DE", "IN", "JP", "US")
OTHER = "</script><script>window.hit=1</script>"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Two aligners and the unaligned model in six countries, two seeds, questionnaire and map; another model in two."""
    home = tmp_path_factory.mktemp("overview")
    for aligner, codes, model in (
        ("naive", CODES, "tiny-8B"), ("icl", CODES, "tiny-8B"), (EVIL, CODES[:2], "tiny-8B"), ("icl", CODES[:2], OTHER),
    ):  # fmt: skip
        for code in codes:
            for seed in (0, 1):
                for task in ("vsm13", "iw_map"):
                    name = f"{task}-{aligner.strip('<>')[:3]}-{len(model)}-{code}-{seed}"
                    own = {"fitted": {"tasks": ["vsm13"], "country": code, "scoring": "expected", "norm": "sse"}}
                    own |= {"budget": SPENT | {"seconds": 10.0 * seed}}
                    write(home / "in", name, task=task, country=code, aligner=aligner, seed=seed, model=model, **own)
    site.build(home / "in", home / "out", pytest.fail)
    return home


@pytest.fixture(scope="module")
def board(made):
    """The same folder as the commands read it."""
    return leaderboard(made / "in", warn=pytest.fail)


def names(page):
    return [
        text.replace("▸", "").split() for text in page.locator("#table > tbody > tr td:nth-child(2)").all_inner_texts()
    ]


def test_the_data_are_the_table_of_the_command(made, board):
    """Values, ranks and countries of the first view, and of other sets of countries, in files of their own."""
    data = data_of(made / "out" / "data" / "overview.js", "overview")
    assert [codes for codes, _ in data["scopes"]] == [list(CODES), list(CODES[:2]), *([code] for code in CODES)]
    tables = [data["table"], *(data_of(made / "out" / "data" / f"scope-{at}.js", "scope") for at in range(1, 8))]
    for (codes, _), table in zip(data["scopes"], tables, strict=True):
        found = overview(board.rows, board.answers.shelf, None if table is tables[0] else codes)
        assert len(found.rows) == len(table["rows"]) > 3
        for row, shown in zip(found.rows, table["rows"], strict=True):
            for cell, short in zip(row.cells, shown["cells"], strict=True):
                assert short["v"] == (None if cell.value is None else pytest.approx(cell.value, rel=1e-5))
                assert (short.get("rank"), short.get("in", [])) == (cell.rank, list(cell.countries))
    assert "seeds" not in json.dumps(data["table"]["rows"][0].get("submissions", []))
    assert data["maps"] and data["table"]["rows"][0]["points"]


def test_without_answers_to_the_map_there_is_none(board_pages):
    data = data_of(board_pages / "data" / "overview.js", "overview")
    assert data["maps"] == {} and not any("points" in row for row in data["table"]["rows"])


@needs_chromium
def test_the_first_screen_answers(visit, made, board):
    """Which aligner, which model, how near, beyond chance or not, at what cost."""
    page = visit("index.html", home=made / "out")
    said = page.locator("#answer").inner_text()
    table = board.overview()
    best = min((row for row in table.rows if row.cells[table.main].rank), key=lambda row: -row.cells[table.main].value)
    who = best.configuration
    for part in (who.aligner, who.model, f"{abs(best.cells[table.main].value):.2f}", "seeds ", "6 countries",
                 "better than every baseline and random prefixes", "10 survey evaluations", "5 s"):  # fmt: skip
        assert part in said, (part, said)
    partial = page.locator("#table > tbody > tr", has_text=OTHER)
    assert "2 of 6 countries" in partial.inner_text() and partial.locator(".rank").inner_text() == "–"
    assert page.locator("#map .point.bare").count() == 1 and page.locator("#map .arrow").count() > 2


@needs_chromium
def test_filters_and_sets_of_countries(visit, made):
    page = visit("index.html", home=made / "out")
    page.select_option("#aligner", "icl")
    assert [words[0] for words in names(page)] == ["icl", "icl"]
    page.select_option("#model", "tiny-8B float32")
    assert len(names(page)) == 1 and "index.html#" in page.url
    page.select_option("#aligner", "")
    page.select_option("#model", "")
    page.select_option("#country", label="only 2: BR, CN")
    page.wait_for_function("() => document.querySelector('#caption').textContent.includes('only 2')")
    assert not page.locator("#table .partial").count()
    assert "–" not in page.locator("#table > tbody > tr:not(.baseline) .rank").all_inner_texts()
    page.select_option("#task", label="iw_map: cultural distance ↓")
    assert "Best by iw_map" in page.locator("#answer").inner_text()
    page.reload()
    page.wait_for_selector("tbody tr")
    page.wait_for_function("() => document.querySelector('#answer').textContent.includes('iw_map')")
    assert page.locator("#country option:checked").inner_text() == "only 2: BR, CN"
    page.select_option("#country", label="Brazil")
    page.wait_for_function("() => document.querySelector('#caption').textContent.includes('Brazil')")
    assert page.locator("#map circle.own").count() == 1


@needs_chromium
def test_seeds_unfold_by_keyboard_and_lead_to_submissions_tasks_and_countries(visit, made):
    page = visit("index.html", home=made / "out")
    page.select_option("#aligner", "icl")
    page.select_option("#model", "tiny-8B float32")
    page.locator("button.fold").focus()
    page.keyboard.press("Enter")
    page.wait_for_selector("td.folded")
    assert page.locator("button.fold").get_attribute("aria-expanded") == "true"
    assert page.locator("td.folded tbody th").all_inner_texts() == ["0", "1"]
    link = page.locator("td.folded tbody a").first
    assert link.inner_text() in CODES and link.get_attribute("href").startswith("submission.html#")
    page.keyboard.press("Enter")
    assert not page.locator("td.folded").count()
    page.keyboard.press("Enter")
    page.get_by_role("link", name="Germany").click()
    page.locator("h1", has_text="Germany").wait_for()
    page.wait_for_selector("#table tbody tr td")
    assert page.input_value("#aligner") == "icl"
    page.go_back()
    page.wait_for_selector("td.main a")
    page.locator("td.main a").first.click()
    page.wait_for_selector("#construct:not(:empty)")
    assert "board.html#task=vsm13" in page.url


@needs_chromium
def test_pages_of_models_and_aligners(visit, made, board):
    page = visit("index.html", home=made / "out")
    page.get_by_role("link", name="icl", exact=True).first.click()
    page.get_by_role("heading", name="icl", exact=True, level=1).wait_for()
    page.wait_for_selector("#table tbody tr")
    text = page.locator("main").inner_text()
    for part in ("weights", "limits", "Where it helps", "Where it costs", "10 survey evaluations", OTHER):
        assert part in text, part
    effects = {row.cells[at].effect for row in board.overview().rows
               if row.configuration.aligner == "icl" for at in range(len(row.cells))}  # fmt: skip
    assert ("Nowhere beyond its range" in page.locator("#helps").inner_text()) == ("helps" not in effects)
    page.get_by_role("link", name="tiny-8B float32").first.click()
    page.get_by_role("heading", name="tiny-8B float32", exact=True, level=1).wait_for()
    page.wait_for_selector("#table tbody tr")
    text = page.locator("main").inner_text()
    assert "8B" in text and "r1" in text and EVIL in text and "naive" in text
    page.goto(page.url.split("#")[0] + "#aligner=nobody")
    page.wait_for_selector("#empty:not([hidden])")


@needs_chromium
def test_hostile_names_stay_text(visit, made):
    page = visit("index.html", home=made / "out")
    assert EVIL in page.locator("#table").inner_text() and OTHER in page.locator("#table").inner_text()
    row = page.locator("#table > tbody > tr", has_text=EVIL)
    row.locator("button.fold").click()
    page.wait_for_selector("td.folded")
    row.get_by_role("link", name=EVIL).click()
    page.locator("#title").wait_for()
    page.wait_for_selector("#table tbody tr")
    assert page.locator("h1").inner_text() == EVIL and "no method card" in page.locator("#what").inner_text()
    assert page.evaluate("window.hit") is None and page.locator("main img").count() == 0


@needs_chromium
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(
    ("width", "address"), [(1800, "index.html"), (390, "index.html"), (390, "about.html#model=tiny-8B+float32")]
)
def test_map_and_seeds_are_accessible_and_fit(visit, made, scheme, width, address):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed")
    page = visit(address, home=made / "out", color_scheme=scheme, viewport={"width": width, "height": 900})
    if address == "index.html":
        page.locator("button.fold").first.click()
        page.wait_for_selector("td.folded")
        table, drawing = (page.locator(what).bounding_box() for what in ("#board", "#map .canvas"))
        assert (drawing["x"] > table["x"] + 600) == (width == 1800)  # beside the table, or below it
        assert page.evaluate("(box => box.scrollWidth - box.clientWidth)(document.querySelector('#board'))") <= 0
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    found = axe.Axe().run(page, options={"preload": False}).response["violations"]
    assert [(each["id"], each["nodes"][0]["html"][:200]) for each in found] == []
