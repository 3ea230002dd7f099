"""An optional LLM judge of open answers: a model of lm-eval decides towards which pole an answer leans.

Prompts and verdicts are kept in the submission folder (``judge.json``, ``verdicts.jsonl``) with the hash of the answers
that they belong to, so that ``culteval score`` needs no model. They are read as untrusted input.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import Field, TypeAdapter, ValidationError

from ...errors import InputError, UnavailableError, UsageError
from ...tasks.answers import UNPARSED, Answers
from ...tasks.extraction import parse_code
from ...tasks.items import Question, Questions
from ...tasks.measure import MeasureOptions
from ...tasks.metrics.reference import DIMENSIONS, scores_of
from ...tasks.prompts import of_split
from ...tasks.reading import read_lines, read_unmarked, unmarked
from ...tasks.schema import Strict
from ...tasks.score import Score, ScoreFields
from ...tasks.spec import TaskSpec, first_problem, read_yaml
from ..providers.settings import refuse_secrets
from ..registry import spec_of
from ..submissions.manifest import MOST_LINE_BYTES, Manifest
from ..util.atomic_io import replacing, write_json

JUDGE, VERDICTS, PROMPTS = "judge.json", "verdicts.jsonl", "judge.yaml"
MOST_RECORD_BYTES = 1 << 16
_POLES = ("high", "low", "neither")  # meanings of the letters A, B and C


class JudgeVerdict(Strict):
    """One line of ``verdicts.jsonl``; ``verdict`` is null where the reply has no letter."""

    task: Annotated[str, Field(max_length=200)]
    row: Annotated[int, Field(ge=0)]
    prompt: Annotated[str, Field(max_length=30_000)]
    reply: Annotated[str, Field(max_length=4_000)]
    verdict: Literal["high", "low", "neither"] | None


class JudgeRecord(Strict):
    """The content of ``judge.json``: the judging model, and the hashes of the answers and the verdicts."""

    model: Annotated[str, Field(max_length=200)]
    model_args: Annotated[str, Field(max_length=2_000)]
    answers_sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    verdicts_sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    rows: Annotated[int, Field(ge=0, le=1_000_000)]


_VERDICT = TypeAdapter(JudgeVerdict)


def judge_answers(
    folder: Path, manifest: Manifest, answers: Mapping[str, Answers], model: str, args: str
) -> JudgeRecord:
    """Judge every open answer with a model of lm-eval and write the verdicts, both files or none.

    Raises:
        UsageError: no open answers, or arguments that are too long or hold a secret. UnavailableError: no such model.
    """
    refuse_secrets("--model-args", args)  # they are stored beside the verdicts and published
    prompts = [
        (name, row, prompt)
        for name, given in answers.items()
        for row, prompt in _prompts(spec_of(name), given)
    ]  # fmt: skip
    if not prompts:
        raise UsageError(f"{folder}: no open answers to judge. Only tasks like probes, run with text, have some.")
    if len(model) > 200 or len(args) > 2_000:
        raise UsageError("--model-args: longer than 2,000 characters.")
    replies = _replies(model, args, [prompt for _, _, prompt in prompts])
    digest = hashlib.sha256()
    with replacing(folder / VERDICTS) as temporary, temporary.open("wb") as file:
        for (name, row, prompt), reply in zip(prompts, replies, strict=True):
            verdict = JudgeVerdict(task=name, row=row, prompt=prompt, reply=reply[:4000], verdict=read_verdict(reply))
            file.write(line := (verdict.model_dump_json() + "\n").encode())
            digest.update(line)
    record = JudgeRecord(
        model=model,
        model_args=args,
        answers_sha256=manifest.answers.sha256,
        verdicts_sha256=digest.hexdigest(),
        rows=len(prompts),
    )
    write_json(folder / JUDGE, record.model_dump())
    return record


def read_verdict(reply: str) -> str | None:
    """Parse a reply as a text answer and return the pole of its letter, or None without a letter."""
    place = parse_code(reply, ("A", "B", "C"), range(3))
    return None if place == UNPARSED else _POLES[place]


def _open_questions(spec: TaskSpec) -> dict[int, Question]:
    """Return the questions without options and with a dimension, by their number."""
    if not isinstance(spec.items, Questions):
        return {}
    return {i: q for i, q in enumerate(spec.items.questions) if not q.options and q.dimension in DIMENSIONS}


def _prompts(spec: TaskSpec, answers: Answers) -> Iterator[tuple[int, str]]:
    path = spec.folder / PROMPTS
    if answers.texts is None or not path.is_file():
        return
    texts, questions = read_yaml(path), _open_questions(spec)
    for row, item in enumerate(answers.layout.item.tolist()):
        if item in questions and answers.texts[row].strip():
            poles = texts["poles"][questions[item].dimension]
            # The untrusted text is inserted last, so that it cannot contain placeholders.
            prompt = texts["template"].replace("{high}", poles["high"]).replace("{low}", poles["low"])
            before, _, after = prompt.replace("{question}", questions[item].question).partition("{answer}")
            yield row, before + answers.texts[row] + after


def _replies(model: str, args: str, prompts: Sequence[str]) -> list[str]:
    import lm_eval.models  # noqa: F401  (registers lm-eval's own models)
    import torch
    from lm_eval.api.instance import Instance
    from lm_eval.api.registry import get_model

    try:
        judge = get_model(model).create_from_arg_string(
            args, {"device": "cuda" if torch.cuda.is_available() else "cpu"}
        )
    except Exception as error:  # a model's constructor may fail in any way
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise UnavailableError(f"--model {model} --model-args {args}: cannot be loaded ({reason}).") from None
    options = {"until": ["\n"], "max_gen_toks": 4, "do_sample": False}
    requests = [Instance("generate_until", {}, (prompt, dict(options)), i) for i, prompt in enumerate(prompts)]
    return judge.generate_until(requests)


def read_verdicts(folder: Path, manifest: Manifest) -> list[JudgeVerdict]:
    """Read and validate the verdicts of a submission; return none for a submission that was not judged.

    Raises:
        InputError: damaged files, or verdicts on answers other than these.
    """
    path = folder / JUDGE
    if not path.is_file():
        return []
    try:
        record = JudgeRecord.model_validate_json(read_unmarked(path, MOST_RECORD_BYTES))
    except ValidationError as error:
        raise InputError(f"{path}: {first_problem(error)}. Judge again.") from None
    if record.answers_sha256 != manifest.answers.sha256:
        raise InputError(f"{path}: judges other answers than these. Judge again, or remove it.")
    verdicts: list[JudgeVerdict] = []
    digest, source = hashlib.sha256(), folder / VERDICTS
    try:
        for line in read_lines(source, 2 * MOST_LINE_BYTES, whole=True):
            if len(verdicts) == record.rows:
                raise InputError(f"{source}: more verdicts than {JUDGE} says. Judge again.")
            digest.update(line)
            verdicts.append(verdict := _VERDICT.validate_json(unmarked(line)))
            if verdict.verdict != read_verdict(verdict.reply):
                raise InputError(f"{source}:{len(verdicts)}: the verdict is not what the reply says. Judge again.")
    except ValidationError as error:
        raise InputError(f"{source}:{len(verdicts) + 1}: {first_problem(error)}. Judge again.") from None
    if digest.hexdigest() != record.verdicts_sha256:
        raise InputError(f"{source}: does not match {JUDGE}; it was changed or cut short. Judge again.")
    return verdicts


def judged_scores(
    spec: TaskSpec, name: str, answers: Answers, verdicts: Sequence[JudgeVerdict], country: str, options: MeasureOptions
) -> list[Score]:
    """Compute the scores of a judge's verdicts for each split.

    ``judged_pole_accuracy`` is the pole accuracy: the share on the country's side of the answers that lean to a pole.
    ``judged_neither`` and ``judged_unread`` are the shares of replies that choose neither pole or cannot be parsed.
    """
    by_row = {v.row: v.verdict for v in verdicts if v.task == name}
    questions = _open_questions(spec)
    if not by_row or not questions:
        return []
    reference = scores_of(spec, options.edition)
    high = reference.high(country)
    of_country = {i: high[q.dimension] for i, q in questions.items() if q.dimension}  # whether its pole is the high one
    rows: list[Score] = []
    for split in spec.metadata.splits.named:
        inside = np.flatnonzero(of_split(spec, answers.layout, split))
        judged = {
            row: by_row[row] for row in inside.tolist() if row in by_row and answers.layout.item[row] in questions
        }
        if not judged:
            continue
        layout = answers.layout.take(np.array(list(judged)))
        fields = ScoreFields(spec.name, country, reference.edition, split, "text", layout, len(judged))
        side = [
            (verdict == "high") == of_country[int(answers.layout.item[row])]
            for row, verdict in judged.items()
            if verdict in ("high", "low")
        ]
        if side:
            rows.append(fields.row("judged_pole_accuracy", np.mean(side), True, n=len(side)))
        for name_, verdict in (("neither", "neither"), ("unread", None)):
            rows.append(fields.row(f"judged_{name_}", np.mean([v == verdict for v in judged.values()]), None))
    return rows
