"""Publish submissions on a model hub: ``model-index`` metadata, a folder that huggingface_hub uploads, the upload.

Nothing is sent unless the upload is asked for.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import UnavailableError, UsageError
from ..harness.providers.settings import one_line, redacted
from ..harness.report.tables import escape, headline_of, markdown_table
from ..harness.scoring.submission import Submission, load_submission
from ..harness.util.atomic_io import replacing, write_text
from ..tasks.countries import name_of
from ..tasks.score import Score
from ..tasks.spec import TaskSpec
from .publish import publish as add_entry

if TYPE_CHECKING:
    from huggingface_hub import EvalResult, ModelCardData

REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}")
CARD, ENTRIES = "README.md", "submissions"


def model_index(submissions: Sequence[Submission], name: str) -> ModelCardData:
    """Return the metadata of a model card: an evaluation result for each listed metric of each task.

    Scores are computed from the answers: the held-out split, by the first answer scoring of the task.

    Args:
        name: of the model in the index.

    Raises:
        InputError: a bad submission. UnavailableError: huggingface_hub is not installed.
    """
    try:
        from huggingface_hub import ModelCardData
    except ImportError:
        raise UnavailableError("huggingface_hub: not installed. `pip install huggingface_hub`.") from None
    results = [result for submission in submissions for result in _results(submission)]
    base = {submission.manifest.model.name for submission in submissions}
    aligners = sorted({submission.manifest.aligner.name for submission in submissions})
    more: dict[str, Any] = {"base_model": base.pop()} if len(base) == 1 and REPOSITORY.fullmatch(min(base)) else {}
    tags = ["culteval", "cultural-alignment", *(f"culteval-{aligner}" for aligner in aligners)]
    return ModelCardData(model_name=name, eval_results=results, tags=tags, **more)


def _results(submission: Submission) -> list[EvalResult]:
    from huggingface_hub import EvalResult

    results = []
    for asked in submission.manifest.tasks:
        spec = submission.cache.spec(asked.name)
        for score in _listed(submission.score(task=asked.name), spec):
            arrow = {True: "higher is better", False: "lower is better", None: "no direction"}[score.higher_is_better]
            interval = {"low": score.low, "high": score.high} if score.low is not None else {}
            note = {"note": score.note} if score.note else {}
            results.append(
                EvalResult(
                    task_type="text-generation",
                    task_name="Cultural alignment",
                    dataset_type=f"culteval-{asked.name}",
                    dataset_name=f"{spec.metadata.title}, {name_of(asked.country)}",
                    dataset_config=asked.country,
                    dataset_split=score.split,
                    dataset_revision=asked.hash,
                    metric_type=score.metric,
                    metric_value=score.value,
                    metric_name=f"{score.metric} ({score.scoring}, {arrow})",
                    metric_args={"edition": score.edition, "aligner": score.aligner, "n": score.n} | interval | note,
                )
            )
    return results


def _listed(scores: Sequence[Score], spec: TaskSpec) -> list[Score]:
    """Return the held-out scores of the metrics that the spec lists, the headline first."""
    place = headline_of(spec)
    names = dict.fromkeys((place.metric, *spec.metrics))
    found = {s.metric: s for s in scores if (s.scoring, s.split) == (place.scoring, place.split)}
    return [found[name] for name in names if name in found and math.isfinite(found[name].value)]


def prepare(runs: Sequence[Path], repository: str, out: Path) -> Path:
    """Write the folder of a hub's repository: the model card and each submission as boards keep it.

    Local paths are removed from manifests.

    Raises:
        UsageError: ``repository`` is not OWNER/NAME, or ``out`` exists. InputError: a bad submission.
    """
    if not REPOSITORY.fullmatch(repository):
        raise UsageError(f"--hub {repository!r}: not of the form OWNER/NAME.")
    if out.exists():
        raise UsageError(f"--out {out}: there already. Name another folder, or remove it.")
    with replacing(out) as temporary:
        temporary.mkdir(parents=True)
        entries = [add_entry(run, temporary / ENTRIES)[0] for run in runs]
        submissions = [load_submission(entry) for entry in entries]
        write_text(temporary / CARD, card(submissions, repository))
    return out


def card(submissions: Sequence[Submission], repository: str) -> str:
    """Return the model card: metadata, a table of scores, how to compute them again, and their limits."""
    name = repository.partition("/")[2]
    rows = []
    for submission in submissions:
        for asked in submission.manifest.tasks:
            spec = submission.cache.spec(asked.name)
            for score in _listed(submission.score(task=asked.name), spec):
                low = "" if score.low is None else f"{score.low:.4g} to {score.high:.4g}"
                cells = [asked.name, name_of(asked.country), score.aligner, score.metric, score.scoring]
                rows.append([*map(escape, cells), f"{score.value:.4g}", low, score.note or ""])
    headings = ["task", "country", "aligner", "metric", "answer scoring", "value", "95 % interval", "note"]
    commands = "\n".join(f"    culteval score {ENTRIES}/{submission.folder.name}" for submission in submissions)
    return f"""---
{model_index(submissions, name).to_yaml()}
---

# {name}

Cultural alignment on held-out prompts, computed by culteval from the answers in `{ENTRIES}`:

{markdown_table(headings, rows, words=range(5))}
Compute the scores again:

{commands}

Distances to survey references describe how a model answers these questions, not a culture, nor how it acts elsewhere.
Compare them with the baselines and the spread over paraphrases (`culteval report`).
"""


def upload(folder: Path, repository: str) -> str:
    """Upload a prepared folder with huggingface_hub and return its address; a new repository is private.

    The token is that of ``hf auth login`` or of the environment.

    Raises:
        UnavailableError: no network or token, or refused by the hub.
    """
    from huggingface_hub import HfApi

    try:
        api = HfApi()
        api.create_repo(repository, private=True, exist_ok=True)
        api.upload_folder(repo_id=repository, folder_path=folder, commit_message="Add culteval results")
    except Exception as error:  # any of huggingface_hub's, httpx's and the operating system's
        raise UnavailableError(
            f"--upload {repository}: {one_line(redacted(str(error)))}. {folder} is there for `hf upload`."
        ) from None
    return f"{api.endpoint}/{repository}"


@click.command()
@click.argument("runs", nargs=-1, required=True, type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--hub", metavar="OWNER/NAME", help="Prepare the folder of this hub repository.")
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), help="That folder [default: NAME].")
@click.option("--upload", "send", is_flag=True, help="Upload the folder, too; a new repository is private.")
def publish(runs: tuple[Path, ...], hub: str | None, out: Path | None, send: bool) -> None:
    """Publish runs on a model hub: print model-index metadata, or prepare a folder with --hub.

    Nothing is sent without --upload.
    """
    if hub is None:
        if send or out:
            raise UsageError(f"{'--upload' if send else '--out'}: needs --hub OWNER/NAME.")
        submissions = [load_submission(run) for run in runs]
        click.echo(model_index(submissions, submissions[0].manifest.model.name.rpartition("/")[2]).to_yaml())
        return
    made = prepare(runs, hub, out or Path(hub.rpartition("/")[2]))
    click.echo(f"{made}: {CARD} and {len(runs)} submissions.")
    if send:
        click.echo(f"uploaded   {upload(made, hub)}")
    else:
        click.echo(f"next       hf upload {hub} {made}")
