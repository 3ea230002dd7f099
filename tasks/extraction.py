"""Parsing of an option out of generated text, in any script."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from .answers import UNPARSED

MOST_READ = 8_000  # characters; later text is ignored
_BEFORE = 120  # characters before an option that are searched for statements and negations

# Scripts that may put a particle right behind a digit or letter: Hebrew to Khmer, East Asian, Arabic's forms.
_UNSPACED = "\u0590-\u1cff\u2e80-\ud7ff\uf900-\ufdff\ufe70-\ufefc"
_MEETING = re.compile(
    rf"(?<=[0-9A-Za-z])(?=[{_UNSPACED}])|(?<=[{_UNSPACED}])(?=[0-9A-Za-z])|(?<=\boption|\banswer|\bchoice)(?=\d)",
    re.IGNORECASE,
)

# A part of the scale ("1-5", "1 to 5", "between 1 and 5") repeats the question and is no answer.
_TO = r"-|–|—|~|〜|to\b|through\b|bis\b|a\b|à\b|до|到|至|から|부터|에서|إلى|الى|से"
_RANGE = re.compile(rf"(?<![\w.,])\d+\s*(?:{_TO})\s*\d+(?!\w)|\bbetween\s+\d+\s+and\s+\d+\b", re.IGNORECASE)
# A whole number, not part of a word; decimals and negative numbers are one and no option. "4/5" and "4 out of 5" are 4.
_NUMBER = re.compile(
    r"(?<![\w−-])(?<!\d[.,])[+]?(?P<option>[−.-]?\d+(?:[.,]\d+)*)(?!-?\w)"
    r"(?:\s*(?:/|(?:out\s+)?of\b|von\b|sur\b|de\b|من)\s*(?P<whole>\d+)(?!\w))?"
)
# A capital. "A" and "I" are words too: "A good day" and "I am" are no answers, while "A is right" and "A or B" are.
_VERB = (
    r"(?:is|was|because|since|as|or|and|nor|but|over|would|seems|fits|suits|describes|sounds|matches"
    r"|does)\b|not\s+[A-Z]\b"
)
_LETTER = re.compile(
    rf"(?<![\w'’&.-])(?P<option>[B-HJ-Z]|A(?=\s+(?:{_VERB})|(?![^\S\n]+[a-z]))|I(?=\s*(?:[).:*\]\"”。]|$)|\s+(?:is|or)\b))"
    r"(?![\w'’&+#-]|\.[A-Za-z]\b)"
)
# A small letter is a label alone, at the beginning, in brackets, or named as an option.
_SMALL = re.compile(
    r"(?:^\W*|(?<!\w)\(|\b(?:option|answer|choice|letter)(?:\s+is)?\W{1,3}|\bboxed\{|<answer>\s*)"
    r"[a-z](?=[).:](?!\S)|\W*$|[)}<])",
    re.IGNORECASE,
)

# Text that looks like an option and is none: what precedes it, and what follows it.
_NAME = re.compile(
    r"(?:\b(?:vitamin|plan|type|hepatitis|world war|chapter|page|part|section|article|question|step|phase|team|group)"
    r"|维生素|維生素|ビタミン|비타민|计划|計劃|プラン|플랜|满分|滿分|満分|问题|問題|質問|질문|السؤال|فيتامين|प्रश्न|विटामिन)[\s:#]*$",
    re.IGNORECASE,
)
_LEVELS = re.compile(r"\s*(?:段階|단계|级|級|点\s*(?:満点|中|量表)|點\s*量表|점\s*(?:만점|척도)|分\s*[满滿]分)")
_COUNTED = re.compile(
    r"\s*(?:(?:years|people|persons|men|women|children|kids|friends|times|days|hours|weeks|months|minutes|percent)\b"
    r"|[个個人岁歲歳年月日天次명년살]|سن|أشخاص|साल|लोग|बच्चे)",
    re.IGNORECASE,
)

# Words between a negation, or a statement, and the option that it refers to.
_OPTION = r"(?:option|choice|number|letter|选项|選項|选择|選擇|رقم|الخيار|विकल्प)"
_WORDS = (
    r"(?:choos\w*|pick\w*|select\w*|say|go|going|agree|identify|decide|think|believe|rate|give|take|prefer|favou?r|like"
    r"|answer|option|choice|number|letter|the|a|my|it|it's|is|be|that|either|any|of|between|with|for|to|in|as|would"
    r"|should|really|want|happy|[会會能想要愿願意是该該选選择擇同认認为為觉得在于答案项項知道属屬]"
    r"|أختار|اختار|الخيار|الإجابة|رقم|هو|هي|بين|أوافق|على|मैं|विकल्प|उत्तर)"
)
_NOT = re.compile(
    r"(?:\b(?:not|never|neither|nor|cannot|none|without|except|unlike|rather\s+than|instead\s+of|nicht|weder|noch)\b"
    r"|n['’]t\b|不|没有?|沒有?|并非|並非|[无無]法|(?<!\w)(?:ليس(?:ت)?|لا|لن|ولا|न|ना)(?!\w))"
    rf"(?:[\s*(\"'“‘「]*{_WORDS}){{0,8}}[\s*(\[\"'“‘「]*$",
    re.IGNORECASE,
)
_DENIED = re.compile(
    r"[\s)\]*\"'”’」]*(?:"
    r"(?:is|are|was|do(?:es)?|did|would|could|can|wo|ca)\s*(?:n['’]?t|not|never|neither|wrong|incorrect|too)\b"
    r"|[都也并並]?\s*(?:不是|不对|不對|不适|不適|不合|不行|不选|不選|不会|不會|不符|不能)"
    r"|(?:では|じゃ|でも)\s*(?:な|あ?りません)|[はをも]\s*選[^。、]{0,6}(?:ない|ません)"
    r"|[이가은는도]?\s*(?:아니|아닙)|[을를은는도]\s*[^.,]{0,8}(?:않|없|못)"
    r"|(?:को|भी|तो)?\s*(?:चुन\S*\s*)?(?:नहीं|मत)|(?:ليس|لا)\s+(?:ي|ت|صح))",
    re.IGNORECASE,
)
_STATED = re.compile(
    rf"(?:\b(?:answer|choice|choose|chose|pick|select)\b|\bboxed\b|<answer>|答案|回答|[选選](?:择|擇|择了)?|答え|정답|답"
    r"|الإجابة|الجواب|أختار|اختار|उत्तर|जवाब)"
    rf"(?:\s*(?:is|would\s+be|[是为為はが은는이]|هو|هي|है)(?!\w))?\s*(?:[:：=]|->)?(?:\s*{_OPTION})?"
    r"[\s*(\[{>$\"'“‘「`#]*$",
    re.IGNORECASE,
)
_OPENING = re.compile(rf"\W*(?:{_OPTION}[\s*:#]*)?", re.IGNORECASE)
_OPENED = re.compile(r"[*\]\"”`]*(?:\s*[).:(：、]|\s+[-–—]\s|[.!]?\s*(?:\n|$))")
_LABEL = re.compile(r"[*\]\"”]*\s*[).:=(：、]|\s+[-–—]\s")
_EQUATED = re.compile(r"[\s*)\]\"”]*=")
_JOINT = re.compile(
    r"[\s*)\]\"”]*?(?:[,、،]?\s*(?:\b(?:or|and|nor|oder|und|ou|et|y|o)\b|[/&+]|或者?|和|还是|還是|與|与|と|や|か"
    rf"|도|나|も|또는|이나|과|와|أو|او|و(?:لا)?|या|और|न)\s*(?:{_OPTION}\s*)?|(?P<listed>[,、،])\s*|(?P<space>[^\S\n]+))"
    r"[\s*(\[\"“]*",
    re.IGNORECASE,
)
_LIST_ENDS = re.compile(r"[\s*)\]\"”]*(?:[.,;!?)。，、؛۔]|$|(?:and|or)\b)")


@dataclass(frozen=True)
class _Named:
    """The position of a number or letter, and its option; None where it is no option of the question."""

    start: int
    end: int
    option: str | None


def parse_code(text: str, choices: Sequence[str], codes: Sequence[int]) -> int:
    """Parse the code of the option that ``text`` gives as its answer; ``UNPARSED`` if it gives none.

    Options are whole numbers or single letters, in any script's digits. An option in a statement ("the answer is B")
    takes precedence over other options, and among those the first counts. No answer are: a number or letter that is no
    option ("10" contains no "1", and an answer that opens with "7" is not corrected by a later one), a rejected option
    ("neither A nor B"), two options that are joined ("A or B") or stated on one line. A range ("1-5") and a list of all
    options repeat the question and are skipped. Text inside ``<think>`` is ignored.

    Args:
        choices: the possible answers, in code order.
        codes: their codes.
    """
    if not choices:
        return UNPARSED
    text = _folded(text)
    if choices[0].isalpha():
        text = _SMALL.sub(lambda found: found[0][:-1] + found[0][-1].upper(), text)
        named = list(_letters(text, choices))
    else:
        text = _RANGE.sub(lambda found: " " * len(found[0]), _numeral(text))
        named = list(_numbers(text, choices))
    option = _answer(text, _unlisted(text, named, choices))
    return UNPARSED if option is None else codes[choices.index(option)]


def after_reasoning(text: str) -> str:
    """Return the text after the last ``</think>``; without one, the text before unfinished reasoning."""
    _, closed, behind = text.rpartition("</think>")
    return behind if closed else text.partition("<think>")[0]


def _folded(text: str) -> str:
    """Return the text after the reasoning with plain digits and letters, and a space where they meet another script."""
    text = _MEETING.sub(" ", "".join(map(_plain, after_reasoning(text)[:MOST_READ])))
    return re.sub(r" ?\n[ \n]*", "\n", re.sub(r"[^\S\n]+", " ", text))


def _plain(char: str) -> str:
    if char.isascii():
        return char
    if unicodedata.category(char) == "Nd":
        return str(unicodedata.digit(char))
    if unicodedata.decomposition(char).startswith(("<wide>", "<circle>")):
        return unicodedata.normalize("NFKC", char)
    if unicodedata.category(char) == "Cf" or char in "\ufe0f\u20e3":  # direction marks, joiners, keycaps
        return ""
    return "." if char == "\N{ARABIC DECIMAL SEPARATOR}" else char


def _numeral(text: str) -> str:
    """Replace a Chinese numeral by a digit if it is the whole answer; within a text it is part of many words."""
    word = text.strip(" \n。.、，,()（）「」“”*")
    value = unicodedata.numeric(word, -1) if len(word) == 1 and unicodedata.category(word) == "Lo" else -1
    return str(int(value)) if value >= 0 else text


def _numbers(text: str, choices: Sequence[str]) -> Iterator[_Named]:
    for found in _NUMBER.finditer(text):
        before = text[max(0, found.start() - _BEFORE) : found.start()].rstrip()
        if _NAME.search(before) or _LEVELS.match(text, found.end()):
            continue
        counts = _COUNTED.match(text, found.end()) and not before.endswith("第")
        offered = found["option"] in choices and found["whole"] in (None, str(max(map(int, choices))))
        yield _Named(found.start(), found.end(), found["option"] if offered and not counts else None)


def _letters(text: str, choices: Sequence[str]) -> Iterator[_Named]:
    for found in _LETTER.finditer(text):
        letter, before = found["option"], text[max(0, found.start() - _BEFORE) : found.start()]
        if _NAME.search(before) or (letter == "I" and "I" not in choices):
            continue
        yield _Named(found.start(), found.end(), letter if letter in choices else None)


def _unlisted(text: str, named: list[_Named], choices: Sequence[str]) -> list[_Named]:
    """Remove the mentions that belong to a list of all options as labels, in either order."""
    labels = [each for each in named if _LABEL.match(text, each.end)][: len(choices)]
    shown, listed = [each.option for each in labels], sorted(choices, key=lambda option: (len(option), option))
    return [each for each in named if each not in labels] if shown in (listed, listed[::-1]) else named


def _answer(text: str, named: list[_Named]) -> str | None:
    """Return the stated option, else the first one, else the only one of an equation such as "3 = medium"."""
    stated: dict[int, list[str | None]] = {}
    others: list[str | None] = []
    equated: list[str | None] = []
    for run in _runs(text, named):
        start, end = run[0].start, run[-1].end
        before = text[max(0, start - _BEFORE) : start]
        if _NOT.search(before) or _DENIED.match(text, end):
            continue
        options = {each.option for each in run}
        option = options.pop() if len(options) == 1 else None
        opens = start < _BEFORE and _OPENING.fullmatch(before) and _OPENED.match(text, end)
        if opens or _STATED.search(before):
            stated.setdefault(text.count("\n", 0, start), []).append(option)
        elif _EQUATED.match(text, end):
            equated.append(option)
        else:
            others.append(option)
    for pool in (next(iter(stated.values()), []), others[:1], equated):
        if pool:
            return pool[0] if len(set(pool)) == 1 else None
    return None


def _runs(text: str, named: list[_Named]) -> Iterator[list[_Named]]:
    """Yield mentions in groups; options that are joined ("A or B", "1, 2, 3") form one group."""
    run: list[_Named] = []
    for each in named:
        if run and not _joined(text, run[-1], each):
            yield run
            run = []
        run.append(each)
    if run:
        yield run


def _joined(text: str, one: _Named, other: _Named) -> bool:
    found = _JOINT.fullmatch(text, one.end, other.start) if other.start - one.end < 40 else None
    if not found or not (found["listed"] or found["space"]):
        return bool(found)
    offered = one.option is not None and other.option is not None
    return offered and bool(found["space"] or _LIST_ENDS.match(text, other.end))
