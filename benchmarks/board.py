"""A board with many submissions: time to score one, to build, renew and check, to open and sort the site in Chromium.

A separate program, ``python -m benchmarks.board``, with synthetic submissions and no model. Figures depend on the
machine; the notes in README.md name other load.
"""

from __future__ import annotations

import json
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import click
import numpy as np
from culteval.harness.registry import spec_of
from culteval.harness.scoring.submission import load_submission
from culteval.harness.submissions.manifest import MANIFEST
from culteval.harness.submissions.writer import write_submission
from culteval.leaderboards.publish import published_name
from culteval.tasks.answers import Answers
from culteval.tasks.prompts import ProtocolOptions, layout_of, split_items

FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip
ALIGNERS = ("de", "gd", "cma", "pso", "icl", "naive")
SEARCHES = ("de", "gd", "cma", "pso")
MODELS = ("smollm2", "Llama-3.1-8B-Instruct", "Qwen2.5-7B", "gemma-3-1b-it")
VIEW = """Math.max(
  performance.timing.loadEventEnd - performance.timing.navigationStart,
  performance.getEntriesByName("first-contentful-paint")[0].startTime)"""
SORT = """(column) => new Promise((done) => {
  const start = performance.now(), table = culteval.table();
  table.one("draw", () => { document.body.offsetHeight; done(performance.now() - start); });
  table.column(column).header().click();
})"""
TARGETS = {"build": 60.0, "renew": 3.0, "check": 3.0, "memory": 2048.0, "view": 1.0, "sort": 0.1, "score": 1.0}


def submit(folder: Path, number: int, tasks: dict[str, str], people: int = 0) -> Path:
    """Write the entry of one synthetic submission: random answers to one of the tasks, in rotation."""
    name, country = list(tasks.items())[number % len(tasks)]
    spec, rng = spec_of(name), np.random.default_rng(number)
    layout = layout_of(spec, ProtocolOptions(people))
    probs = rng.gamma(0.5, size=(1, *layout.codes.shape)) * layout.inside + 1e-9 * layout.inside
    answers = Answers(layout, probs / probs.sum(-1, keepdims=True), np.full((1, len(layout)), 0.1))
    aligner, model = ALIGNERS[number % len(ALIGNERS)], MODELS[number // 7 % len(MODELS)]
    surveys = 1 + number % 2000 if aligner in SEARCHES else 0
    forwards = surveys * len(split_items(spec, "fit", ProtocolOptions()))
    manifest: dict[str, Any] = {
        "tasks": [{"name": name, "hash": spec.hash, "country": country, "personas": people}],
        "model": {"name": model, "revision": "r", "dtype": "float32", "device": "cpu", "threads": 1,
                  "chat_template": None, "forward": "fused"},
        "aligner": {"name": aligner, "settings": {}, "adapter_sha256": None},
        "fitted": {"tasks": [name], "country": country, "scoring": spec.default_scoring, "norm": "sse"},
        "country": country, "seed": number, "versions": {}, "command": "",
        "budget": {"item_forwards_allowed": forwards, "item_forwards": forwards, "survey_evaluations": surveys,
                   "tokens": 0, "seconds": 0},
    }  # fmt: skip
    path = folder / "new"
    written = write_submission(path, manifest, {name: answers})
    return path.rename(folder / published_name(written, (path / MANIFEST).read_bytes()))


def scored(people: int, repeats: int) -> float:
    """Measure the median wall-clock seconds for reading a submission to vsm13 and scoring it with intervals."""
    with tempfile.TemporaryDirectory() as temporary:
        path, found = submit(Path(temporary), 0, {"vsm13": "US"}, people), []
        for _ in range(repeats + 1):
            start = time.perf_counter()
            load_submission(path).score()
            found.append(time.perf_counter() - start)
    return statistics.median(found[1:])


def timed(*arguments: str | Path) -> dict[str, float]:
    """Measure wall-clock and processor seconds, and peak memory in MB of the largest process, of one command."""
    command = [sys.executable, "-c", "from culteval.harness.cli.main import main; main()"]
    code = "import resource,subprocess,sys; done=subprocess.run(sys.argv[1:],check=True,stdout=2); "
    code += "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    words = [sys.executable, "-c", code, *command, "leaderboard", *map(str, arguments), "--json"]
    done = subprocess.run(words, stdout=subprocess.PIPE, check=True, cwd="/")
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"seconds": wall, "processor_seconds": used, "memory_mb": int(done.stdout.split()[-1]) / 1024}


def browsed(out: Path, repeats: int) -> dict[str, float]:
    """Measure medians of the first view (the overview, from navigation until its rows are there) and of a board's sort.

    In wall-clock seconds, and in seconds of the page's main thread (Chromium's thread ticks), which other processes
    affect less.
    """
    from playwright.sync_api import sync_playwright

    found: dict[str, list[float]] = {"view": [], "view_thread": [], "sort": [], "sort_thread": []}
    with sync_playwright() as runner:
        browser = runner.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        for _ in range(repeats + 1):
            page = browser.new_page(viewport={"width": 1280, "height": 900})
            session = page.context.new_cdp_session(page)
            session.send("Performance.enable", {"timeDomain": "threadTicks"})
            page.goto(f"file://{out}/index.html")
            page.wait_for_selector("tbody tr")
            found["view"].append(page.evaluate(VIEW) / 1000)
            found["view_thread"].append(_task_seconds(session))
            page.goto(f"file://{out}/board.html")
            page.wait_for_selector("tbody tr")
            for column in (1, 4, 0):
                before = _task_seconds(session)
                found["sort"].append(page.evaluate(SORT, column) / 1000)
                found["sort_thread"].append(_task_seconds(session) - before)
            page.close()
        browser.close()
    return {name: statistics.median(values[len(values) // (repeats + 1) :]) for name, values in found.items()}


def _task_seconds(session: Any) -> float:
    metrics = session.send("Performance.getMetrics")["metrics"]
    return next(row["value"] for row in metrics if row["name"] == "TaskDuration")


@click.command()
@click.option("--submissions", type=click.IntRange(2), default=2000, show_default=True)
@click.option("--repeats", type=click.IntRange(1), default=5, show_default=True, help="Pages opened, scorings.")
@click.option("--mixed", is_flag=True, help="Three tasks by turns; without it all on one board of vsm13.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def main(submissions: int, repeats: int, mixed: bool, as_json: bool) -> None:
    """Measure the site of many submissions."""
    tasks = {"vsm13": "US", "wvs": "US", "culture_core": "US"} if mixed else {"vsm13": "US"}
    with tempfile.TemporaryDirectory() as temporary:
        folder, out = Path(temporary, "in"), Path(temporary, "out")
        for number in range(submissions - 1):
            submit(folder, number, tasks)
        first = timed("build", folder, "--out", out)
        shutil.copytree(folder, released := Path(temporary, "released"))
        submit(folder, submissions - 1, tasks)
        again = timed("build", folder, "--out", out)
        checked = timed("check", folder, "--since", released)
        pages = browsed(out, repeats) if shutil.which("chromium") else {}
        size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file()) / 2**20
    one, panel = (scored(people, repeats) for people in (0, 20))
    figures = {"submissions": submissions, "build": first, "renew": again, "check": checked, "site_mb": size, **pages}
    figures |= {"score": one, "score_20_personas": panel}
    if as_json:
        click.echo(json.dumps(figures))
        return
    rows = [
        ("score one, seconds", one, TARGETS["score"]),
        ("score one of 20 personas, seconds", panel, TARGETS["score"]),
        ("build, seconds", first["seconds"], TARGETS["build"]),
        ("build, processor seconds", first["processor_seconds"], None),
        ("build, MB of the largest process", first["memory_mb"], TARGETS["memory"]),
        ("renew after one more, seconds", again["seconds"], TARGETS["renew"]),
        ("renew, processor seconds", again["processor_seconds"], None),
        ("check of one more, seconds", checked["seconds"], TARGETS["check"]),
        ("check, processor seconds", checked["processor_seconds"], None),
        ("first view, seconds", pages.get("view"), TARGETS["view"]),
        ("first view, main thread", pages.get("view_thread"), None),
        ("sort, seconds", pages.get("sort"), TARGETS["sort"]),
        ("sort, main thread", pages.get("sort_thread"), None),
        ("site, MB", size, None),
    ]
    click.echo(f"{submissions} submissions")
    for name, value, target in rows:
        shown = "-" if value is None else f"{value:.3f}"
        click.echo(f"  {name:36} {shown:>10}" + (f"   target {target:g}" if target else ""))


if __name__ == "__main__":
    main()
