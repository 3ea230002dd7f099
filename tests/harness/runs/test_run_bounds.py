"""What a submission could not hold is refused before a run begins."""

import json

import pytest
from culteval.errors import UsageError
from culteval.harness.runs.plan import RunRequest, plan
from culteval.harness.submissions.manifest import MOST_TASKS

from .test_run import culteval


@pytest.mark.parametrize(("flag", "value"), [("--limit", 100_001), ("--seed", (1 << 62) + 1), ("--budget", 10**12 + 1)])
def test_numbers_beyond_those_of_a_submission(tiny, tmp_path, flag, value):
    flags = ("--aligner", "random", "--task", "vsm13", "--country", "US", "--model", tiny(), "--out", tmp_path / "runs")
    done = culteval("run", *flags, flag, value)
    assert done.returncode == 2 and f"{flag} {value}: " in done.stderr and not (tmp_path / "runs").exists()


@pytest.mark.parametrize("field", ["tasks", "fit"])
def test_more_tasks_than_a_submission_holds(field):
    given = {"aligner": "naive", "tasks": ("vsm13",), "country": "US"}
    with pytest.raises(UsageError, match=f"`{field}`: .*at most {MOST_TASKS}"):
        RunRequest.of(**given | {field: ("vsm13",) * (MOST_TASKS + 1)})


def test_the_largest_seed_is_part_of_a_configuration():
    config = plan(RunRequest.of(aligner="naive", tasks="vsm13", country="US", seed=1 << 62, limit=100_000))
    assert json.loads(config.model_dump_json())["seed"] == config.protocol().seed == 1 << 62
