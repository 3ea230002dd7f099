"""How the board's pages behave in Chromium, opened from disk without a network."""

from pathlib import Path
from urllib.parse import unquote

import pytest
from culteval.harness.registry import spec_of
from culteval.leaderboards.render import site

from ..board_files import EVIL, write
from ..browsing import needs_chromium


@pytest.fixture(scope="module")
def six_countries(tmp_path_factory):
    """Pages of one aligner aligned to six countries, which answers the same for all."""
    home = tmp_path_factory.mktemp("six")
    for code in ("BR", "CN", "DE", "IN", "JP", "US"):
        fitted = {"tasks": ["vsm13"], "country": code, "scoring": "expected", "norm": "sse"}
        write(home / "in", f"{EVIL[1:4]}-{code}", aligner=EVIL, country=code, fitted=fitted)
    site.build(home / "in", home / "out", pytest.fail)
    return home / "out"


def first_column(page, number=2):
    return [text.split("\n")[0] for text in page.locator(f"tbody tr td:nth-child({number})").all_inner_texts()]


@needs_chromium
def test_sorted_filtered_searched(visit):
    page = visit()
    names = first_column(page)
    assert len(names) == 7 and "constant" in names
    skills = [
        float(text.split("\n")[0].strip("*").replace("\u2212", "-"))
        for text in page.locator("td.main").all_inner_texts()
    ]
    assert skills == sorted(skills, reverse=True)
    heading = page.get_by_role("columnheader", name="Submission")
    heading.click()
    page.locator('th[aria-sort="ascending"]', has=page.get_by_text("Submission")).wait_for()
    assert (found := first_column(page)) != names and found == sorted(found, key=str.lower)
    heading.click()
    page.locator('th[aria-sort="descending"]', has=page.get_by_text("Submission")).wait_for()
    assert first_column(page) == found[::-1]
    page.select_option("#aligner", "naive")
    assert first_column(page) == ["naive seed 0"]
    page.select_option("#aligner", "")
    page.select_option("#mark", "verified")
    assert first_column(page) == ["de seed 1"] and "verified" in page.locator("tbody").inner_text()
    page.select_option("#mark", "")
    page.fill("#search", "500M")
    assert first_column(page) == ["gd seed 7"]
    page.fill("#search", "nothing like it")
    assert "No rows match" in page.locator("tbody").inner_text()


@needs_chromium
def test_filtered_by_size_model_and_budget(visit):
    page = visit()
    sizes, models, budgets = (page.locator(f"#{name} option").all_inner_texts() for name in ("size", "model", "budget"))
    assert sizes == ["all", "up to 500M", "up to 10B", "unknown"] and budgets == ["all", "up to 10", "up to 100"]
    page.select_option("#size", "up to 10B")
    assert sorted(first_column(page)) == ["de seed 0", "de seed 1", "de seed 2", "naive seed 0"]
    page.select_option("#aligner", "naive")
    assert first_column(page) == ["naive seed 0"]
    page.select_option("#aligner", "")
    page.select_option("#size", "unknown")
    assert first_column(page) == [f"{EVIL} seed 5"]
    page.select_option("#size", "up to 500M")
    page.select_option("#model", "other-500M")
    page.select_option("#budget", "up to 100")
    assert first_column(page) == ["gd seed 7"]
    page.select_option("#budget", "up to 10")
    assert "No rows match" in page.locator("tbody").inner_text()
    page.reload()
    page.wait_for_selector("tbody tr")
    assert page.input_value("#size") == "up to 500M" and "No rows match" in page.locator("tbody").inner_text()
    page.select_option("#size", "")
    page.select_option("#model", "tiny-8B")
    assert len(first_column(page)) == 4 and len(models) == 4


@needs_chromium
def test_boards_read_outs_splits_and_columns(visit):
    page = visit()
    before = page.locator("td.main").all_inner_texts()
    page.select_option("#split", "fit")
    assert page.locator("td.main").all_inner_texts() != before
    page.select_option("#scoring", "argmax")
    page.select_option("#task", "culture_core")
    assert (
        "cultural" in page.locator("h1").inner_text().lower()
        and "not a board of the suite" in page.locator("#ranking").inner_text()
    )
    assert "to" in page.locator("td.main small").first.inner_text()  # an interval, where one is owed
    heads = page.locator("thead th").count()
    page.locator("#columns summary").click()
    page.get_by_label("Seconds").check()
    assert page.locator("thead th").count() == heads + 1 and "time of fitting" in page.locator("#legend").inner_text()
    assert not page.get_by_label("Tokens").is_checked()
    page.get_by_label("Tokens").check()
    at = page.locator("thead th").all_inner_texts().index("Tokens") + 1
    assert "5" in first_column(page, at) and "tokens read" in page.locator("#legend").inner_text()
    for head in page.locator("thead th").all():
        assert head.get_attribute("title"), head.inner_text()
    page.reload()
    page.wait_for_selector("tbody tr")
    assert page.input_value("#task") == "culture_core"


@needs_chromium
@pytest.mark.parametrize(
    ("name", "chart"), [("de-0", "#radar svg"), ("wvs-a", "#chosen svg"), ("quiz-a", "#chosen svg")]
)
def test_a_submission(visit, name, chart):
    page = visit()
    task = {"d": "vsm13", "w": "wvs", "q": "culture_core"}[name[0]]
    page.select_option("#task", task)
    page.locator(f'a[href="submission.html#{name}"]').click()
    page.wait_for_selector(chart)
    text = page.locator("main").inner_text()
    for part in (
        name,
        "Repeat this run",
        "culteval run --aligner",
        spec_of(task).hash,
        "ab" * 32,
        "answers.jsonl",
        "r1",
    ):
        assert part in text, part
    assert page.locator(".item").count() > 15
    if task == "wvs":
        page.locator(".item button").nth(3).click()
        assert page.locator(".item .people").count() == 44
    for file in ("manifest", "answers"):
        assert Path(unquote(page.evaluate(f"document.getElementById('{file}').pathname"))).is_file()
    links = page.locator("#adapter a")
    assert links.count() == (3 if name == "de-0" else 0)
    for link in links.all():
        assert Path(unquote(link.evaluate("one => one.pathname"))).is_file()


@needs_chromium
def test_dark_by_system_and_by_switch(visit):
    page = visit(color_scheme="dark")
    colour = "getComputedStyle(document.body).backgroundColor"
    dark = page.evaluate(colour)
    page.locator("#theme").click()
    page.locator("#theme").click()
    light = page.evaluate(colour)
    assert dark != light and max(map(int, dark[4:-1].split(","))) < 60 < min(map(int, light[4:-1].split(",")))
    page.goto(page.url.replace("board.html", "submission.html").split("#")[0] + "#de-0")
    page.wait_for_selector("#standing .card")
    assert page.evaluate(colour) == light  # the choice is kept


@needs_chromium
@pytest.mark.parametrize(
    "address",
    [
        "index.html",
        "about.html#model=tiny-8B+float32",
        "about.html#aligner=de",
        "board.html",
        "submission.html#de-0",
        "submission.html#wvs-a",
        "submission.html#hostile",
    ],
)
def test_narrow(visit, address):
    page = visit(address, viewport={"width": 390, "height": 844})
    page.wait_for_timeout(600 if "#" in address else 0)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


@needs_chromium
@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("address", ["index.html", "board.html"])
def test_the_table_needs_no_scrolling_to_the_side(visit, width, address):
    page = visit(address, viewport={"width": width, "height": 900})
    assert "seeds " in page.locator("tbody").inner_text()  # ranges, the widest of what stands in a row
    assert page.evaluate("(box => box.scrollWidth - box.clientWidth)(document.querySelector('.board'))") <= 0


@needs_chromium
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(
    "address",
    ["index.html", "about.html#aligner=de", "board.html", "submission.html#wvs-a", "submission.html#de-1"],
)
def test_axe_finds_nothing(visit, address, scheme):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed")
    page = visit(address, color_scheme=scheme)
    if address == "index.html":
        page.locator("button.fold").first.click()
        page.wait_for_selector("td.folded tbody tr")
    if address.startswith("submission"):
        page.wait_for_selector("svg.main-svg")
    found = axe.Axe().run(page, options={"preload": False}).response["violations"]
    assert [(each["id"], each["nodes"][0]["html"][:200]) for each in found] == []


@needs_chromium
def test_the_headline_between_countries(visit, six_countries):
    """Whatever country is looked at; from what the build keeps of each submission."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed")
    page = visit(home=six_countries)
    for code in ("DE", "US"):
        page.select_option("#country", label={"DE": "Germany", "US": "United States"}[code])
        row = page.locator("#sets tbody tr")
        assert row.locator("th").inner_text() == f"{EVIL} s0"
        assert row.locator("td").all_inner_texts()[:3] == ["6", "0.00", "-"]  # no differences: no correlation
    assert page.evaluate("window.hit") is None
    assert [each["id"] for each in axe.Axe().run(page, options={"preload": False}).response["violations"]] == []
    assert not visit().locator("#sets table").count()  # one country: no table, a line that says how many it needs


@needs_chromium
def test_by_keyboard(visit):
    page = visit()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.get_by_role("columnheader", name="Submission").locator("[tabindex]").first.focus()
    page.keyboard.press("Enter")
    page.wait_for_selector('th[aria-sort="ascending"]:has-text("Submission")')
    names = first_column(page)
    assert names == sorted(names, key=str.lower)


@needs_chromium
def test_a_hostile_submission_is_inert(visit):
    page = visit()
    assert EVIL in page.locator("tbody").inner_text()
    page.locator('a[href="submission.html#hostile"]').click()
    page.wait_for_selector("svg.main-svg")
    text = page.locator("main").inner_text()
    assert EVIL in text and "</script><script>window.hit=1</script>" in text and "\u202e" not in text
    assert page.evaluate("window.hit") is None and page.locator("main img").count() == 0
    assert page.locator('a[href^="javascript"]').count() == 0


@needs_chromium
@pytest.mark.parametrize(
    "address", ["submission.html#nobody", "submission.html#../nobody", "submission.html#nobody%3Cimg%20src=x%3E"]
)
def test_a_submission_that_is_not_there(visit, address):
    page = visit(address)
    assert "No such submission" in page.locator("#empty").inner_text()


@pytest.fixture(scope="module")
def mapped(tmp_path_factory):
    """Pages of the cultural map: a model unaligned and aligned, another model, and hostile names."""
    home = tmp_path_factory.mktemp("mapped")
    write(home / "in", "bare", task="iw_map", aligner="naive")
    for seed in range(18):
        write(home / "in", f"icl-{seed}", task="iw_map", aligner="icl", seed=seed)
    write(home / "in", "other", task="iw_map", aligner="icl", model="other-500M")
    write(home / "in", "hostile", task="iw_map", aligner=EVIL, seed=99)
    site.build(home / "in", home / "out", pytest.fail)
    return home / "out"


@needs_chromium
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_cultural_map_is_drawn_filtered_and_told(visit, mapped, scheme):
    page = visit(home=mapped, color_scheme=scheme)
    assert page.locator("#map .canvas .zone").count() == 110
    assert page.locator("#map .point").count() == 22 and page.locator("#map .point.null").count() == 1
    assert page.locator("#map .point.bare").count() == 1
    assert 12 <= page.locator("#map .arrow").count() <= 19  # none where both points touch
    names = page.locator("#map .canvas .name").all_text_contents()
    assert len(names) == 22 and any(name.startswith(EVIL[:30]) for name in names)
    overlapping = page.evaluate("""() => {
        const boxes = [...document.querySelectorAll("#map .canvas .name, #map .canvas .country")]
          .map((t) => t.getBBox());
        return boxes.flatMap((a, i) => boxes.slice(i + 1).filter((b) => a.x < b.x + b.width && b.x < a.x + a.width
          && a.y + 2 < b.y + b.height && b.y + 2 < a.y + a.height)).length;
    }""")
    assert overlapping == 0
    paper, dot = (page.evaluate(f"getComputedStyle(document.querySelector('{what}')).{field}") for what, field in
                  (("body", "backgroundColor"), ("#map .canvas .z6", "fill")))  # fmt: skip
    assert (paper, dot) == {"light": ("rgb(253, 253, 252)", "rgb(0, 114, 178)"),
                            "dark": ("rgb(20, 23, 26)", "rgb(74, 147, 221)")}[scheme]  # fmt: skip
    page.locator("#map .point.bare").hover()
    told = page.locator("#map .hint").inner_text()
    assert told.startswith("unaligned, tiny-8B") and "distance to Saudi Arabia" in told and "nearest: " in told
    page.select_option("#model", "other-500M")
    assert page.locator("#map .point").count() == 2 and page.locator("#map .arrow").count() == 0
    page.locator("#map .zones button").first.click()
    assert page.locator("#map .canvas .z0").count() == 0 and page.locator("#map .canvas .zone").count() == 110 - 34
    assert page.evaluate("window.hit") is None
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed")
    found = axe.Axe().run(page, options={"preload": False}).response["violations"]
    assert [(each["id"], each["nodes"][0]["html"][:200]) for each in found] == []


@needs_chromium
def test_other_tasks_have_no_map(visit):
    page = visit()
    assert not page.locator("#map").is_visible()
    assert "maps" not in page.evaluate("Object.keys(culteval.boards)")
