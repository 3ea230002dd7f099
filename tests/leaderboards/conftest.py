"""Pages in Chromium, opened from disk without a network, and boards of a few runs of a tiny model."""

import shutil

import pytest

from ..browsing import CHROMIUM, FLAGS
from ..kept_boards import BASE, culteval


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with playwright.sync_playwright() as runner:
        opened = runner.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield opened
        opened.close()


@pytest.fixture
def visit(browser, board_pages):
    """``visit(address, **context)``: a page whose console must stay silent and that asks nobody for anything."""
    contexts, problems, asked, homes = [], [], [], []

    def go(address="board.html", home=board_pages, **options):
        context = browser.new_context(**({"viewport": {"width": 1280, "height": 900}} | options))
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: problems.append(message.text) if message.type in ("error", "warning") else 0)
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(f"file://{home}/{address}")
        homes.append(home)
        page.wait_for_selector("#empty:not([hidden])" if "nobody" in address else "tbody tr, #standing .card")
        return page

    yield go
    for context in contexts:
        context.close()
    assert problems == []
    assert asked and all(url.startswith((*(f"file://{home}/" for home in homes), "data:")) for url in asked), asked


@pytest.fixture(scope="session")
def kept_board(tiny, tmp_path_factory):
    """A board of three runs of one tiny model: left alone, behind a text, behind a soft prompt."""
    home = tmp_path_factory.mktemp("kept")
    for flags in (["naive"], ["icl"], ["random", "--set", "tokens=2", "--budget", 12]):
        code, _, error = culteval(*BASE, "--model", tiny(), "--out", home / "runs", "--aligner", *flags)
        assert code == 0, error
    code, out, error = culteval("leaderboard", "add", *sorted((home / "runs").iterdir()), "--to", home / "board")
    assert (code, len(out.split())) == (0, 3), error
    return home / "board"


@pytest.fixture
def board(kept_board, tmp_path):
    """A copy that a test may spoil."""
    shutil.copytree(kept_board, tmp_path / "board")
    return tmp_path / "board"


@pytest.fixture(scope="session")
def probed(tiny, tmp_path_factory):
    """A board of one run of the open questions, whose answers are texts."""
    home = tmp_path_factory.mktemp("probed")
    flags = ["--model", tiny(), "--out", home / "runs", "--aligner", "icl"]
    code, _, error = culteval("run", "--task", "probes", *BASE[3:], *flags)
    assert code == 0, error
    assert culteval("leaderboard", "add", *(home / "runs").iterdir(), "--to", home / "board")[0] == 0
    return home / "board"
