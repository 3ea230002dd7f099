"""Small files in the shapes of the data sets that users import, every word of them our own."""

import csv
import io
import json
from collections import defaultdict

NAMES = ("globalopinionqa", "blend", "normad", "simbench", "opinionqa")
COUNTRIES = ("United States", "S. Korea", "Egypt (Current national sample)")


def table(rows):
    """The text of a CSV file."""
    out = io.StringIO()
    writer = csv.DictWriter(out, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def shares(seed, number):
    """Some shares in hundredths."""
    weights = [(seed * 7 + 3 * place * place + seed * place) % 11 + 1 for place in range(number)]
    rounded = [100 * weight // sum(weights) / 100 for weight in weights]
    return [round(rounded[0] + 1 - sum(rounded), 2), *rounded[1:]]


def globalopinionqa(questions=8):
    rows = []
    for number in range(questions):
        options = ["Very good", 'It\'s "fair"', "Bad, mostly", "DK/Refused"][: 2 + number % 3]
        given = defaultdict(list)
        for place, country in enumerate(COUNTRIES[: 2 + number % 2]):
            given[country] = shares(number + 3 * place, len(options))
        row = {"question": f"What, then, of number {number}?", "selections": str(given), "options": str(options)}
        rows.append(row | {"source": "GAS" if number % 2 else "WVS"})
    return rows


ANSWERS = ("tea", "coffee", "milk", "7.5", "juice", "water")
REGIONS = ("US", "South_Korea", "West_Java", "Indonesia")


def blend(questions=4, variants=3):
    rows = []
    for region in REGIONS:
        for number in range(questions):
            for variant in range(variants):
                right = ANSWERS[(number + REGIONS.index(region)) % 6]
                others = [text for text in ANSWERS if text != right]
                letters = dict(zip("ABCD", sorted([right, *(others[variant:] + others[:variant])[:3]]), strict=True))
                name = f"Ab-en-{number:02}"
                listed = "\n".join(f"{letter}. {text}" for letter, text in letters.items())
                prompt = (
                    f"What do people drink on day {number} in {region.replace('_', ' ')}? Without any explanation, "
                )
                rows.append({
                    "MCQID": f"{name}_{region}_{variant}", "ID": name, "country": region,
                    "prompt": f"{prompt}choose only one.\n\n{listed}\n\nAnswer:",
                    "choices": json.dumps(letters), "choice_countries": json.dumps(dict.fromkeys(letters, region)),
                    "answer_idx": next(letter for letter, text in letters.items() if text == right),
                })  # fmt: skip
    return rows


PLACES = ("egypt", "south_korea", "united_states_of_america", "papua_new_guinea")


def normad(stories=12):
    return [
        {
            "ID": number, "Country": PLACES[number % 4], "Background": "none", "Axis": "Etiquette",
            "Subaxis": "eating", "Value": f"care {number}", "Rule-of-Thumb": f"wait for guest {number}, always",
            "Story": f"At table {number} they wait. Is that acceptable?", "Explanation": "none",
            "Gold Label": ("yes", "no", "neutral")[number % 3],
        }
        for number in range(stories)
    ]  # fmt: skip


def simbench(questions=8):
    rows = []
    for number in range(questions):
        texts = dict(zip("ABCDE", ("never", "now and then", "often", "at night", "in turns"), strict=True))
        labels = list(texts)[: 2 + number % 4]
        listed = "\n".join(f"({label}): {texts[label]}" for label in labels)
        given = {label: 100 * share for label, share in zip(labels, shares(number, len(labels)), strict=True)}
        rows.append({
            "dataset_name": ("Polls", "Games & more")[number % 2],
            "group_prompt_template": "You are from {country}.",
            "group_prompt_variable_map": str({"country": ("Kenya", "Peru")[number % 2]}),
            "input_template": f"How often does {number} happen?\n\nOptions:\n{listed}",
            "human_answer": str(given), "group_size": 100 + number, "auxiliary": "{}",
        })  # fmt: skip
    return rows


REFERENCES = (
    (["Safe", "Rather safe", "Not safe", "Refused"], [1.0, 2.0, 3.0]),
    (["Safer", "Less safe", "No more or less safe", "Refused"], [1.0, 2.0, 1.5]),
    (["Here", "There", "Elsewhere", "Refused"], [1, 1, 1]),
    (["Yes", "No", "Refused"], [1.0, 2.0]),
)


def info(questions=8):
    rows = []
    for number in range(questions):
        references, places = REFERENCES[number % 4]
        mapping = {float(code): text for code, text in enumerate(references, start=1)}
        rows.append({
            "": number, "key": f"ITEM{number}_W26", "option_mapping": str(mapping),
            "question": f"How is number {number}?", "references": str(references), "option_ordinal": str(places),
        })  # fmt: skip
    return rows


def responses(questions=8, people=30):
    rows = []
    for person in range(people):
        party = ("Democrat", "Republican", "", "Refused")[person % 4]
        row = {"QKEY": person, "WEIGHT_W26": 0.5 + person % 5 / 3, "POLPARTY": party}
        for number in range(questions):
            references, _ = REFERENCES[number % 4]
            chosen = references[(person * person + number) % len(references)]
            row[f"ITEM{number}_W26"] = "" if person % 7 == 6 else chosen
        rows.append(row)
    return rows


FILES = {
    "globalopinionqa": ("global_opinions.csv", globalopinionqa),
    "blend": ("mc_questions_file.csv", blend),
    "normad": ("normad_etiquette_final_data.csv", normad),
    "simbench": ("SimBenchPop.csv", simbench),
}
WAVE = "human_resp/American_Trends_Panel_W26"


def write(home, name):
    """Write the small file of a data set, and return what ``data import`` is given."""
    if name != "opinionqa":
        file, rows = FILES[name]
        (home / file).write_text(table(rows()), encoding="utf-8")
        return home / file
    (home / WAVE).mkdir(parents=True)
    (home / WAVE / "info.csv").write_text(table(info()))
    (home / WAVE / "responses.csv").write_text(table(responses()))
    return home / "human_resp"
