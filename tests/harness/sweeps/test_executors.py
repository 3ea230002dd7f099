"""What carries out a sweep: scheduling, workers of this machine, actors of Ray, and what happens when they die."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import CliRunner
from culteval.errors import InputError, RunError, UnavailableError, UsageError
from culteval.harness.cli.main import cli
from culteval.harness.runs.execute import SCORES
from culteval.harness.runs.folder import Checksums
from culteval.harness.sweeps.executors.base import Job, Outcome, Resources
from culteval.harness.sweeps.executors.local import LocalExecutor
from culteval.harness.sweeps.executors.ray import RayExecutor, _Worker, room
from culteval.harness.sweeps.grid import cells, read_grid
from culteval.harness.sweeps.scheduler import executor_of, run_cells
from culteval.harness.sweeps.status import MOST_REASONS, STATUS
from culteval.harness.util.atomic_io import write_text

GRID = """
models: [{model}]
aligners:
  - naive
  - {{name: random, settings: {{tokens: 2}}}}
tasks: [general]
countries: [US, SA]
budget: {budget}
options: {{limit: 1, dtype: float32, threads: 1}}
"""


@pytest.fixture
def file(tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "grid.yaml").write_text(GRID.format(model=tiny(), budget=4))
    return tmp_path / "grid.yaml"


def planned(file):
    return cells(read_grid(file), file)


class Scripted:
    """An executor that does nothing, in a given number of turns a run; ``fails`` says how often a run fails first."""

    def __init__(self, workers, fails):
        self.workers, self.fails, self.busy, self.order = workers, dict(fails), {}, []

    def start(self, worker, job):
        assert worker not in self.busy and 0 <= worker < self.workers
        name = job.config.folder_name()
        self.busy[worker] = name
        self.order.append(name)

    def finished(self, seconds):
        worker = min(self.busy)
        name = self.busy.pop(worker)
        self.fails[name] = self.fails.get(name, 0) - 1
        return [(worker, Outcome(0.5, "its worker died" if self.fails[name] >= 0 else None, ("general",)))]


@pytest.mark.parametrize("workers", [1, 2, 8])
def test_every_run_is_done_and_what_failed_comes_last(file, tmp_path, workers):
    grid = planned(file)
    names = [cell.name for cell in grid]
    executor, told = Scripted(workers, {names[0]: 1, names[2]: 9}), []
    run_cells(grid, tmp_path, executor, 1, lambda now: told.append([cell.state for cell in now]))
    assert executor.order[:4] == names and sorted(executor.order[4:]) == sorted([names[0], names[2]])
    assert {cell.name: (cell.state, cell.attempts) for cell in grid} == {
        names[0]: ("done", 2), names[1]: ("done", 1), names[2]: ("failed", 2), names[3]: ("done", 1),
    }  # fmt: skip
    assert max(states.count("running") for states in told) == min(workers, 4)
    rows = json.loads((tmp_path / STATUS).read_text())
    assert rows[2]["reasons"] == ["its worker died"] * 2 and rows[3]["cached"] == ["general"]


def rows_after(file, root, fails, retries=1):
    """One more call of a sweep, by an executor whose successes leave scores: its rows by name."""

    class Writing(Scripted):
        def finished(self, seconds):
            ((worker, outcome),) = super().finished(seconds)
            if outcome.reason is None:
                (root / self.order[-1]).mkdir(exist_ok=True)
                (root / self.order[-1] / SCORES).write_text("[]")
            return [(worker, outcome)]

    grid = planned(file)
    run_cells(grid, root, Writing(1, fails), retries, lambda now: None)
    rows = json.loads((root / STATUS).read_text())
    assert rows[: len(grid)] == [cell.record() for cell in grid]
    return {row["run"]: row for row in rows}


def test_what_earlier_calls_took_and_said_is_kept_and_goes_on(file, tmp_path):
    first, second = (cell.name for cell in planned(file)[:2])
    before = rows_after(file, tmp_path, {first: 9})
    assert before[first]["reasons"] == ["its worker died"] * 2
    after = rows_after(file, tmp_path, {first: 1})
    assert (after[first]["state"], after[first]["attempts"], after[first]["seconds"]) == ("done", 4, 2.0)
    assert len(after[first]["reasons"]) == 3  # and it was tried as often as in the first call
    assert after[second] == before[second] | {"state": "skipped"}
    file.write_text(file.read_text().replace("countries: [US, SA]", "countries: [CN]"))
    other = rows_after(file, tmp_path, {})
    assert len(other) == 6 and other[first] == after[first]
    many = rows_after(file, tmp_path / "b", {planned(file)[0].name: 99}, retries=30)
    assert [len(row["reasons"]) for row in many.values()] == [MOST_REASONS, 0]


DAMAGED = ("", "{", "{}", "[1]", '[{"run": "a"}]', "nan", "inf", "state", "attempts", "more")


@pytest.mark.parametrize("damage", DAMAGED)
def test_a_damaged_status_is_refused_and_left_as_it_is(file, tmp_path, damage):
    rows_after(file, tmp_path, {})
    path = tmp_path / STATUS
    (row, *_) = json.loads(path.read_text())
    changed = {
        "nan": row | {"seconds": float("nan")},
        "inf": row | {"varied": {"tokens": [float("inf")]}},
        "state": row | {"state": "gone"},
        "attempts": row | {"attempts": -1},
        "more": row | {"another": 1},
    }
    path.write_text(json.dumps([changed[damage]]) if damage in changed else damage)
    before, executor = path.read_bytes(), Scripted(1, {})
    with pytest.raises(InputError, match=r"sweep\.json: .*Remove the file") as caught:
        run_cells(planned(file), tmp_path, executor, 1, lambda now: None)
    assert "\n" not in str(caught.value) and path.read_bytes() == before and executor.order == []


def test_a_finished_run_is_skipped_only_where_it_is_whole(file, tmp_path):
    first, second, third, _ = (cell.name for cell in planned(file))
    rows_after(file, tmp_path, {})
    for name in (first, second, third):
        parts = ("adapter/a", "submission/m", "cost.json", "config.json", "model.json")
        for part in parts:
            write_text(tmp_path / name / part, "{}")
        Checksums(tmp_path / name).add(*parts, SCORES)
    (tmp_path / first / "cost.json").write_text("[]")  # damaged: no try would mend it
    (tmp_path / second / SCORES).write_text("[ ]")  # made again from the rest
    rows = rows_after(file, tmp_path, {})
    assert (rows[first]["state"], rows[first]["attempts"]) == ("failed", 1)
    assert "cost.json: damaged" in rows[first]["reasons"][0]
    assert (rows[second]["state"], rows[second]["attempts"]) == ("done", 2)
    assert (rows[third]["state"], rows[third]["attempts"]) == ("skipped", 1)


def test_a_worker_that_died_idle_is_replaced(file, tmp_path):
    """Both runs fail at once, for a task that is not there: only who does them matters."""
    config = planned(file)[0].config.model_copy(update={"tasks": ("nosuch",)})
    with LocalExecutor(1, Resources(cpus=2)) as executor:
        first = run_one(executor, Job(config, tmp_path))
        os.kill(executor._at[0].process.pid, signal.SIGKILL)
        executor._at[0].process.join()
        second = run_one(executor, Job(config, tmp_path))
        process = executor._at[0].process
    assert "nosuch" in first.reason and second.reason == first.reason
    assert not process.is_alive()


def run_one(executor, job):
    executor.start(0, job)
    for _ in range(120):
        if done := executor.finished(1.0):
            assert done[0][0] == 0
            return done[0][1]
    raise AssertionError("no outcome")


@pytest.mark.parametrize(
    ("nodes", "cpus", "gpus", "fit"),
    [
        ([{"CPU": 8.0}], 2, 0, 4),
        ([{"CPU": 3.0}, {"CPU": 3.0}], 2, 0, 2),  # no worker spans two nodes
        ([{"CPU": 8.0, "GPU": 2.0}, {"CPU": 64.0}], 1, 0.5, 4),
        ([{"CPU": 1.0, "GPU": 1.0}], 0.1, 0.1, 10),
        ([{"CPU": 2.0, "GPU": 4.0}], 1, 1, 2),
        ([{"CPU": 8.0}], 1, 1, 0),
        ([], 1, 0, 0),
    ],
)
def test_room_of_a_cluster(nodes, cpus, gpus, fit):
    assert room(nodes, cpus, gpus) == fit


@pytest.fixture
def cluster(monkeypatch):
    """A stand-in for Ray with one node of four processors and one card."""
    node = {"Alive": True, "Resources": {"CPU": 4.0, "GPU": 1.0}}
    dead = {"Alive": False, "Resources": {"CPU": 64.0}}
    fake = SimpleNamespace(
        init=lambda **given: None, nodes=lambda: [node, dead], shutdown=lambda: None, exceptions=SimpleNamespace()
    )
    monkeypatch.setitem(sys.modules, "ray", fake)
    monkeypatch.setitem(sys.modules, "ray.exceptions", fake.exceptions)
    return fake


def test_workers_are_as_many_as_fit(cluster):
    with RayExecutor(None, Resources(cpus=2), "local", False) as executor:
        assert executor.workers == 2
    with RayExecutor(None, Resources(gpus=0.25), "local", True) as executor:
        assert executor.workers == 4
    with RayExecutor(1, Resources(), "local", True) as executor:
        assert executor.workers == 1
    with (
        pytest.raises(UsageError, match=r"workers`? 9: the cluster has room for 4 .*`resources:`"),
        RayExecutor(9, Resources(), "auto", False),
    ):
        pass
    with (
        pytest.raises(RunError, match=r"no node of the cluster has room .*2 cards"),
        RayExecutor(None, Resources(gpus=2), "auto", False),
    ):
        pass


def test_a_run_s_threads_and_device_are_what_its_worker_takes(file, cluster):
    file.write_text(file.read_text().replace("threads: 1", "threads: 3, device: cuda"))
    grid = planned(file)
    with executor_of("ray", grid, Resources(), None, "local") as executor:
        assert executor.workers == 1 and (executor._cpus, executor._gpus) == (3, 1)


def test_what_cannot_be_had_is_said_with_a_remedy(file, cluster, monkeypatch):
    def refuses(**given):
        raise ConnectionError("Could not find any running Ray instance.\nmore of it")

    cluster.init = refuses
    with pytest.raises(UnavailableError, match=r"address`? auto: no cluster .*running Ray instance") as caught:
        CliRunner().invoke(cli, ["sweep", str(file), "--executor", "ray", "--address", "auto"], catch_exceptions=False)
    assert str(caught.value).count("\n") == 1 and caught.value.exit_code == 4
    with socket.create_server(("127.0.0.1", 0)) as server:
        free = server.getsockname()[1]  # and nobody listens there any more
    cluster.init = lambda **given: pytest.fail("Ray was made to wait")
    for place in (f"127.0.0.1:{free}", "127.0.0.1:99999"):
        with pytest.raises(UnavailableError, match=rf"--address {place}: no cluster"):
            CliRunner().invoke(
                cli, ["sweep", str(file), "--executor", "ray", "--address", place], catch_exceptions=False
            )
    monkeypatch.setitem(sys.modules, "ray", None)  # as where it is not installed
    with pytest.raises(UnavailableError, match=r"culteval\[ray\]"):
        CliRunner().invoke(cli, ["sweep", str(file), "--executor", "ray"], catch_exceptions=False)
    with pytest.raises(UsageError, match="--address goes with --executor ray"):
        CliRunner().invoke(cli, ["sweep", str(file), "--address", "auto"], catch_exceptions=False)


@pytest.mark.parametrize("given", ["cpus: 0", "cpus: 1.5", "gpus: -1", "gpus: .nan", "memory: 1"])
def test_resources_are_checked(file, given):
    file.write_text(file.read_text() + f"resources: {{{given}}}\n")
    with pytest.raises(Exception, match=r"grid\.yaml.*resources"):
        read_grid(file)


def test_a_node_that_does_not_see_the_folder_says_so(file, tmp_path):
    job = Job(planned(file)[0].config, tmp_path / "runs")
    assert f"has no {tmp_path / 'runs'}: all nodes" in _Worker(str(tmp_path), {}).work(job).reason
    assert "has no /no/such" in _Worker("/no/such", {}).work(job).reason


def sweep(*words, **more):
    command = [sys.executable, "-m", "culteval", "sweep", *map(str, words), "--json"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **more)


def answers_of(root):
    """Everything the repository promises to be the same byte for byte, by run and file."""
    files = ("submission/answers.jsonl.zst", "scores.json", "adapter/adapter_model.safetensors", "adapter/preamble.txt")
    return {
        (run.name, name): (run / name).read_bytes()
        for run in root.iterdir()
        if run.is_dir()
        for name in files
        if (run / name).exists()
    }


def test_ray_with_a_worker_killed_gives_what_an_undisturbed_local_sweep_gives(file, tiny):
    file.write_text(GRID.format(model=tiny(), budget=150))
    other = file.parent / "b"
    local = sweep(file, "--out", other)
    process = sweep(file, "--executor", "ray", "--workers", "2", "--retries", "2", "--out", "a")
    victim = None
    for _ in range(2400):
        if found := next((file.parent / "a").glob("*random*/checkpoint.npz"), None):
            victim = json.loads((found.parent / "log.jsonl").read_text().splitlines()[0])["pid"]
            break
        assert process.poll() is None, process.communicate()[1][-2000:]
        time.sleep(0.1)
    assert "ray::" in Path(f"/proc/{victim}/cmdline").read_text()
    os.kill(victim, signal.SIGKILL)
    out, error = process.communicate(timeout=600)
    assert process.returncode == 0, error[-2000:]
    rows = json.loads(out)
    assert {row["state"] for row in rows} == {"done"}
    (killed,) = [row for row in rows if row["reasons"]]
    assert "its worker died" in killed["reasons"][0] and killed["attempts"] == 2 and killed["aligner"] == "random"
    assert '"resumed"' in (file.parent / "a" / killed["run"] / "log.jsonl").read_text()
    assert local.communicate(timeout=600) and local.returncode == 0
    ours, theirs = answers_of(file.parent / "a"), answers_of(other)
    assert len(ours) > 12 and ours == theirs


@pytest.mark.slow
def test_a_running_cluster_of_two_nodes_and_parts_of_a_card(file):
    from ray.cluster_utils import Cluster

    nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    try:
        nodes.add_node(num_cpus=1, num_gpus=1)
        file.write_text(file.read_text() + "resources: {cpus: 0.5, gpus: 0.5}\n")
        process = sweep(file, "--executor", "ray", "--address", nodes.address, "--out", "a")
        out, error = process.communicate(timeout=600)
        assert process.returncode == 0, error[-2000:]
        assert {row["state"] for row in json.loads(out)} == {"done"}
        logs = (file.parent / "a").glob("*/log.jsonl")
        assert len({json.loads(log.read_text().splitlines()[0])["pid"] for log in logs}) == 2
    finally:
        nodes.shutdown()
