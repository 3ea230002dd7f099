"""Broken files of the field's data sets: refused in two lines that name place and remedy, and nothing is kept."""

from __future__ import annotations

import json

import pytest
from culteval.errors import CultevalError, UnavailableError

from .. import data_sets
from ..command import invoked


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("CULTEVAL_DATA", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def cell(line, column, value):
    """Another value in a cell; the header is line 1."""

    def change(rows):
        rows[line - 2][column] = value
        return data_sets.table(rows)

    return change


def renamed(column, name="moved"):
    return lambda rows: data_sets.table([{name if key == column else key: row[key] for key in row} for row in rows])


def twice(column):
    return lambda rows: data_sets.table(rows).replace("\n", f",{column}\n", 1)


def text(change):
    return lambda rows: change(data_sets.table(rows))


# What can be wrong with any table: the change, and the words that say so.
ANY = {
    "empty": (lambda rows: "", "empty. Give the whole file"),
    "a header alone": (lambda rows: data_sets.table(rows[:1]).partition("\n")[0] + "\n", "no rows"),
    "no table": (lambda rows: "What is this?\n", "no column"),
    "a cell too many": (text(lambda given: given.rstrip("\n") + ",more\n"), "number of cells differs"),
    "an open quotation mark": (text(lambda given: given.rstrip("\n") + '\n"open'), "not CSV"),
    "a page of a website": (lambda rows: "<!DOCTYPE html><html><body>Sign in</body></html>", "this is"),
    "a spreadsheet": (lambda rows: b"PK\x03\x04" + bytes(300), "this is"),
    "Latin letters": (text(lambda given: given.encode() + b"\xff\xfe\xfa"), "not UTF-8"),
    "a very long cell": (text(lambda given: given + "x" * 100_001), "field larger than"),
}
EQUAL, EMPTY = (f'{{"A": "{text}", "B": "tea", "C": "milk", "D": "water"}}' for text in ("tea", ""))
OWN = {
    "globalopinionqa": {
        "no question column": (
            renamed("question"), "'question'. It needs question, selections, options; this file has moved, selections"
        ),
        "no shares column": (renamed("selections"), "no column 'selections'"),
        "no options column": (renamed("options", "choices"), "no column 'options'"),
        "two columns of options": (twice("options"), "column 'options' is there twice"),
        "no question": (cell(3, "question", " "), ":3: question: "),
        "no list": (cell(4, "options", "Yes, No"), ":4: options: 'Yes, No' is no list"),
        "one option": (cell(2, "options", "['Yes']"), ":2: selections: United States: expected 1 shares"),
        "equal options": (cell(2, "options", "['Yes', 'Yes']"), ":2: options: two or more, different"),
        "no mapping": (cell(2, "selections", "[1, 2]"), ":2: selections: expected a mapping of countries"),
        "half a mapping": (cell(5, "selections", "defaultdict(<class 'list'>, {'Peru'"), ":5: selections: "),
        "a share too many": (cell(2, "selections", "{'Peru': [0.2, 0.3, 0.5]}"), "selections: Peru: expected 2 shares"),
        "shares of half": (cell(2, "selections", "{'Peru': [0.2, 0.3]}"), "selections: Peru: shares add up to 0.500"),
        "a negative share": (cell(2, "selections", "{'Peru': [-0.2, 1.2]}"), "selections: Peru: shares add up to"),
        "words for shares": (cell(2, "selections", "{'Peru': ['a', 'b']}"), "selections: Peru: not a list of numbers"),
        "no such country": (cell(2, "selections", "{'Narnia': [0.2, 0.8]}"), "selections: 'Narnia' is no country"),
        "no shares": (cell(2, "selections", "{'Peru': [0, 0]}"), "selections: no country has shares"),
        "code in a cell": (cell(2, "selections", "__import__('os').abort()"), ":2: selections: "),
    },
    "blend": {
        "no prompt column": (renamed("prompt"), "no column 'prompt'"),
        "no choices column": (renamed("choices"), "no column 'choices'"),
        "no answer column": (renamed("answer_idx", "answer"), "no column 'answer_idx'"),
        "no country column": (renamed("country"), "no column 'country'"),
        "two columns of prompts": (twice("prompt"), "column 'prompt' is there twice"),
        "another prompt": (cell(2, "prompt", "What is it?"), ":2: prompt: no question before 'Without"),
        "no question": (cell(2, "prompt", " Without any explanation, choose"), ":2: prompt: no question"),
        "no choices": (cell(3, "choices", ""), ":3: choices: "),
        "a list of choices": (cell(3, "choices", "['tea', 'milk']"), ":3: choices: no mapping of letters to texts"),
        "one choice": (cell(2, "choices", '{"A": "tea"}'), ":2: "),
        "equal choices": (cell(2, "choices", EQUAL), ":2: choices: options: two or more"),
        "an empty choice": (cell(2, "choices", EMPTY), ":2: choices: options: two or more"),
        "no such letter": (cell(4, "answer_idx", "E"), ":4: answer_idx: 'E' is not a letter of the choices"),
        "no answer": (cell(4, "answer_idx", ""), ":4: answer_idx: '' is not a letter"),
        "no such country": (cell(5, "country", "Atlantis"), ":5: country: 'atlantis' is no country"),
        "no country": (cell(5, "country", ""), ":5: country: "),
        "choices in choices": (cell(2, "choices", '{"A": ["tea"], "B": "milk"}'), ":2: choices: no mapping of letters"),
        "an id twice": (cell(3, "MCQID", "Ab-en-00_US_0"), "question Ab-en-00_US_0 is there twice"),
    },
    "normad": {
        "no country column": (renamed("Country"), "no column 'Country'"),
        "no value column": (renamed("Value"), "no column 'Value'"),
        "no rule column": (renamed("Rule-of-Thumb", "Rule of Thumb"), "no column 'Rule-of-Thumb'"),
        "no story column": (renamed("Story"), "no column 'Story'"),
        "no label column": (renamed("Gold Label", "label"), "no column 'Gold Label'"),
        "two columns of labels": (twice("Gold Label"), "column 'Gold Label' is there twice"),
        "no story": (cell(2, "Story", ""), ":2: Story: empty"),
        "a very long story": (cell(2, "Story", "x" * 20_001), ":2: Story: question: "),
        "no value": (cell(3, "Value", " "), ":3: Value: empty"),
        "no rule": (cell(4, "Rule-of-Thumb", ""), ":4: Rule-of-Thumb: empty"),
        "another label": (cell(5, "Gold Label", "maybe"), ":5: Gold Label: 'maybe' is not yes, no or neutral"),
        "no label": (cell(5, "Gold Label", ""), ":5: Gold Label: '' is not yes"),
        "no such country": (cell(6, "Country", "narnia"), ":6: country: 'narnia' is no country"),
        "no country": (cell(6, "Country", ""), ":6: country: "),
        "two countries": (cell(6, "Country", "egypt_and_peru"), ":6: country: 'egypt and peru' is no country"),
    },
    "simbench": {
        "no source column": (renamed("dataset_name"), "no column 'dataset_name'"),
        "no group column": (renamed("group_prompt_template"), "no column 'group_prompt_template'"),
        "no values column": (renamed("group_prompt_variable_map"), "no column 'group_prompt_variable_map'"),
        "no question column": (renamed("input_template"), "no column 'input_template'"),
        "no answer column": (renamed("human_answer", "answers"), "no column 'human_answer'"),
        "two columns of answers": (twice("human_answer"), "column 'human_answer' is there twice"),
        "no source": (cell(2, "dataset_name", ""), ":2: dataset_name: empty"),
        "no mapping of values": (cell(2, "group_prompt_variable_map", "[1]"), ":2: group_prompt_variable_map: no map"),
        "half a mapping": (cell(2, "group_prompt_variable_map", "{'a':"), ":2: group_prompt_variable_map: "),
        "no answers": (cell(2, "human_answer", ""), ":2: "),
        "a list of answers": (cell(2, "human_answer", "[50, 50]"), ":2: human_answer: no mapping"),
        "answers of half": (cell(2, "human_answer", "{'A': 0.2, 'B': 0.3}"), ":2: human_answer: shares add up to"),
        "zeros": (cell(2, "human_answer", "{'A': 0, 'B': 0}"), ":2: human_answer: all shares are zero"),
        "words for shares": (cell(2, "human_answer", "{'A': 'x', 'B': 'y'}"), ":2: human_answer: not a list of"),
        "no options": (cell(3, "input_template", "How often?"), ":3: input_template: no line '(A): ...' after"),
        "an option is missing": (
            cell(3, "input_template", "So?\n\nOptions:\n(A): yes\n"), ":3: input_template: no line '(B): ...'"
        ),
        "equal options": (
            cell(2, "input_template", "So?\n\nOptions:\n(A): yes\n(B): yes"), ":2: input_template: options: two or more"
        ),
    },
}  # fmt: skip
CASES = [(name, case) for name, own in OWN.items() for case in (*ANY, *own)]


def refused(home, *words):
    with pytest.raises(CultevalError) as caught:
        invoked("data", "import", *words)
    said = str(caught.value)
    assert (1 <= len(said.splitlines()) <= 2 and said.isprintable()) or "\n" in said
    assert not (home / "data").exists()
    return said


@pytest.mark.parametrize(("name", "case"), CASES)
def test_a_broken_file_is_refused(name, case, home):
    change, words = (ANY | OWN[name])[case]
    file, rows = data_sets.FILES[name]
    given = change(rows())
    (home / file).write_bytes(given if isinstance(given, bytes) else given.encode())
    flags = ("--variants", "0") if name == "blend" else ()
    said = refused(home, name, file, *flags)
    assert words in said and file in said, said
    assert any(word in said for word in ("Correct", "Give", "Save", "Remove", "Mend", "It needs", "Export")), said


@pytest.mark.parametrize("name", OWN)
def test_there_are_twenty_for_each(name):
    assert len(ANY) + len(OWN[name]) >= 20


INFO, RESPONSES = f"{data_sets.WAVE}/info.csv", f"{data_sets.WAVE}/responses.csv"
PANEL = {
    **{case: (INFO, *each) for case, each in ANY.items()},
    "no key column": (INFO, renamed("key"), "no column 'key'"),
    "no question column": (INFO, renamed("question"), "no column 'question'"),
    "no options column": (INFO, renamed("references"), "no column 'references'"),
    "no positions column": (INFO, renamed("option_ordinal"), "no column 'option_ordinal'"),
    "no key": (INFO, cell(2, "key", ""), ":2: key: '' is no name of a column"),
    "no question": (INFO, cell(2, "question", ""), ":2: references: question: "),
    "no list": (INFO, cell(2, "references", "Yes"), ":2: references: 'Yes' is no list"),
    "numbers for options": (INFO, cell(2, "references", "[1, 2]"), ":2: references: no list of texts"),
    "words for positions": (INFO, cell(3, "option_ordinal", "['a', 'b']"), ":3: option_ordinal: no list of numbers"),
    "a position too many": (INFO, cell(3, "option_ordinal", "[1, 2, 3, 4, 5]"), ":3: option_ordinal: 5 positions of 4"),
    "one position": (INFO, cell(3, "option_ordinal", "[1]"), ":3: option_ordinal: 1 positions of 4"),
    "uneven positions": (INFO, cell(3, "option_ordinal", "[1, 2, 4]"), "positions that are not equally far apart"),
    "a key without answers": (INFO, cell(2, "key", "OTHER_W26"), "responses.csv:1: no column 'OTHER_W26'"),
    "no weights": (RESPONSES, renamed("WEIGHT_W26", "WEIGHT_W27"), "no column 'WEIGHT_W26'"),
    "no attribute": (RESPONSES, renamed("POLPARTY"), "no column 'POLPARTY'"),
    "a word for a weight": (RESPONSES, cell(4, "WEIGHT_W26", "heavy"), ":4: WEIGHT_W26: 'heavy' is no weight"),
    "a negative weight": (RESPONSES, cell(5, "WEIGHT_W26", "-1"), ":5: WEIGHT_W26: '-1' is no weight"),
    "no number": (RESPONSES, cell(5, "WEIGHT_W26", "nan"), ":5: WEIGHT_W26: 'nan' is no weight"),
    "an answer that is none of the options": (
        RESPONSES, cell(4, "ITEM0_W26", "Never safe"), ":4: ITEM0_W26: 'Never safe' is none of the references"
    ),
    "no responses": (RESPONSES, lambda rows: "", "empty"),
}  # fmt: skip


@pytest.mark.parametrize("case", PANEL)
def test_a_broken_panel_is_refused(case, home):
    file, change, words = PANEL[case]
    data_sets.write(home, "opinionqa")
    given = change(data_sets.info() if file == INFO else data_sets.responses())
    (home / file).write_bytes(given if isinstance(given, bytes) else given.encode())
    said = refused(home, "opinionqa", "human_resp", "--by", "POLPARTY")
    assert words in said and ".csv" in said, said


def test_a_folder_without_waves_is_refused(home):
    (home / "human_resp" / "other").mkdir(parents=True)
    assert "Give the folder human_resp" in refused(home, "opinionqa", "human_resp")
    data_sets.write(home, "opinionqa")
    (home / RESPONSES).unlink()
    assert "responses.csv: cannot be read" in refused(home, "opinionqa", "human_resp")
    data_sets_many = [row | {"QKEY": f"group {row['QKEY']}"} for row in data_sets.responses(people=300)]
    (home / RESPONSES).write_text(data_sets.table(data_sets_many))
    assert "more than 200 groups" in refused(home, "opinionqa", "human_resp", "--by", "QKEY")


def test_what_cannot_be_used_is_left_out_and_counted(home):
    rows = data_sets.globalopinionqa()
    rows[0]["options"], rows[1]["selections"] = "['a', 'a']", "{'Peru': [0.1, 0.1, 0.1]}"
    (home / "table.csv").write_text(data_sets.table(rows))
    said = json.loads(invoked("data", "import", "globalopinionqa", "table.csv", "--skip-bad-rows", "--json").stdout)
    assert said["left_out"] == {"options": 1, "selections": 1} and said["imported"][0]["questions"] == 6


def test_a_panel_question_with_an_unlisted_answer_is_left_out_and_counted(home):
    """Not for a respondent of weight zero, and not for a refusal that is listed."""
    data_sets.write(home, "opinionqa")
    rows = data_sets.responses()
    rows[0]["ITEM0_W26"], rows[1]["ITEM1_W26"] = "Never safe", "Never safe"
    rows[1]["WEIGHT_W26"] = 0
    (home / RESPONSES).write_text(data_sets.table(rows))
    said = json.loads(invoked("data", "import", "opinionqa", "human_resp", "--skip-bad-rows", "--json").stdout)
    assert said["left_out"] == {"ITEM0_W26": 1} and said["imported"][0]["questions"] == 7
    text = (home / "data" / "opinionqa" / "overall.csv").read_text()
    assert "ITEM1_W26" in text and "ITEM0_W26" not in text


@pytest.mark.parametrize("words", ["pickle", "SimBench"])
def test_simbench_needs_a_file_whose_name_tells_the_part(words, home):
    name = "SimBenchPop.pkl" if words == "pickle" else "table.csv"
    (home / name).write_bytes(
        b"\x80\x04cos\nsystem\n" if words == "pickle" else data_sets.table(data_sets.simbench()).encode()
    )
    assert words in refused(home, "simbench", name)


class TestJson:
    """Files of JSON, in which BLEnD is published."""

    CASES = (
        ("[{", "not JSON"), ("{}", "not a JSON list of objects"), ("[1]", "not a JSON list of objects"),
        ("[]", "no rows"), ("[" * 100_000, "not JSON"), ('[{"MCQID": 1}]', "no column 'ID'"),
    )  # fmt: skip

    @pytest.mark.parametrize(("given", "words"), CASES)
    def test_broken_json(self, given, words, home):
        (home / "mc.json").write_text(given)
        assert words in refused(home, "blend", "mc.json")

    def test_lines(self, home):
        rows = data_sets.blend()
        (home / "mc.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        assert "16 rows" in invoked("data", "import", "blend", "mc.jsonl").output


@pytest.mark.parametrize("name", OWN)
def test_the_hub_is_asked_by_an_id(name, home, monkeypatch):
    """Its parts and configurations by name, each as the data card says; without a network the remedy is the file."""
    import datasets

    asked = []

    def load(name, config=None, data_files=None):
        asked.append((name, config, data_files))
        rows = data_sets.FILES[case][1]()
        return datasets.DatasetDict({"train": datasets.Dataset.from_list(rows)})

    case = name
    monkeypatch.setattr(datasets, "load_dataset", load)
    invoked("data", "import", name, "somebody/set")
    expected = {
        "blend": [("somebody/set", "multiple-choice-questions", None)],
        "simbench": [("somebody/set", None, "SimBenchPop.csv"), ("somebody/set", None, "SimBenchGrouped.csv")],
    }
    assert asked == expected.get(name, [("somebody/set", None, None)])


def test_without_a_network(home, monkeypatch):
    import datasets

    def load(*_, **__):
        raise ConnectionError("no route")

    monkeypatch.setattr(datasets, "load_dataset", load)
    with pytest.raises(UnavailableError, match=r"somebody/set: cannot be downloaded .* Download its file and give"):
        invoked("data", "import", "normad", "somebody/set")
