"""The registry: our own names, plug-ins good and broken, commands among them, and what is said of an unknown name."""

import functools
import json
import sys
import warnings
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
from click.testing import CliRunner
from culteval.errors import InputError, UsageError
from culteval.harness import registry
from culteval.harness.cli.main import cli
from culteval.harness.runs.plan import RunRequest, plan

VSM = Path(__file__).parents[2] / "tasks" / "vsm13"


@pytest.fixture
def plug(monkeypatch, tmp_path):
    """``plug(kind, name, value, module_text)``: an installed plug-in with such an entry point."""
    points = []
    monkeypatch.setattr(registry, "entry_points", lambda group: [p for p in points if p.group == group])
    monkeypatch.syspath_prepend(tmp_path)
    registry.table.cache_clear()

    def install(kind, name, value, **modules):
        points.append(EntryPoint(name=name, value=value, group=f"culteval.{kind}"))
        for module, text in modules.items():
            monkeypatch.delitem(sys.modules, module, raising=False)
            (tmp_path / f"{module}.py").write_text(text)
        registry.table.cache_clear()

    yield install
    registry.table.cache_clear()


GOOD = """
from culteval.harness.alignment.aligner import Settings
class Mine:
    Settings = Settings
    summary = "a stranger's"
    budgeted = False
"""


@pytest.mark.parametrize(
    ("kind", "typed", "meant"),
    [("aligners", "niave", "naive"), ("aligners", "randm", "random"), ("models", "smolm2", "smollm2")],
)
def test_did_you_mean(kind, typed, meant):
    with pytest.raises(UsageError) as caught:
        registry.find(kind, typed)
    text = str(caught.value)
    assert repr(typed) in text and f"Did you mean {meant!r}?" in text and f"culteval ls {kind}" in text
    assert len(text.splitlines()) == 1


def test_unknown_task_and_nothing_near():
    with pytest.raises(UsageError, match="Did you mean 'vsm13'"):
        registry.spec_path("vms13")
    with pytest.raises(UsageError) as caught:
        registry.find("aligners", "zzzzzzzz")
    assert "Did you mean" not in str(caught.value)


def names(kind):
    """The names of a kind that can be loaded."""
    load = registry.spec_path if kind == "tasks" else functools.partial(registry.find, kind)
    return registry.listing(kind, lambda name: (load(name), name)[1])


def test_our_own_names_load():
    for name in ("naive", "icl", "random", "de"):
        aligner = registry.find("aligners", name)
        assert aligner.summary and isinstance(aligner.budgeted, bool)
        assert aligner.Settings() is not None
    assert registry.spec_path("vsm13").samefile(VSM / "vsm13.yaml")
    assert registry.spec_path("vsm13_text").is_file()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for kind in ("aligners", "tasks", "models"):
            assert set(names(kind)) == set(registry.table(kind))


def test_a_path_is_no_task(tmp_path):
    """A submission names its tasks: it must not make the harness read a file of its choice."""
    path = tmp_path / "own.yaml"
    path.write_text("task: own\n")
    with pytest.raises(UsageError):
        registry.spec_path(str(path))


def test_a_good_plugin_is_found(plug):
    plug("aligners", "mine", "good_plugin:Mine", good_plugin=GOOD)
    assert registry.find("aligners", "mine").summary == "a stranger's"
    assert "mine" in names("aligners")
    with pytest.raises(UsageError, match="Did you mean 'mine'"):
        registry.find("aligners", "mime")
    assert "mine" not in registry.table("models")


def test_a_plugin_is_not_imported_before_it_is_asked_for(plug):
    plug("aligners", "mine", "lazy_plugin:Mine", lazy_plugin=GOOD)
    registry.table("aligners")
    registry.find("aligners", "naive")
    assert "lazy_plugin" not in sys.modules


def test_a_plugin_cannot_shadow_ours(plug):
    plug("aligners", "naive", "shadow:Mine", shadow=GOOD)
    plug("tasks", "vsm13", "shadow:other.yaml")
    plug("models", "smollm2", "shadow:Mine")
    assert registry.find("aligners", "naive").__module__ == "culteval.optimizers.naive"
    assert registry.spec_path("vsm13").samefile(VSM / "vsm13.yaml")
    assert registry.table("models")["smollm2"].startswith("culteval.")
    assert "shadow" not in sys.modules


BROKEN = {
    "no such module": ("no_such_module_x:Mine", {}),
    "no such name": ("half_plugin:Other", {"half_plugin": GOOD}),
    "missing dependency": ("needy_plugin:Mine", {"needy_plugin": "import no_such_dependency_x\n"}),
    "syntax error": ("syntax_plugin:Mine", {"syntax_plugin": "def (:\n"}),
    "raises": ("raising_plugin:Mine", {"raising_plugin": "raise RuntimeError('boom')\n"}),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_plugin_warns_and_is_skipped(plug, name):
    value, modules = BROKEN[name]
    plug("aligners", "bad", value, **modules)
    plug("aligners", "mine", "good_plugin:Mine", good_plugin=GOOD)
    with pytest.warns(UserWarning, match="bad") as caught:
        found = names("aligners")
    assert "bad" not in found and {"mine", "de"} <= set(found)
    assert len(caught) == 1


@pytest.mark.parametrize("name", BROKEN)
def test_asking_for_a_broken_plugin_is_a_usage_error(plug, name):
    value, modules = BROKEN[name]
    plug("aligners", "bad", value, **modules)
    with pytest.raises(UsageError, match="'bad'") as caught:
        registry.find("aligners", "bad")
    assert value.split(":")[0] in str(caught.value)


def test_asking_for_a_broken_task_plugin_is_a_usage_error(plug):
    plug("tasks", "bad", "no_such_module_x:bad.yaml")
    with pytest.raises(UsageError, match="bad"):
        registry.spec_path("bad")


def test_a_broken_task_plugin_is_skipped_in_listings(plug):
    plug("tasks", "bad", "no_such_module_x:bad.yaml")
    with pytest.warns(UserWarning, match="bad"):
        found = names("tasks")
    assert {"vsm13", "vsm13_text"} <= set(found)
    assert set(found) == set(registry.table("tasks")) - {"bad"}


@pytest.mark.parametrize("text", [None, "task: [", "task: bad\n"], ids=["no file", "no YAML", "no metadata"])
def test_ls_tasks_survives_a_plugin_with_a_bad_spec(plug, tmp_path, text):

    package = tmp_path / "taskpack"
    package.mkdir()
    (package / "__init__.py").write_text("")
    if text is not None:
        (package / "bad.yaml").write_text(text)
    plug("tasks", "bad", "taskpack:bad.yaml")
    with pytest.warns(UserWarning, match="bad"):
        result = CliRunner().invoke(cli, ["ls", "tasks", "--json"])
    assert result.exception is None, repr(result.exception)
    assert "vsm13_text" in result.output and '"bad"' not in result.output


def test_ls_aligners_survives_a_plugin_that_is_no_aligner(plug):

    plug("aligners", "bad", "odd_plugin:Mine", odd_plugin="Mine = 5\n")
    with pytest.warns(UserWarning, match="bad"):
        result = CliRunner().invoke(cli, ["ls", "aligners", "--json"])
    assert result.exception is None, repr(result.exception)
    assert '"de"' in result.output


# ---------------------------------------------------------------- commands


COMMAND = '''
"""Commands of a plug-in."""
import click
print("imported")

@click.command()
@click.option("--loud", is_flag=True, help="Louder.")
def greet(loud):
    """Greet a country.

    More about it.
    """
    click.echo("HELLO" if loud else "hello")

made = click.Command("made")
'''
OURS = {  # as setup.cfg has them
    "leaderboard": "culteval.leaderboards.commands:leaderboard",
    "report": "culteval.leaderboards.report:report_command",
    "reproduce": "culteval.leaderboards.reproduction.commands:reproduce",
    "publish": "culteval.leaderboards.hub:publish",
    "clca": "culteval.optimizers.clca.commands:clca",
}


@pytest.fixture
def commands(plug):
    """``commands(*arguments)`` calls the command line; ours are installed."""
    from click.testing import CliRunner
    from culteval.harness.cli.main import cli

    for name, value in OURS.items():
        plug("commands", name, value)
    return lambda *arguments: CliRunner().invoke(cli, arguments)


def lines_of(help_text):
    """The lines of the section of commands by name, wrapped ones joined."""
    found, name = {}, ""
    for line in help_text.partition("Commands:\n")[2].splitlines():
        head, text = line[2:].split(" ", 1) if line[2:3].strip() else (name, line)
        name = head
        found[name] = f"{found.get(name, '')} {text.strip()}".strip()
    return found


def test_setup_cfg_has_our_commands_and_they_load():
    import configparser

    import click

    config = configparser.ConfigParser()
    config.read(Path(__file__).parents[2] / "setup.cfg", encoding="utf-8")
    listed = dict(line.split(" = ") for line in config["options.entry_points"]["culteval.commands"].split("\n") if line)
    assert listed == OURS
    for name, value in listed.items():
        point = EntryPoint(name=name, value=value, group="culteval.commands")
        assert isinstance(point.load(), click.Command) and point.load().name == name


def test_a_plugin_s_command_is_listed_unimported_and_called(plug, commands):
    plug("commands", "greet", "greeting:greet", greeting=COMMAND)
    plug("commands", "made", "greeting:made")
    listed = lines_of(commands("--help").stdout)
    assert listed["greet"] == "Greet a country." and listed["made"] == "Commands of a plug-in."
    assert "greeting" not in sys.modules
    assert listed["run"].startswith("Align a model") and set(OURS) < set(listed)
    assert commands("greet", "--loud").stdout == "imported\nHELLO\n"
    assert "Did you mean 'greet'?" in commands("gret").stderr
    assert "--loud" in commands("greet", "--help").stdout


@pytest.mark.parametrize("namespace", [False, True])
def test_a_command_in_a_package_is_described_without_importing_it(plug, commands, tmp_path, namespace):
    package = tmp_path / "greetings" / "inner"
    package.mkdir(parents=True)
    (package.parent / "__init__.py").write_text("raise SystemExit(9)\n")
    if not namespace:  # one inside another package is known to its parent only, once that is imported
        (package / "__init__.py").write_text("raise SystemExit(9)\n")
    (package / "greet.py").write_text(COMMAND)
    plug("commands", "greet", "greetings.inner.greet:greet")
    said = "From greetings.inner.greet:greet." if namespace else "Greet a country."
    assert lines_of(commands("--help").stdout)["greet"] == said
    assert not [name for name in sys.modules if name.startswith("greetings")]


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_command_stops_neither_the_help_nor_others(plug, commands, name):
    value, modules = BROKEN[name]
    plug("commands", "bad", value, **modules)
    seen = name in ("no such module", "syntax error")  # what its source shows
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        listed = lines_of(commands("--help").stdout)
    assert ("bad" in listed) is not seen and {"run", "leaderboard"} <= set(listed)
    assert [str(warning.message).startswith("skipped bad: ") for warning in caught] == [True] * seen
    done = commands("bad")
    assert isinstance(done.exception, UsageError) and "command 'bad'" in str(done.exception)
    assert len(str(done.exception).splitlines()) == 1
    assert commands("ls", "models").exit_code == 0


def test_what_is_no_command_is_said_to_be_none(plug, commands):
    plug("commands", "bad", "number:five", number='"""A number.\x1b[2J"""\nfive = 5\n')
    assert "A number.\\x1b[2J" in commands("--help").stdout  # escaped, as all that others wrote
    done = commands("bad")
    assert isinstance(done.exception, UsageError) and "is no click command" in str(done.exception)


def test_a_command_cannot_shadow_ours(plug, commands):
    for name in ("run", "leaderboard"):
        plug("commands", name, "greeting:greet", greeting=COMMAND)
    listed = lines_of(commands("--help").stdout)
    assert "Greet a country." not in listed.values()
    for name in ("run", "leaderboard"):
        assert "hello" not in commands(name, "--help").stdout
    assert "greeting" not in sys.modules


def test_an_installation_without_our_commands_is_told_to_be_renewed(plug):
    """As after a ``git pull`` over an editable install: its metadata were written before."""
    from click.testing import CliRunner
    from culteval.harness.cli.main import cli

    plug("aligners", "mine", "good_plugin:Mine", good_plugin=GOOD)  # no commands at all
    done = CliRunner().invoke(cli, ["leaderboard", "show"])
    assert done.exit_code == 2 and "Reinstall culteval" in done.stderr
    assert len(done.stderr.partition("Error: ")[2].splitlines()) == 1
    assert "Reinstall culteval" in lines_of(CliRunner().invoke(cli, ["--help"]).stdout)["clca"]


# ---------------------------------------------------------------- families


CORE = {"culturebench": "culture_core", "culturalbench": "culture_core", "cdeval": "cdeval_core"}
EASY_LINE = {"question": "?", "options": ["a", "b"], "answer": 1, "country": "SA"}
PAIR_LINE = {"question": "?", "options": ["a", "b"], "dimension": "pdi"}


def imports(folder, place, row):
    (folder / place).parent.mkdir(parents=True, exist_ok=True)
    rows = [row | {"id": f"q{i}", "split": split} for i, split in enumerate(["fit", "heldout"])]
    (folder / place).write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture
def data(tmp_path, monkeypatch):
    monkeypatch.setenv("CULTEVAL_DATA", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "data"


def planned(**flags):
    return plan(RunRequest.of(**{"aligner": "naive", "country": "US"} | flags))


def test_a_family_is_ours_until_something_is_imported(data):
    for name, core in CORE.items():
        config = planned(tasks=(name,), fit=(f"{name}:US",))
        assert (config.tasks, config.fit) == ((core,), (core,))
        done = CliRunner().invoke(cli, ["run", "--aligner", "naive", "--task", name, "--fit", name, "--country", "XX"])
        assert done.stderr.count(f"{name}: {core}, built in.\n") == 1  # once, though it is asked and fitted
        assert planned(tasks=(core, name)).folder_name() == planned(tasks=(core,)).folder_name()


def test_a_family_is_what_was_imported(data):
    imports(data, "culturebench/easy.jsonl", EASY_LINE)
    imports(data, "cdeval/cdeval.jsonl", PAIR_LINE)
    assert planned(tasks=("culturebench", "cdeval", "cdeval_core")).tasks == (
        "culturalbench_easy",
        "cdeval",
        "cdeval_core",
    )
    words = ["run", "--aligner", "naive", "--task", "culturebench", "--task", "cdeval", "--country", "XX"]
    said = CliRunner().invoke(cli, words).stderr
    assert said == "culturebench: culturalbench_easy, your import.\ncdeval: cdeval, your import.\n"
    imports(data, "culturebench/hard.jsonl", EASY_LINE)
    assert registry.concrete("culturebench") == registry.concrete("culturalbench") == "culturalbench_hard"


def test_a_damaged_import_is_no_reason_to_ask_ours(data):
    imports(data, "cdeval/cdeval.jsonl", PAIR_LINE | {"options": ["a"]})
    with pytest.raises(InputError, match="cdeval"):
        planned(tasks=("cdeval",))


def test_only_people_type_a_family(data):
    """A submission's task is looked up as it stands: what a board holds must not hang on who reads it."""
    for name in ("culturebench", "culturalbench"):
        with pytest.raises(UsageError, match="unknown"):
            registry.spec_of(name)
    with pytest.raises(InputError, match="not imported"):
        registry.spec_of("cdeval")
    assert registry.family("vsm13") == ("vsm13",) and registry.concrete("vsm31") == "vsm31"


def test_a_task_of_one_s_own_goes_before_a_family(data, plug, tmp_path):
    (tmp_path / "culturebench").mkdir()
    (tmp_path / "culturebench" / "culturebench.yaml").write_text("task: culturebench\n")
    plug("tasks", "culturalbench", "nowhere:x.yaml")
    assert registry.family("culturebench") == ("culturebench",)
    assert registry.family("culturalbench") == ("culturalbench",)


def test_families_are_listed(data):

    listed = json.loads(CliRunner().invoke(cli, ["ls", "tasks", "--json"]).stdout)
    titles = {row["task"]: row["title"] for row in listed}
    assert len(titles) == len(listed)
    assert all(f"stands for {core} here" in titles[name] for name, core in CORE.items())
    countries = CliRunner().invoke(cli, ["ls", "countries", "--task", "cdeval", "--json"]).stdout
    assert {"SA", "US"} <= {row["code"] for row in json.loads(countries)}
