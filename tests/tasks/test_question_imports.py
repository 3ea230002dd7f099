"""CulturalBench and CDEval as people have them: mended, left out or refused; and the names of countries."""

import csv
import io
import json

import pycountry
import pytest
from click.testing import CliRunner
from culteval.errors import InputError, UsageError
from culteval.harness.cli.main import cli
from culteval.harness.registry import spec_of
from culteval.tasks.countries import country, nearest

EASY = "question_idx,prompt_question,prompt_option_a,prompt_option_b,prompt_option_c,prompt_option_d,answer,country"
HARD = "question_idx,prompt_question,prompt_option,answer,country"
PAIRS = "Dimension,Domain,Question,Option 1,Option 2"
GOOD = ["9,When?,dawn,noon,dusk,night,B,Japan", "8,Who?,aunts,uncles,guests,none,C,Peru"]


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("CULTEVAL_DATA", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def imported(kind, header, rows, *flags, mark=",", mangle=None):
    """What ``data import`` says as JSON; a culteval error is raised as it is, and nothing is written then."""
    with open("table.csv", "wb") as file:
        text = "\n".join([header, *rows]) + "\n"
        if mark != ",":
            out = io.StringIO()
            csv.writer(out, delimiter=mark).writerows(csv.reader(io.StringIO(text)))
            text = out.getvalue()
        file.write((mangle or str.encode)(text))
    done = CliRunner().invoke(cli, ["data", "import", kind, "table.csv", "--json", *flags])
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception
    return json.loads(done.stdout)


def refused(*arguments, **more):
    with pytest.raises(InputError) as caught:
        imported(*arguments, **more)
    assert len(str(caught.value).splitlines()) <= 2
    return str(caught.value)


def asked(name, task="culturalbench_easy"):
    """Options of a question, and those of them that are right."""
    question = spec_of(task).items.by_id[name]
    return set(question.options), {question.options[code - 1] for code in question.right}


MENDED = {
    "an empty option": (["0,Why?,a,b,c,,A,Spain"], {"a", "b", "c"}, {"a"}, {"empty options": 1}),
    "two empty options": (["0,Why?,a,,,d,D,Spain"], {"a", "d"}, {"d"}, {"empty options": 1}),
    "an option of spaces": (["0,Why?,  ,b,c,d,C,Spain"], {"b", "c", "d"}, {"c"}, {"empty options": 1}),
    "the right option twice": (["0,Why?,a,b,c,a,A,Spain"], {"a", "b", "c"}, {"a"}, {"equal options": 1}),
    "the right option is the second of two": (["0,Why?,a,b,c,a,D,Spain"], {"a", "b", "c"}, {"a"}, {"equal options": 1}),
    "equal but for a space": (["0,Why?,a,b,c,b ,A,Spain"], {"a", "b", "c"}, {"a"}, {"equal options": 1}),
    "two right options in two rows": (
        ["0,Why?,a,b,c,d,C,Spain", "0,Why?,a,b,c,d,D,Spain"],
        {"a", "b", "c", "d"},
        {"c", "d"},
        {"rows of one question": 1},
    ),
    "the same row twice": (
        ["0,Why?,a,b,c,d,C,Spain", "0,Why?,a,b,c,d,C,Spain"],
        {"a", "b", "c", "d"},
        {"c"},
        {"rows of one question": 1},
    ),
    "letters before options": (
        ["0,Why?,A. a,B. b,C. c,D. d,B,Spain"],
        {"a", "b", "c", "d"},
        {"b"},
        {"letters before options": 1},
    ),
    "letters in brackets before some": (
        ["0,Why?,(A) a,(B) b,c,d,A,Spain"],
        {"a", "b", "c", "d"},
        {"a"},
        {"letters before options": 1},
    ),
    "one initial": (["0,Who?,A. Smith,b,c,d,A,Spain"], {"A. Smith", "b", "c", "d"}, {"A. Smith"}, {}),
    "an answer in a small letter": (["0,Why?,a,b,c,d, b,Spain"], {"a", "b", "c", "d"}, {"b"}, {}),
}


@pytest.mark.parametrize("case", MENDED)
@pytest.mark.parametrize("flags", [(), ("--skip-bad-rows",)])
def test_what_loses_nothing_is_mended_and_counted(case, flags):
    rows, options, right, mended = MENDED[case]
    said = imported("culturalbench", EASY, [*rows, *GOOD], *flags)
    assert said["mended"] == mended and said["left_out"] == {}
    assert said["imported"][0] | {"file": ""} == {"task": "culturalbench_easy", "file": "", "rows": 3, "questions": 3}
    assert asked("q0") == (options, right)
    assert asked("q9") == ({"dawn", "noon", "dusk", "night"}, {"noon"})


BAD = {
    "the right option is empty": (["0,Why?,a,b,c,,D,Spain"], "answer"),
    "one option is left": (["0,Why?,a,a,,,A,Spain"], "options"),
    "no such letter": (["0,Why?,a,b,c,d,E,Spain"], "answer"),
    "no answer": (["0,Why?,a,b,c,d,,Spain"], "answer"),
    "no such country": (["0,Why?,a,b,c,d,A,Atlantis"], "country"),
    "no country": (["0,Why?,a,b,c,d,A,"], "country"),
    "no question": (["0,,a,b,c,d,A,Spain"], "prompt_question"),
    "another question of that number": (["0,Why?,a,b,c,d,A,Spain", "0,How?,a,b,c,d,A,Spain"], "question_idx"),
    "other options of that number": (["0,Why?,a,b,c,d,A,Spain", "0,Why?,a,b,c,x,A,Spain"], "question_idx"),
    "another country of that number": (["0,Why?,a,b,c,d,A,Spain", "0,Why?,a,b,c,d,A,Peru"], "question_idx"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_asked_is_refused_or_left_out_and_counted(case, home):
    rows, column = BAD[case]
    said = refused("culturalbench", EASY, [*GOOD, *rows])
    assert f"table.csv:{3 + len(rows)}: {column}: " in said and "--skip-bad-rows" in said
    assert not (home / "data").exists()
    said = imported("culturalbench", EASY, [*GOOD, *rows], "--skip-bad-rows")
    assert (said["mended"], said["left_out"], said["imported"][0]["questions"]) == ({}, {column: 1}, 2)
    assert set(spec_of("culturalbench_easy").items.by_id) == {"q8", "q9"}
    record = json.loads((home / "data" / "culturebench" / "easy.source.json").read_text())
    assert record["left_out"] == {column: 1}


def test_nothing_but_bad_rows_is_no_import(home):
    assert "no question" in refused("culturalbench", EASY, BAD["no answer"][0], "--skip-bad-rows")
    assert not (home / "data").exists()


def test_people_are_told_how_many(home):
    (home / "easy.csv").write_text("\n".join([EASY, *GOOD, *MENDED["an empty option"][0], "1,Q?,a,b,c,d,A,Atlantis"]))
    said = CliRunner().invoke(cli, ["data", "import", "culturalbench", "easy.csv", "--skip-bad-rows"]).stdout
    assert "3 rows, 3 questions" in said
    assert "mended     questions by defect: empty options 1\n" in said
    assert "left out   questions by defect: country 1\n" in said


def judged(name, *options, country="Spain"):
    return [f"{name},Why {name}?,{text},{truth},{country}" for text, truth in options]


HARD_GOOD = judged(5, ("a", True), ("b", False), ("c", False)) + judged(6, ("a", False), ("b", True))


@pytest.mark.parametrize(
    ("rows", "true", "false", "mended"),
    [
        (judged(0, ("a", True), ("", False), ("c", False)), {"a"}, {"c"}, {"empty options": 1}),
        (judged(0, ("a", True), ("c", False), ("c ", False)), {"a"}, {"c"}, {"equal options": 1}),
        (judged(0, ("a", "TRUE"), ("b", 1), ("c", 0)), {"a", "b"}, {"c"}, {}),
    ],
)
def test_hard_files_are_mended_alike(rows, true, false, mended):
    said = imported("culturalbench", HARD, [*rows, *HARD_GOOD])
    assert (said["mended"], said["left_out"]) == (mended, {})
    assert asked("q0") == (true | false, true)
    found = {}
    for question in spec_of("culturalbench_hard").items.questions:
        if question.group == "q0":
            found[question.question.split("\n")[1].removeprefix("Proposed answer: ")] = question.right == (1,)
    assert found == dict.fromkeys(true, True) | dict.fromkeys(false, False)


@pytest.mark.parametrize(
    ("rows", "column", "line"),
    [
        (judged(0, ("a", True), ("b", False), ("", True)), "answer", 9),
        (judged(0, ("a", True), ("a", False), ("b", False)), "answer", 8),
        (judged(0, ("a", False), ("b", False)), "answer", 7),
        (judged(0, ("a", True), ("b", "perhaps")), "answer", 8),
        (judged(0, ("a", True)), "options", 7),
        ([*judged(0, ("a", True), ("b", False)), "0,How?,c,False,Spain"], "question_idx", 9),
    ],
)
def test_a_hard_question_is_left_out_whole(rows, column, line):
    assert f"table.csv:{line}: {column}: " in refused("culturalbench", HARD, [*HARD_GOOD, *rows])
    said = imported("culturalbench", HARD, [*HARD_GOOD, *rows], "--skip-bad-rows")
    assert said["left_out"] == {column: 1} and [each["rows"] for each in said["imported"]] == [2, 5]
    assert {question.group for question in spec_of("culturalbench_hard").items.questions} == {"q5", "q6"}


@pytest.mark.parametrize("mark", [";", "\t", "|"])
def test_other_separators(mark):
    rows = ['0,"Why, then?",a,b,c,d,B,South Korea', *GOOD]
    imported("culturalbench", EASY, rows, mark=mark)
    question = spec_of("culturalbench_easy").items.by_id["q0"]
    assert (question.question, question.country) == ("Why, then?", "KR")
    imported("cdeval", PAIRS, ['PDI,work,"What, then?",x,y', "IVR,work,And?,x,y"], mark=mark)
    assert [q.question for q in spec_of("cdeval").items.questions] == ["What, then?", "And?"]


NAMES = {
    "Power Distance Index": "pdi", "power distance": "pdi", "PDI": "pdi", "Power Distance Index (PDI)": "pdi",
    "Individualism vs. Collectivism": "idv", "Individualism vs. Collectivism (IDV)": "idv", "Individualism": "idv",
    "Individualism versus collectivism": "idv", "IDV: Individualism": "idv", "Individualism/Collectivism": "idv",
    "Masculinity vs. Femininity": "mas", "MASCULINITY (MAS)": "mas", "Uncertainty Avoidance Index": "uai",
    "Uncertainty avoidance (uai)": "uai", "Long Term vs. Short Term Orientation": "lto", "Long-term orientation": "lto",
    "Long Term Orientation vs. Short Term Normative Orientation (LTO)": "lto", "Indulgence vs. Restraint": "ivr",
    "Indulgence versus Restraint (IVR)": "ivr", "ivr": "ivr",
}  # fmt: skip


def test_dimensions_by_code_by_name_or_both():
    imported("cdeval", PAIRS, [f"{name},work,Situation {i}?,high,low" for i, name in enumerate(NAMES)])
    found = {q.question: q.dimension for q in spec_of("cdeval").items.questions}
    assert found == {f"Situation {i}?": dimension for i, dimension in enumerate(NAMES.values())}
    assert {q.options for q in spec_of("cdeval").items.questions} == {("high", "low")}


@pytest.mark.parametrize("name", [
    "Courage", "", "Power Distance Index (IDV)", "Collectivism vs. Individualism", "Restraint", "Femininity (MAS)",
    "Short Term vs. Long Term Orientation", "PDI IDV", "Distance", "XYZ (PDI)",
])  # fmt: skip
def test_names_of_no_dimension_or_of_its_low_pole(name):
    """With the low pole first, option 1 might be the low one: nothing is guessed."""
    rows = ["PDI,work,Q?,x,y", "IVR,work,R?,x,y", f"{name},work,S?,x,y"]
    assert "table.csv:4: Dimension: " in refused("cdeval", PAIRS, rows)
    assert imported("cdeval", PAIRS, rows, "--skip-bad-rows")["left_out"] == {"Dimension": 1}
    assert [q.dimension for q in spec_of("cdeval").items.questions] == ["pdi", "ivr"]


def test_pairs_with_an_index_and_pairs_that_are_there_twice():
    rows = ["0,PDI,work,Q?,x,y", "1,IVR,work,R?,x,y", "2,PDI,work,Q?,x,y "]
    assert imported("cdeval", f",{PAIRS}", rows)["mended"] == {"rows of one question": 1}
    assert [(q.id, q.question) for q in spec_of("cdeval").items.questions] == [("pdi2", "Q?"), ("ivr3", "R?")]


@pytest.mark.parametrize("row", ["PDI,work,S?,x,", "PDI,work,S?,x,x", "PDI,work,S?,,"])
def test_a_pair_has_two_options(row):
    rows = ["PDI,work,Q?,x,y", "IVR,work,R?,x,y", row]
    assert "table.csv:4: options: " in refused("cdeval", PAIRS, rows)
    assert imported("cdeval", PAIRS, rows, "--skip-bad-rows")["left_out"] == {"options": 1}


def test_a_mark_before_the_header_is_skipped():
    imported("cdeval", PAIRS, ["PDI,work,Q?,x,y", "IVR,work,R?,x,y"], mangle=lambda text: text.encode("utf-8-sig"))
    assert len(spec_of("cdeval").items.ids) == 2


# ---------------------------------------------------------------- countries

USUAL = {
    "Hong Kong": "HK", "Hong Kong SAR": "HK", "Hongkong": "HK", "Macau": "MO", "Macao": "MO", "Macao SAR": "MO",
    "Macau SAR, China": "MO", "South Korea": "KR", "Korea": "KR", "Republic of Korea": "KR", "Korea, Republic of": "KR",
    "Korea (South)": "KR", "S. Korea": "KR", "North Korea": "KP", "DPRK": "KP",
    "Democratic People's Republic of Korea": "KP",
    "Czech Republic": "CZ", "Czechia": "CZ", "Türkiye": "TR", "Turkiye": "TR", "Turkey": "TR", "UK": "GB", "U.K.": "GB",
    "England": "GB", "Scotland": "GB", "Great Britain": "GB", "USA": "US", "U.S.A.": "US", "the United States": "US",
    "America": "US", "Viet Nam": "VN", "Vietnam": "VN", "Russia": "RU", "Russian Federation": "RU", "Iran": "IR",
    "Iran (Islamic Republic of)": "IR", "Palestine": "PS", "State of Palestine": "PS", "Palestinian Territories": "PS",
    "Taiwan": "TW", "Taiwan, China": "TW", "Syria": "SY", "Laos": "LA", "Bolivia": "BO", "Tanzania": "TZ",
    "Ivory Coast": "CI", "Cote d'Ivoire": "CI", "Côte d’Ivoire": "CI", "The Netherlands": "NL", "Holland": "NL",
    "UAE": "AE", "DR Congo": "CD", "Congo": "CG", "Myanmar": "MM", "Burma": "MM", "Cape Verde": "CV", "Eswatini": "SZ",
    "Bosnia & Herzegovina": "BA", "St. Lucia": "LC", "Guinea-Bissau": "GW", "Guinea": "GN", "Niger": "NE",
    "Nigeria": "NG",
    "The Gambia": "GM", "Slovak Republic": "SK", "Macedonia": "MK", "PRC": "CN", "Mainland China": "CN",
    "Ireland": "IE",
}  # fmt: skip


@pytest.mark.parametrize("name", USUAL)
def test_usual_spellings(name):
    assert country(name).code == country(f" {name.upper()} ").code == USUAL[name]


def test_every_name_and_code_of_iso_is_its_own():
    for entry in pycountry.countries:
        for field in ("alpha_2", "alpha_3", "name", "common_name", "official_name"):
            assert country(getattr(entry, field, entry.alpha_2)).code == entry.alpha_2


@pytest.mark.parametrize(("text", "meant"), [
    ("Republic of Koreas", "South Korea"), ("Englnd", "United Kingdom"), ("Macauu", "Macao"), ("Tailand", "Thailand"),
    ("Saudi", "Saudi Arabia"), ("Viet", "Vietnam"), ("Amerika", "United States"),
])  # fmt: skip
def test_hints_name_the_right_country(text, meant):
    with pytest.raises(UsageError, match=f"Did you mean '{meant}'"):
        country(text)
    assert f"did you mean '{meant}'?" in refused("culturalbench", EASY, [*GOOD, f"0,Why?,a,b,c,d,A,{text}"])


@pytest.mark.parametrize("text", ["Atlantis", "", "zz", "Kosovo", "Virgin"])
def test_no_hint_is_better_than_a_wrong_one(text):
    with pytest.raises(UsageError, match="no such country"):
        country(text)
    assert nearest(text) not in ("Serbia", "Greenland", "North Korea")
    assert nearest("Englnd", ("GL", "KP")) is None
