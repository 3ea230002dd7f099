"""Read the output of stock lm-eval (``--log_samples``) as the parts of a submission.

``results_TIME.json`` describes the run, ``samples_TASK_TIME.jsonl`` beside it has one line for each prompt. Both are
untrusted: every prompt must be ours, answered once, and the headline that lm-eval computed must follow from the
samples. lm-eval asks the split ``heldout`` alone.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ...errors import InputError, UsageError
from ...tasks import hooks
from ...tasks.answers import Answers
from ...tasks.countries import country as resolve
from ...tasks.measure import MeasureOptions, measure_of
from ...tasks.prompts import Prompts, ProtocolOptions, count_answers, render
from ...tasks.reading import read_lines, read_unmarked, read_yaml
from ...tasks.spec import OWN_EDITION, TaskSpec, first_problem
from ..adapters.peft_files import peft_hash
from ..model_info import Name
from ..registry import spec_of
from ..submissions.manifest import MOST_ANSWERS, AskedTask

MOST_RESULTS, MOST_SAMPLE = 32 << 20, 1 << 20  # bytes of the results, and of one sample
MOST_LOG = 1e-3  # a log-likelihood is at most zero, up to rounding
SAME = 1e-6  # relative difference of a headline that is computed again
# lm-eval's arguments of generated text where a task gives none.
GREEDY = {"until": ["\n\n"], "do_sample": False, "temperature": 0, "max_gen_toks": 256}
# Arguments of lm-eval's models that a manifest names, or that change no answer: place, memory, batches.
NEUTRAL = {"attn_implementation", "base_url", "batch_size", "device", "device_map_option", "dtype", "logits_cache"}
NEUTRAL |= {"max_batch_size", "max_cpu_memory", "max_memory_per_gpu", "max_retries", "model", "num_concurrent"}
NEUTRAL |= {"offload_folder", "parallelize", "peft", "pretrained", "revision", "tp_plan", "trust_remote_code"}
NEUTRAL |= {"data_parallel_size", "gpu_memory_utilization", "tensor_parallel_size", "timeout"}
NEUTRAL |= {"ca_cert_path", "cache_dir", "device_map", "download_dir", "enforce_eager", "low_cpu_mem_usage"}
NEUTRAL |= {"swap_space", "verify_certificate"}
USUAL = {"backend": {"default", "causal"}, "use_fast_tokenizer": {"true"}}  # values of others are usual if false


class _Part(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class _Config(_Part):
    model: Name
    model_args: dict[str, Any] | str | None = None
    model_dtype: Name | None = None
    model_sha: str = ""
    device: Name | None = None
    limit: float | None = None


class _Results(_Part):
    """The fields of ``results_TIME.json`` that are used."""

    results: dict[str, dict[str, Any]]
    versions: dict[str, Any]
    shots: dict[str, Any] = Field(alias="n-shot")
    config: _Config
    model_name: Annotated[str, Field(max_length=1000)] = ""
    lm_eval_version: Name = "unknown"
    transformers_version: Name | None = None
    system_instruction: Annotated[str, Field(max_length=50_000)] | None = None
    chat_template_sha: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None


class _Doc(_Part):
    """A prompt, and the settings of its task; the same settings in all samples of a task."""

    text: str
    choices: tuple[str, ...]
    row: Annotated[int, Field(ge=0)]
    country: Annotated[str, Field(pattern=r"^[A-Z]{2}$")]
    edition: Name
    constants: Name
    personas: Annotated[int, Field(ge=0, le=100_000)]
    seed: Annotated[int, Field(ge=0, le=1 << 62)]

    @property
    def setting(self) -> tuple[str, str, str, int, int]:
        """Return what decides the prompts and their scores."""
        return self.country, self.edition, self.constants, self.personas, self.seed


class _Arguments(_Part):
    arg_0: str
    arg_1: Any


class _Sample(_Part):
    """One line of a samples file."""

    doc: _Doc
    arguments: dict[str, _Arguments]
    filtered_resps: list[Any]
    filter: str = "none"
    prompt_hash: str


@dataclass(frozen=True)
class LmEvalOutput:
    """What a run of stock lm-eval answered: the fields of a manifest, answers by task, and tasks that are not ours."""

    manifest: dict[str, Any]
    answers: dict[str, Answers]
    left_out: tuple[str, ...]


@dataclass
class _Samples:
    """The samples of one task in the order of its prompts; ``generation`` are its arguments of generated text."""

    spec: TaskSpec
    path: Path
    prompts: Prompts
    first: _Doc
    generation: dict[str, Any]
    values: dict[int, Any] = field(default_factory=dict)


def read_output(path: Path) -> LmEvalOutput:
    """Read a run of stock lm-eval, given its folder or its ``results_TIME.json``.

    Raises:
        InputError: missing, malformed or incomplete files, several runs, another version of a task, few-shot examples,
            or numbers that do not follow from the samples; names the place and the remedy.
    """
    file = _results_file(path)
    try:
        results = _Results.model_validate_json(read_unmarked(file, MOST_RESULTS))
    except ValidationError as error:
        raise InputError(
            f"{file}: {first_problem(error)}. Give the output of lm-eval 0.4 with --log_samples."
        ) from None
    if results.config.limit is not None:
        raise InputError(f"{file}: config.limit: {results.config.limit:g}. Run lm-eval again without --limit.")
    if not results.lm_eval_version.startswith("0.4."):
        raise InputError(f"{file}: lm_eval_version: {results.lm_eval_version}, not 0.4. Use lm-eval 0.4.")
    answers, tasks, left_out = dict[str, Answers](), list[AskedTask](), list[str]()
    seeds = set[int]()
    for name in results.results:
        try:
            spec = spec_of(name)
        except UsageError:
            left_out.append(name)
            continue
        samples = _samples(spec, file, results)
        answers[name], protocol = _answers(samples), ProtocolOptions(samples.first.personas, heldout_only=True)
        _check_headline(samples, answers[name], results.results[name], file)
        edition = None if spec.metadata.reference is None else samples.first.edition
        options = MeasureOptions(edition=edition, constants=samples.first.constants)
        tasks.append(AskedTask.of(spec, samples.first.country, protocol, options))
        seeds.add(samples.first.seed)
    if not tasks:
        raise InputError(f"{file}: results: none of {', '.join(left_out) or 'no task'} is a task of culteval.")
    if len({task.country for task in tasks}) > 1 or len(seeds) > 1:
        raise InputError(f"{file}: its tasks have several countries or seeds. Run lm-eval once for each.")
    return LmEvalOutput(_manifest(results, file, tasks, seeds.pop()), answers, tuple(left_out))


def _results_file(path: Path) -> Path:
    """Find the one results file of a folder, or of the one folder in it that has any, as lm-eval writes them."""
    if path.suffix == ".json":
        return path
    found = sorted(path.glob("results_*.json")) or sorted(path.glob("*/results_*.json"))
    if not found:
        raise InputError(f"{path}: no results_*.json. Give the folder that lm-eval wrote with --output_path.")
    if len(found) > 1:
        raise InputError(f"{path}: {len(found)} runs of lm-eval. Give one of their files, such as {found[-1]}.")
    return found[0]


def _samples(spec: TaskSpec, file: Path, results: _Results) -> _Samples:
    """Read and check the samples of a task, each prompt once."""
    version, shots = results.versions.get(spec.name), results.shots.get(spec.name)
    if isinstance(version, int | float) and version != spec.metadata.version:  # lm-eval loses that of a sibling spec
        raise InputError(
            f"{file}: versions.{spec.name}: {str(version)[:40]}, but this culteval has {spec.metadata.version}. "
            "Import with the version of culteval that lm-eval ran."
        )
    if shots not in (0, None):
        raise InputError(f"{file}: n-shot.{spec.name}: {str(shots)[:40]}. Run lm-eval again without --num_fewshot.")
    stamp = file.name.removeprefix("results_").removesuffix(".json")
    path = file.with_name(f"samples_{spec.name}_{stamp}.jsonl")
    if not path.exists():
        raise InputError(f"{path}: missing. Run lm-eval again with --log_samples.")
    samples: _Samples | None = None
    for number, sample in _lines(path):
        where = f"{path}:{number}"
        samples = samples or _begun(spec, path, sample.doc, where)
        _check_prompt(sample, samples, results, where)
        samples.values[sample.doc.row] = _value(sample, samples, where)
    if samples is None:
        raise InputError(f"{path}: empty. Run lm-eval again with --log_samples.")
    if missing := [row for row in range(len(samples.prompts)) if row not in samples.values]:
        raise InputError(
            f"{path}: {len(missing)} of {len(samples.prompts)} prompts are missing, the first is doc.row {missing[0]}. "
            "Run lm-eval again; a survey needs every answer."
        )
    return samples


def _lines(path: Path) -> Iterator[tuple[int, _Sample]]:
    for number, line in enumerate(read_lines(path, MOST_SAMPLE), start=1):
        try:
            yield number, _Sample.model_validate_json(line)
        except ValidationError as error:
            raise InputError(
                f"{path}:{number}: {first_problem(error)}. Run lm-eval again with --log_samples."
            ) from None


def _begun(spec: TaskSpec, path: Path, doc: _Doc, where: str) -> _Samples:
    """Render the prompts of a task as its first sample says that they were asked."""
    protocol = ProtocolOptions(doc.personas, doc.seed, heldout_only=True)
    if count_answers(spec, protocol) > MOST_ANSWERS:
        raise InputError(f"{where}: doc.personas: {doc.personas}; a submission holds {MOST_ANSWERS} answers at most.")
    try:
        edition = None if doc.edition == OWN_EDITION else doc.edition
        measure_of(spec, resolve(doc.country).code, MeasureOptions(edition=edition, constants=doc.constants))
    except UsageError as error:
        raise InputError(f"{where}: {error}") from None
    generation = _generation(spec) if spec.output_type == "generate_until" else {}
    return _Samples(spec, path, render(spec, "heldout", protocol), doc, generation)


def _generation(spec: TaskSpec) -> dict[str, Any]:
    """Return a task's arguments of generated text: those of the first file, of its own and the ones it includes."""
    files = (read_yaml(file) for file in spec.sources if file.suffix in (".yaml", ".yml"))
    return GREEDY | next((data["generation_kwargs"] for data in files if "generation_kwargs" in data), {})


def _check_prompt(sample: _Sample, samples: _Samples, results: _Results, where: str) -> None:
    """Raise InputError unless a sample is one of the prompts, asked as it is, and not answered before."""
    doc, prompts, name = sample.doc, samples.prompts, samples.spec.name
    if doc.setting != samples.first.setting:
        raise InputError(f"{where}: doc: another country, edition, constants, personas or seed than in line 1.")
    if doc.row >= len(prompts):
        raise InputError(f"{where}: doc.row: {doc.row}, but {name} has {len(prompts)} prompts.")
    if doc.row in samples.values:
        raise InputError(
            f"{where}: doc.row: {doc.row} is there twice. Remove filters of your own; or run lm-eval again."
        )
    if (doc.text, doc.choices) != (prompts.texts[doc.row], prompts.choices[doc.row]):
        raise InputError(
            f"{where}: doc.text: not prompt {doc.row} of this {name}. Import with the culteval that lm-eval ran."
        )
    contexts = {given.arg_0 for given in sample.arguments.values()}
    context = contexts.pop() if len(contexts) == 1 else ""
    if hashlib.sha256(context.encode()).hexdigest() != sample.prompt_hash:
        raise InputError(f"{where}: prompt_hash: not that of arguments; the file was changed. Run lm-eval again.")
    plain = results.chat_template_sha is None and not results.system_instruction
    if context != doc.text if plain else context.count(doc.text.strip()) != 1:
        raise InputError(
            f"{where}: arguments: the prompt has other text before or after the question. "
            "Run lm-eval again with the task as it is."
        )


def _value(sample: _Sample, samples: _Samples, where: str) -> list[float] | str:
    """Return the option masses of a sample, or its generated text."""
    given, spec = sample.filtered_resps, samples.spec
    if spec.output_type == "generate_until":
        _check_generation(sample, samples, where)
        if len(given) != 1 or not isinstance(given[0], str):
            raise InputError(f"{where}: filtered_resps: not one text. Run lm-eval again without repeats or filters.")
        return given[0]
    choices = sample.doc.choices
    asked = [str(sample.arguments[key].arg_1).strip() for key in sorted(sample.arguments, key=_place)]
    if asked != [choice.strip() for choice in choices] or len(given) != len(choices):
        raise InputError(f"{where}: arguments: not the options of the prompt in their order. Run lm-eval again.")
    logs = [_log(one) for one in given]
    mass = hooks.option_mass(spec, choices, logs) if all(log <= MOST_LOG for log in logs) else [0.0]
    if not sum(mass) > 0:
        raise InputError(f"{where}: filtered_resps: no log-likelihoods of options. Run lm-eval again.")
    return mass


def _check_generation(sample: _Sample, samples: _Samples, where: str) -> None:
    """Raise InputError unless a text was generated greedily, with the ends and the length of the task."""
    for asked in (given.arg_1 for given in sample.arguments.values()):
        if not isinstance(asked, dict) or GREEDY | asked != samples.generation:
            raise InputError(
                f"{where}: arguments: generated with {ascii(asked)[:100]}, not with those of {samples.spec.name}.yaml. "
                "Run lm-eval again without --gen_kwargs."
            )


def _place(key: str) -> int:
    digits = key.rpartition("_")[2]
    return int(digits) if digits.isascii() and digits.isdigit() and len(digits) < 4 else 0


def _log(given: Any) -> float:
    """Return the log-likelihood of a reply (a number and whether it is greedy); infinite for anything else."""
    try:
        value = float(given[0])
    except (TypeError, ValueError, IndexError, KeyError, OverflowError):
        return math.inf
    return value if math.isfinite(value) else math.inf


def _answers(samples: _Samples) -> Answers:
    rows = [samples.values[row] for row in range(len(samples.prompts))]
    if samples.spec.output_type == "generate_until":
        return hooks.answers_of_texts(samples.prompts, tuple(rows))
    return hooks.answers_of(samples.prompts, rows)


def _check_headline(samples: _Samples, answers: Answers, stated: Mapping[str, Any], file: Path) -> None:
    """Raise InputError where the headline in the results does not follow from the samples."""
    spec, doc = samples.spec, samples.first
    metric = spec.metadata.headline.metric
    edition = None if spec.metadata.reference is None else doc.edition
    measure = measure_of(spec, doc.country, MeasureOptions(edition=edition, constants=doc.constants))
    scores = measure.score(answers, "heldout", spec.default_scoring)
    ours = next((score.value for score in scores if score.metric == metric), math.nan)
    theirs = _number(next((value for key, value in stated.items() if key.partition(",")[0] == metric), None))
    if math.isnan(ours) != math.isnan(theirs) or not (math.isnan(ours) or math.isclose(ours, theirs, rel_tol=SAME)):
        raise InputError(
            f"{file}: results.{spec.name}.{metric}: {theirs:g}, but the samples give {ours:g}. "
            "Files of different runs, or changed ones: run lm-eval again."
        )


def _number(given: Any) -> float:
    """Return a number of a JSON file; NaN for anything else, infinite where it is too large."""
    try:
        return float(given) if isinstance(given, int | float) else math.nan
    except OverflowError:
        return math.inf


def _manifest(results: _Results, file: Path, tasks: list[AskedTask], seed: int) -> dict[str, Any]:
    config = results.config
    arguments = config.model_args if isinstance(config.model_args, dict) else _pairs(config.model_args or "")
    if unknown := sorted(key for key, value in arguments.items() if key not in NEUTRAL and not _is_usual(key, value)):
        raise InputError(
            f"{file}: config.model_args: {ascii(unknown[0])[1:-1][:100]} may change answers, which no submission says. "
            "Run lm-eval again without it."
        )
    versions = {"lm_eval": results.lm_eval_version, "transformers": results.transformers_version}
    system = {"chat": {"system": results.system_instruction}} if results.system_instruction else {}
    name = results.model_name or str(arguments.get("pretrained") or arguments.get("model") or config.model)
    return {
        "tasks": tasks,
        "model": {
            "name": name[:200],
            "revision": config.model_sha or "unknown",
            "dtype": (config.model_dtype or "unknown").removeprefix("torch."),
            "device": config.device or "unknown",
            "threads": 0,
            "chat_template": results.chat_template_sha[:16] if results.chat_template_sha else None,
            "forward": f"lm-eval {config.model}"[:200],
            "adapter_sha256": _adapter(arguments.get("peft"), file),
        }
        | system,
        "aligner": {"name": "naive", "settings": {}, "adapter_sha256": None},
        "fitted": None,
        "country": tasks[0].country,
        "seed": seed,
        "versions": {key: value for key, value in versions.items() if value},
        "command": f"lm-eval run --model {config.model} --tasks {','.join(task.name for task in tasks)}",
        "budget": {"item_forwards_allowed": 0, "item_forwards": 0, "survey_evaluations": 0, "tokens": 0, "seconds": 0},
    }


def _is_usual(key: str, value: Any) -> bool:
    """Return whether an argument of a model has the value that it has where it is not given."""
    return str(value).lower() in {"none", *USUAL.get(key, {"false"})}


def _pairs(text: str) -> dict[str, str]:
    return {key.strip(): value for key, _, value in (part.partition("=") for part in text.split(",") if part)}


def _adapter(given: Any, file: Path) -> str | None:
    """Return the hash of the PEFT adapter that lm-eval was given, whose tokenizer it does not use."""
    if not given:
        return None
    if not Path(str(given)).is_dir():
        raise InputError(
            f"{file}: config.model_args: peft: no folder {str(given)[:200]!r} here; its hash is part of a submission. "
            "Import where lm-eval ran."
        )
    return peft_hash(Path(str(given))).hex()
