"""CLCA's check of the language: foreign names and poor English pass as English, other languages do not."""

import socket

import numpy as np
import pytest
from culteval.optimizers.clca.dialogues import dialogue_filter as judging
from culteval.optimizers.clca.dialogues import language
from culteval.optimizers.clca.dialogues.dialogue import Dialogue, Turn, write_dialogues
from culteval.optimizers.clca.dialogues.dialogue_filter import Decision
from culteval.optimizers.clca.dialogues.language import ENGLISH, Language, language_of, not_in
from culteval.optimizers.clca.dialogues.scenarios import adapted, place_of, seeds
from culteval.optimizers.clca.pipeline import Pipeline
from culteval.optimizers.clca.rows import read_rows
from culteval.optimizers.clca.settings import CLCASettings
from hypothesis import given
from hypothesis import strategies as st

# English with more names, greetings and dishes of a country than anybody would put into it
NAMES = {
    "CN": """Nihao Li Shuang, did you bring the jiaozi from Chengdu for Zhao Meiling?
        Yes, Auntie Zhao, and baijiu for Uncle Wang, but keep it for Chunjie.
        Too kind! Tell Chen Xiaoming the hongbao is on the table.""",
    "SA": """Ahlan wa sahlan, Abdulrahman Al-Ghamdi! Will you take qahwa or karak with your kabsa?
        Qahwa, ya Umm Khalid, and then I must drive from Jeddah to Taif before Maghrib.
        Inshallah you stay until Isha; Noura Al-Otaibi made kleija and jareesh.""",
    "IN": """Namaste Lakshmi Venkataraman ji, the dosa and sambar at Saravana Bhavan are still hot.
        Arre Rajesh bhaiya, my thali came from Chandni Chowk, with paneer and gulab jamun.
        Then Deepavali in Thiruvananthapuram, yaar, and the puja at Padmanabhaswamy with Amma.""",
    "DE": """Grüß Gott, Frau Schmidt-Hohenzollern, is the Gemütlichkeit in Garmisch-Partenkirchen still the same?
        Servus, Herr Müller! The Weißwurst and the Brezn at the Viktualienmarkt are better.
        Then we meet at the Stammtisch after Feierabend, with Jürgen and Käthe.""",
    "BR": """Oi João, are you coming to the churrasco at Dona Conceição's in Florianópolis?
        Yes, with farofa, feijoada and pão de queijo from São Gonçalo.
        Tell Thaís Magalhães to bring the cachaça, and Guimarães the pandeiro.""",
    "EG": """Sabah el-kheir, ya Mahmoud! Koshary or ful medames from the stall at Khan el-Khalili?
        Koshary, ya Hagg Abdel-Fattah, and molokhia for Umm Hassan in Zamalek.
        Mashallah, then we drink karkadeh in Imbaba with Sherif El-Gendy.""",
    "JP": """Okaeri, Takahashi-san, the onigiri and the miso are next to the kotatsu.
        Tadaima! Watanabe-senpai gave me omiyage from Hiroshima and Miyajima, momiji manju.
        Then we go to the izakaya in Shimokitazawa with Kobayashi-kun and Yamamoto-sensei.""",
    "MX": """Buenos días, Doña Guadalupe, two tacos al pastor and an agua de jamaica, please.
        Here, Señor Hernández, with nopales and salsa de chile chipotle from Oaxaca.
        See you at the quinceañera of Xóchitl in Guanajuato, comadre.""",
    "ID": """Selamat pagi, Bu Siti Nurhaliza, the nasi goreng and the sambal are ready for Pak Budi.
        Terima kasih, but the arisan in Yogyakarta starts at nine, and Ibu Wulandari waits.
        Then take the kerupuk and the tempe with you to Malioboro, Mbak Dewi.""",
    "TR": """Hoş geldin, Ayşegül Hanım, the börek and the çay are on the table in Kadıköy.
        Teşekkürler, Mehmet Bey, but Çiğdem waits for the baklava from Gaziantep.
        Then we see each other at the bayram in Şanlıurfa, inşallah.""",
    "NG": """Oga Chukwuemeka, how now? Is the jollof and the suya from Obalende still there?
        Abeg, Ngozi Okonkwo finished the egusi, but there is akara and moi moi for you o.
        No wahala, I will greet Alhaji Babangida in Kaduna before the owambe.""",
    "RU": """Privet, Anastasia Vladimirovna, the borscht and the pelmeni are getting cold on the dacha.
        Spasibo, Dmitri Sergeyevich, Babushka Lyudmila poured kvass into the samovar again.
        Then to the banya in Yekaterinburg with Svetlana and Mikhail Afanasyevich!""",
    "KR": """Annyeonghaseyo, Kim Min-jun ssi, have some kimchi jjigae and tteokbokki before Chuseok.
        Gamsahamnida, Park Seo-yeon, but halmeoni made songpyeon and japchae in Gwangju.
        Then soju and samgyeopsal in Hongdae with sunbae Choi Ji-hoon.""",
    "FR": """Bonjour Madame Lefèvre, two croissants and a pain au chocolat for Monsieur Beauchêne.
        Voilà, Aurélie, and the crème brûlée for the vernissage in Aix-en-Provence?
        Merci, we meet at the apéro in Montmartre with François and Bénédicte.""",
}
# what a small model makes of English, and of nothing
POOR = {
    "in a circle": """It is a very long day.
        She said It is a very long day.
        You said It is a very long day.""",
    "no grammar": """I am go to the market yesterday and he are not like it very
        why you is want the rent because the rent the rent are due
        yes yes ok me too want""",
    "typing errors": """teh moning is vrey nicee adn I wnat teh brekfast
        whta aer yuo sayng abuot teh hosue
        nothign at al frined""",
    "names alone": "Emily Thompson Emily Thompson and Tanya Davis\nTanya Davis Emily\nEmily Thompson is Tanya Davis",
    "few words": "ok\nno no\nhm, ok then",
    "one word": "la la la la la la\nLa la, la la la!\nla la la",
    "sounds": "Oh! Ah! Hmm.\nUh, la la la la.\nHa ha ha, oh no, hm.",
    "broken off": "I'm sor I can't thi the ta tablecloth is\nThe. The the. And. Is it is\n1. 2. - **Option** A: B:",
    "markup": "[Action] {speak} <|im_end|> assistant\nSPEAK: SPEAK: NON-VERBAL\n\\n\\n### ```python print(1)```",
    "a menu": "tea, rice, mango, tofu, kebab, sushi, pasta, taco, pizza\nsalad, soup, ramen\ncake, radio, banana",
    "figures": "12 34 500 and 7,000 is 4\n3 + 4 = 7\n8 8 8",
    "no letters": "...\n?!\n1, 2, 3",
    "foreign marks": "。。、。「」\n！？、。。、\n。。、、。",
}
FOREIGN = {
    "fr": """Bonjour, tu viens dîner chez nous ce soir ?
        Avec plaisir, mais je dois d'abord passer à la banque.
        Alors à huit heures, et n'oublie pas le pain.""",
    "de": """Guten Morgen, möchten Sie noch einen Kaffee?
        Nein danke, ich muss gleich zur Arbeit und habe es eilig.
        Dann sehen wir uns heute Abend im Verein.""",
    "es": """Buenos días, ¿ya pagaste el alquiler de este mes?
        Todavía no, el dueño viene mañana por la tarde.
        Pues dile que la puerta sigue rota y que hace frío.""",
    "id": """Selamat pagi, apakah kamu sudah makan hari ini?
        Belum, saya masih menunggu ibu pulang dari pasar.
        Kalau begitu mari kita makan bersama di rumah saya.""",
    "pt": """Bom dia, você já falou com o seu chefe sobre as férias?
        Ainda não, ele está muito ocupado esta semana.
        Então fale amanhã, antes que todos saiam.""",
    "it": """Buongiorno, hai già parlato con tua madre della festa?
        Non ancora, oggi è al lavoro fino a tardi.
        Allora chiamala stasera, perché domenica è vicina.""",
    "nl": """Goedemorgen, wil je nog een kopje koffie voor we gaan?
        Nee dank je, ik moet zo naar mijn werk.
        Dan zien we elkaar vanavond bij de buren.""",
    "tr": """Günaydın, bugün pazara gidecek misin?
        Evet, annem için biraz ekmek ve peynir alacağım.
        O zaman bana da iki kilo domates getirir misin?""",
    "ru": "Доброе утро, ты уже позавтракал?\nНет ещё, я жду маму с рынка.\nТогда поешь с нами, места хватит.",
    "ar": "صباح الخير، هل تناولت فطورك اليوم؟\nليس بعد، أنتظر أمي من السوق.\nإذن تعال وكل معنا في البيت.",
    "hi": "नमस्ते, क्या आपने आज खाना खाया?\nअभी नहीं, मैं माँ का इंतज़ार कर रहा हूँ।\nतो हमारे साथ घर पर खाइए।",
    "ja": "おはようございます、朝ごはんはもう食べましたか。\nいいえ、まだです。\nでは一緒に食べましょう。",
    "zh": "早上好，你今天吃过饭了吗？\n还没有，我在等妈妈从市场回来。\n那就到我家一起吃吧，不用客气。",
}
ENGLISH_TALK = """Good morning, have you paid the rent for this month yet?
    Not yet, the owner comes tomorrow in the afternoon.
    Then tell him that the door is still broken and that it is cold."""
HALF_GERMAN = """Na ja, Jürgen, the Bürgermeister said the Straßenfest is verboten because of the Lärmschutzverordnung.
    Ach so! But Käthe Schröder from the Schützenverein has the Genehmigung from the Ordnungsamt.
    Then tell Frau Müller that the Kartoffelsalat and the Käsespätzle are ready, und die Bratwürste auch.
    Jawohl! Und the Blaskapelle aus Oberammergau plays after the Abendbrot.
    Wunderbar, but the Kuchen at Tante Gerda's is on Sonntag, nicht vergessen."""


def talk(text, name="a"):
    lines = [line.strip() for line in text.split("\n")]
    turns = tuple(Turn(speaker=("Ann", "Sam")[i % 2], kind="speak", text=line) for i, line in enumerate(lines))
    fields = {"scenario": "A kitchen.", "backgrounds": ("", ""), "goals": ("", "")}
    return Dialogue(id=name, people=("Ann", "Sam"), turns=turns, **fields)


def problems(text, expected=ENGLISH):
    return judging.check(talk(text), place_of("US"), ("language",), expected)


@pytest.mark.parametrize("text", (NAMES | POOR).values(), ids=(NAMES | POOR).keys())
def test_foreign_names_and_poor_english_pass(text):
    assert problems(text) == [] == problems("\n".join([text] * 6))


@pytest.mark.parametrize(("code", "text"), FOREIGN.items(), ids=FOREIGN.keys())
def test_other_languages_do_not(code, text):
    latin = set(language.scripts(text)) == {"LATIN"}
    (problem,) = problems(text)
    assert problem == (f"language: reads as '{code}', not 'en'" if latin else "language: 0% of letters are Latin")
    assert problems("\n".join([text] * 6)) == [problem]
    assert language_of([text]).code == code and problems(text, language_of([text])) == []


def test_the_threshold_is_far_from_both(monkeypatch):
    monkeypatch.setattr(language, "SURELY", 1e3)
    assert [code for code, text in NAMES.items() if problems(text)] == []
    monkeypatch.setattr(language, "SURELY", 1e8)
    assert [code for code, text in FOREIGN.items() if not problems(text)] == []


@given(st.text(max_size=80))
def test_whatever_is_said_can_be_asked_for_its_language(text):
    assert not_in(ENGLISH, text) == not_in(ENGLISH, text) and "reads as" not in not_in(language_of([text]), text)


def test_every_scene_of_every_country_reads_as_english():
    texts = []
    for code in (*NAMES, "US", "GB"):
        for scene in adapted(code, len(seeds()), np.random.default_rng(1)):
            told = [part for one in scene.people for part in (one.background, one.goal, one.secret)]
            texts.append(" ".join([scene.setting, *scene.customs, *told]))
    assert len(texts) >= 16 * 60 and not [text for text in texts if not_in(ENGLISH, text)]


def test_a_turn_in_another_language_is_not_another_language():
    french, english = FOREIGN["fr"].split("\n")[0], "With pleasure, but I have to go to the bank first."
    assert problems(f"{french}\n{english}\nAt eight then, and do not forget the bread.") == []
    assert problems(HALF_GERMAN) == []
    assert problems(f"{NAMES['DE']}\n{FOREIGN['de']}\n{FOREIGN['de']}") != []


@pytest.mark.parametrize(
    "letters", ["abcdefghijklmnopqrstuvwxyz     ", "ABCXYZabcxyz0123456789+/", "0123456789 .,", "\x00�?"]
)
def test_noise_of_any_length_is_no_language(letters):
    rng = np.random.default_rng(0)
    for length in (1, 30, 300, 3000):
        assert problems("x" + "".join(rng.choice(list(letters), length))) == []


# people's own dialogues


def filtered(folder, texts, checks=("language",)):
    """Names of the dialogues of a file that the stage ``filter`` keeps."""
    write_dialogues(folder / "own.jsonl", [talk(text, name) for name, text in texts.items()])
    settings = CLCASettings(dialogues=str(folder / "own.jsonl"), checks=checks, judge=False, scenarios=1)
    course = Pipeline(folder / "run", "US", "", settings, 0, pytest.fail, pytest.fail, lambda *told: None)
    course.run("filter")
    return [each.id for each in read_rows(folder / "run" / "decisions.jsonl", Decision) if each.kept]


@pytest.mark.parametrize(("code", "other"), [("es", "pt"), ("id", "en"), ("zh", "ja"), ("ar", "en"), ("hi", "zh")])
def test_what_most_of_a_file_is_in_is_asked_of_all(tmp_path, code, other):
    texts = FOREIGN | {"en": ENGLISH_TALK}
    mixed = {"a": texts[code], "b": texts[other], "c": "\n".join(reversed(texts[code].split("\n"))), "d": "1\n2\n3"}
    assert filtered(tmp_path, mixed) == ["a", "c", "d"]


def test_relatives_pass_for_each_other_and_scripts_are_those_of_the_language():
    malay = "Selamat pagi, awak dah makan ke belum?\nBelum lagi, saya tengah tunggu mak balik dari pasar."
    egyptian = "إزيك يا محمود، عامل إيه النهارده؟\nأنا كويس الحمد لله، بس تعبان شوية من الشغل."
    assert problems(malay, language_of([FOREIGN["id"]])) == [] == problems(egyptian, language_of([FOREIGN["ar"]]))
    assert language_of([FOREIGN["zh"], NAMES["CN"] * 5, FOREIGN["zh"]]) == Language("zh", "CJK")
    assert language_of([]) == language_of(["1, 2!"]) == ENGLISH and language_of(["ᏣᎳᎩ " * 9]).script == "CHEROKEE"
    assert language.scripts("かなカナ漢字") == {"CJK": 6} and language.scripts("1, 2!") == {}


def test_a_file_in_two_languages_passes_without_the_check(tmp_path):
    texts = {name: FOREIGN[name] for name in ("es", "ar", "zh")}
    assert filtered(tmp_path, texts, checks=("length",)) == list(texts)


def test_each_check_loads_what_it_needs_and_nothing_from_elsewhere(monkeypatch):
    def never(*given):
        raise AssertionError("no network")

    monkeypatch.setattr(socket, "socket", never)
    language._identifier.cache_clear()
    assert judging.check(talk(FOREIGN["fr"]), place_of("US"), ("length",)) == []
    assert language._identifier.cache_info().currsize == 0
    assert problems(FOREIGN["fr"]) and language._identifier.cache_info().currsize == 1
