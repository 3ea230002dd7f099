"""Pages in Chromium, opened from disk without a network."""

import pytest

from ..browsing import CHROMIUM, FLAGS


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
