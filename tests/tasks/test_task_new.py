"""``task new``, ``task validate`` and ``data import``: what strangers bring, broken in every usual way."""

import json
import shutil
from pathlib import Path

import pytest
from culteval.errors import CultevalError
from culteval.harness.registry import spec_of, spec_path, table
from culteval.tasks.items import Survey
from culteval.tasks.prompts import ProtocolOptions, render_protocol

from ..command import invoked
from ..imported_tasks import IMPORTED

TASKS = Path(__file__).parents[2] / "tasks"


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("CULTEVAL_DATA", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def call(*words):
    """Output of a command; a culteval error is raised as it is."""
    return invoked(*words).output


def refused(*words):
    """The one or two lines of an error; whatever goes wrong must be a culteval error."""
    with pytest.raises(CultevalError) as caught:
        call(*words)
    text = str(caught.value)
    assert 1 <= len(text.splitlines()) <= 2, text
    return text


PLAIN = 'plain: "Answer with one letter only.\\n{question}\\n{options}"'
RIGHT = "metric: accuracy, higher_is_better: true}"

# ---------------------------------------------------------------- new and validate


def test_a_new_task_is_valid_and_can_be_asked(home):
    assert "culteval task validate mytask/mytask.yaml" in call("task", "new", "mytask")
    said = call("task", "validate", "mytask/mytask.yaml")
    assert "valid (4 items, 2 paraphrases, any country, 6 answers)" in said
    assert "Answer with one letter only." in said and "may be answered: A, B, C, D" in said
    assert len(render_protocol(spec_of("mytask"), ProtocolOptions())) == 6
    assert "$" not in "".join(path.read_text() for path in (home / "mytask").iterdir())


@pytest.mark.parametrize("name", ["My-Task", "1st", "a b", "", "../x y"])
def test_names_that_are_no_names(name, home):
    before = set(home.iterdir())
    refused("task", "new", name)
    assert set(home.iterdir()) == before


def test_an_existing_folder_is_left_alone(home):
    (home / "mine").mkdir()
    assert "mine is there already" in refused("task", "new", "mine")
    assert not list((home / "mine").iterdir())


@pytest.mark.parametrize("path", [spec_path(name) for name in table("tasks")], ids=lambda path: path.stem)
def test_shipped_specs_are_valid(path):
    if path.stem in IMPORTED:
        assert "not imported here" in refused("task", "validate", path)
    else:
        assert ": valid (" in call("task", "validate", path)


def swap(old, new, count=1):
    def change(text):
        assert old in text
        return text.replace(old, new, count)

    return change


SPEC = {
    "wrong type": (swap("version: 0.1", "version: soon"), "metadata.version"),
    "unknown field": (swap("  version: 0.1", "  version: 0.1\n  colour: red"), "metadata.colour"),
    "missing field": (swap("  measure: accuracy            #", "  #"), "metadata.measure"),
    "no such measure": (swap("measure: accuracy", "measure: acuracy"), "Did you mean 'accuracy'"),
    "no such paraphrase": (swap("paraphrases: [formal]", "paraphrases: [forml]"), "paraphrase 'forml'"),
    "no such order": (swap("orders: [natural]", "orders: [backwards]"), "orders"),
    "a paraphrase in both splits": (
        lambda text: text.replace("[formal]", "[plain]").replace(", items: fit}", "}"),
        "in fit and",
    ),
    "headline unknown": (swap("headline: {metric: accuracy", "headline: {metric: accurate"), "accurate"),
    "headline the wrong way": (swap(RIGHT, RIGHT.replace("true", "false"), 2), "the opposite"),
    "bad YAML": (swap("templates:", "templates: [", 1), "not valid YAML"),
    "a list": (lambda text: "- a\n- b\n", "mapping"),
    "empty": (lambda text: "", "empty"),
    "no templates": (swap("  templates:  ", "  framez:  "), "framez"),
    "a template without anything": (swap(PLAIN, 'plain: "Hello"'), "templates.plain"),
    "calibrated scoring named": (swap("scorings: [argmax, expected]", "scorings: [argmax_calibrated]"), "scorings"),
    "no items file": (swap("items: questions.jsonl", "items: lost.jsonl"), "lost.jsonl"),
    "includes itself": (lambda text: "include: mytask.yaml\n" + text, "includes itself"),
    "no output type": (swap("output_type: multiple_choice", "output_type: essay"), "output_type"),
    "token limit": (lambda text: text + "generation_kwargs: {max_gen_toks: 0}\n", "max_gen_toks"),
}  # fmt: skip


@pytest.mark.parametrize("name", SPEC)
def test_broken_specs_name_place_and_remedy(name, home):
    call("task", "new", "mytask")
    path = home / "mytask" / "mytask.yaml"
    change, words = SPEC[name]
    path.write_text(change(path.read_text(encoding="utf-8")), encoding="utf-8")
    before = {p: p.read_bytes() for p in home.rglob("*") if p.is_file()}
    said = refused("task", "validate", path)
    assert words is None or words in said, said
    assert "mytask" in said or "questions" in said
    assert {p: p.read_bytes() for p in home.rglob("*") if p.is_file()} == before


def test_the_line_of_a_field_is_named(home):
    call("task", "new", "mytask")
    path = home / "mytask" / "mytask.yaml"
    text = path.read_text(encoding="utf-8").replace("version: 0.1", "version: soon")
    path.write_text(text, encoding="utf-8")
    line = next(i for i, row in enumerate(text.splitlines(), start=1) if "soon" in row)
    assert f"mytask.yaml:{line}: metadata.version: " in refused("task", "validate", path)


ROW = {"id": "q9", "question": "Q?", "options": ["a", "b"], "answer": 1, "split": "fit"}
ITEMS = {
    "not JSON": (b'{"id": "q9"', "not JSON"),
    "duplicate id": (json.dumps(ROW | {"id": "q1"}).encode(), "'q1' is there twice"),
    "an answer that is no option": (json.dumps(ROW | {"answer": 3}).encode(), "answer"),
    "missing option": (json.dumps(ROW | {"options": ["a"]}).encode(), "options"),
    "same option twice": (json.dumps(ROW | {"options": ["a", "a"]}).encode(), "options"),
    "unknown field": (json.dumps(ROW | {"colour": "red"}).encode(), "colour"),
    "wrong type": (json.dumps(ROW | {"options": 4}).encode(), "options"),
    "a country in words": (json.dumps(ROW | {"country": "Germany"}).encode(), "country"),
    "a split of its own": (json.dumps(ROW | {"split": "test"}).encode(), "split"),
    "Latin-1": (json.dumps(ROW | {"question": "Käse?"}, ensure_ascii=False).encode("latin-1"), "UTF-8"),
    "an array": (b"[1, 2]", "not a JSON object"),
    "nested deeply": (b"[" * 100_000, "not JSON"),
}


@pytest.mark.parametrize("name", ITEMS)
def test_broken_questions_name_line_and_field(name, home):
    call("task", "new", "mytask")
    path = home / "mytask" / "questions.jsonl"
    line, words = ITEMS[name]
    with path.open("ab") as file:
        file.write(line + b"\n")
    said = refused("task", "validate", home / "mytask" / "mytask.yaml")
    assert words in said, said
    assert "questions.jsonl:5" in said or name == "duplicate id", said


def test_byte_order_mark_and_huge_files(home, monkeypatch):
    call("task", "new", "mytask")
    path = home / "mytask" / "questions.jsonl"
    text = path.read_bytes()
    path.write_bytes(b"\xef\xbb\xbf" + text)
    assert "valid (4 items" in call("task", "validate", "mytask/mytask.yaml")
    path.write_bytes(text * 80_000)
    assert "larger than 64 MB" in refused("task", "validate", "mytask/mytask.yaml")


SURVEY = {
    "scale off by one": (swap("importance: [1, 2, 3, 4]", "importance: [1, 2, 3]"), "4 labels for 3 codes"),
    "codes not ascending": (swap("importance: [1, 2, 3, 4]", "importance: [1, 2, 4, 3]"), "ascend"),
    "an item without a text": (swap('      Q2: "', '      Q2b: "'), "Q2"),
    "a scale that is not there": (swap("Q1: {scale: importance", "Q1: {scale: weight"), "weight"),
    "shares that add up to 0.9": (None, "add up to"),
    "wrong separator": (None, "separated by ';'"),
}


@pytest.mark.parametrize("name", SURVEY)
def test_broken_surveys_and_references(name, home):
    folder = home / "wvs"
    shutil.copytree(TASKS / "wvs", folder)
    change, words = SURVEY[name]
    if change:
        path = folder / "items.yaml"
        path.write_text(change(path.read_text(encoding="utf-8")), encoding="utf-8")
    else:
        path = folder / "shares.csv"
        text = path.read_text(encoding="utf-8")
        first = text.splitlines()[1]
        path.write_text(
            text.replace(",", ";") if "separator" in name else text.replace(first, first.rsplit(",", 1)[0] + ",0.1", 1),
            encoding="utf-8",
        )
    said = refused("task", "validate", folder / "wvs.yaml")
    assert words in said and path.name in said, said


def test_leakage_between_splits(home):
    call("task", "new", "mytask")
    path = home / "mytask" / "questions.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    rows[2] |= {key: rows[0][key] for key in ("question", "options", "answer")}
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    spec = home / "mytask" / "mytask.yaml"
    spec.write_text(spec.read_text().replace("paraphrases: [formal]", "paraphrases: [plain]"))
    assert "word for word" in refused("task", "validate", spec)


def test_foreign_functions_are_named_and_not_run(home):
    call("task", "new", "mytask")
    (home / "trap.py").write_text("open('sprung', 'w')\ndef dataset(**_): pass\n")
    spec = home / "mytask" / "mytask.yaml"
    spec.write_text(spec.read_text().replace("!function culteval.tasks.hooks.dataset", "!function trap.dataset"))
    assert "stock lm-eval would run 'trap.dataset'" in call("task", "validate", spec)
    assert not (home / "sprung").exists()


# ---------------------------------------------------------------- imports


def form(rows=24, **changes):
    survey = spec_of("vsm13").items
    assert isinstance(survey, Survey)
    lines = ["item,question,option1,option2,option3,option4,option5"]
    for number, (item, key) in enumerate(list(survey.items.items())[:rows], start=1):
        lines.append(f"{item},Question number {number}?," + ",".join(f"{key.scale} {code}" for code in range(1, 6)))
    return "\n".join(changes.get("change", lambda x: x)(lines)) + "\n"


def test_the_official_form_becomes_a_paraphrase_set(home):
    (home / "form.csv").write_text(form())
    assert "vsm13_official" in call("data", "import", "vsm13", "form.csv")
    spec = spec_of("vsm13_official")
    assert spec.metadata.splits.heldout.paraphrases == ("official",)
    text, choices = spec.items.present("m03", "official", "reversed")
    assert text.splitlines()[1:] == [*(f"{i} = importance {i}" for i in (5, 4, 3, 2, 1)), "Question number 3?"]
    assert choices == ("1", "2", "3", "4", "5")
    assert spec.hash != spec_of("vsm13").hash
    source = json.loads((home / "data" / "vsm13" / "official.source.json").read_text())
    assert source["source"] == "form.csv" and len(source["sha256"]) == 64


FORMS = {
    "23 rows": (form(23), "23 rows"),
    "two rows changed places": (form(change=lambda lines: [*lines[:2], lines[3], lines[2], *lines[4:]]), "m03"),
    "an empty question": (form().replace("Question number 5?", ""), "form.csv:6: question is empty"),
    "options that differ": (form().replace("importance 5", "importance V", 1), "importance"),
    "another separator": (form().replace(",", ";"), "separated by ';'"),
    "a cell too many": (form().replace("Question number 4?", "Question, number 4?"), "form.csv:5"),
    "no text": ("", "empty"),
    "a header alone": (form(0), "no rows"),
}


@pytest.mark.parametrize("name", FORMS)
def test_broken_forms(name, home):
    text, words = FORMS[name]
    (home / "form.csv").write_text(text)
    assert words in refused("data", "import", "vsm13", "form.csv")
    assert not (home / "data").exists()


def hard():
    lines = ["data_idx,question_idx,prompt_question,prompt_option,answer,country"]
    for question in range(6):
        for option in range(4):
            truth = option == question % 4 or (question == 5 and option == 3)
            lines.append(f'{4 * question + option},{question},"What, then, is {question}?",o{option},{truth},Turkey')
    return "\n".join(lines) + "\n"


def test_culturalbench_from_the_hard_file(home):
    (home / "hard.csv").write_text(hard())
    said = call("data", "import", "culturalbench", "hard.csv")
    assert "culturalbench_easy" in said and "culturalbench_hard" in said
    easy, judged = spec_of("culturalbench_easy").items, spec_of("culturalbench_hard").items
    assert len(easy.ids) == 6 and len(judged.ids) == 24
    for number in range(6):
        question = easy.by_id[f"q{number}"]
        true = {f"o{number % 4}"} | ({"o3"} if number == 5 else set())
        assert {question.options[code - 1] for code in question.right} == true
        assert question.country == "TR"
    assert len({easy.by_id[f"q{n}"].options for n in range(6)}) > 1  # shuffled
    assert {judged.by_id[i].split for i in judged.ids if judged.by_id[i].group == "q2"} in ({"fit"}, {"heldout"})
    first = (home / "data" / "culturebench" / "easy.jsonl").read_bytes()
    call("data", "import", "culturalbench", "hard.csv")
    assert (home / "data" / "culturebench" / "easy.jsonl").read_bytes() == first
    call("data", "import", "culturalbench", "hard.csv", "--seed", "1")
    assert (home / "data" / "culturebench" / "easy.jsonl").read_bytes() != first


def test_culturalbench_from_the_easy_file(home):
    (home / "easy.csv").write_text(
        "question_idx,prompt_question,prompt_option_a,prompt_option_b,prompt_option_c,prompt_option_d,answer,country\n"
        "0,Which?,w,x,y,z,C,Japan\n1,What?,w,x,y,z,a,Egypt\n"
    )
    call("data", "import", "culturalbench", "easy.csv")
    items = spec_of("culturalbench_easy").items.by_id
    right = {name: items[name].options[items[name].right[0] - 1] for name in items}
    assert right == {"q0": "y", "q1": "w"}
    assert "not imported here" in refused("task", "validate", TASKS / "culturebench" / "culturalbench_hard.yaml")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (swap("True", "Maybe"), "neither True nor False"),
        (swap("Turkey", "Atlantis"), "hard.csv:2: country"),
        (swap("prompt_option", "option"), "no column 'prompt_option'"),
        (lambda text: text.replace("True", "False"), "no option is true"),
    ],
)
def test_broken_culturalbench_files(change, words, home):
    (home / "hard.csv").write_text(change(hard()))
    assert words in refused("data", "import", "culturalbench", "hard.csv")
    assert not (home / "data").exists()


def test_cdeval_pairs(home):
    (home / "pairs.csv").write_text(
        "Question,Option 1,Option 2,Dimension\n"
        + "".join(
            f"Q{i}?,high {i},low {i},{name}\n" for i, name in enumerate(["Individualism", "PDI", "Indulgence vs"[:10]])
        )
    )
    call("data", "import", "cdeval", "pairs.csv")
    items = spec_of("cdeval").items.by_id.values()
    assert [(q.dimension, q.options) for q in items] == [
        ("idv", ("high 0", "low 0")), ("pdi", ("high 1", "low 1")), ("ivr", ("high 2", "low 2")),
    ]  # fmt: skip
    (home / "pairs.csv").write_text("Question,Option 1,Option 2,Dimension\nQ?,a,b,Courage\n")
    assert "pairs.csv:2: Dimension" in refused("data", "import", "cdeval", "pairs.csv")
