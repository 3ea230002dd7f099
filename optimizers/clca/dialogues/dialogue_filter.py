"""Filtering of dialogues: checks without a judge, then three judgements and the published drop rule.

A judge is asked for quality, for the fit to the culture and, given both, whether to keep the dialogue; each with its
confidence. A dialogue is dropped only if quality or the final judgement is bad with high confidence (Liu et al. 2025,
section 3).
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal, get_args

from pydantic import Field

from ....tasks.schema import Strict
from ....tasks.spec import read_yaml
from ...writing.writer import Heard, Message, Style, Writer
from .dialogue import Dialogue
from .language import ENGLISH, Language, not_in
from .scenarios import Place

LEAST_TURNS, LEAST_WORDS, MOST_REPEATED = 3, 12, 0.5
Check = Literal["length", "both spoke", "repetition", "language", "culture words"]
CHECKS: tuple[Check, ...] = get_args(Check)
CONFIDENCE = ("very confident", "confident", "not sure")
QUESTIONS = ("quality", "culture", "meta")
_UNSPACED = "[\u0e00-\u0e7f\u3040-\u30ff\u3400-\u9fff]"  # Thai, Japanese and Chinese characters
_MOST = 4000  # characters of a reply
_VERDICT = re.compile(r"\W*(?:verdict\W+)?(good|bad)\b", re.IGNORECASE)
_VERDICT_LINE = re.compile(rf"\n{_VERDICT.pattern}", re.IGNORECASE)  # of another answer, which has its own confidence
# As in ``CONFIDENCE``; a negation ("not very confident", "isn't sure") is within one line, without a comma.
_CONFIDENCE = re.compile(
    r"(\bvery[\s-]+confident\b)|(\bconfident\b)|((?:\bnot|n['’]t)[ -]+(?:\w+[ -]+){0,2}(?:confident|sure|certain)\b)",
    re.IGNORECASE,
)
_TEXTS = Path(__file__).with_name("agents.yaml")


class Judgement(Strict):
    """A judge's answer; ``verdict`` is None if none could be parsed, which never drops a dialogue."""

    verdict: Literal["good", "bad"] | None
    confidence: Literal["very confident", "confident", "not sure"]
    reply: str = Field(max_length=_MOST)

    @property
    def drops(self) -> bool:
        """Return whether the verdict is bad and very confident."""
        return self.verdict == "bad" and self.confidence == "very confident"

    def text(self) -> str:
        """Format the judgement in words, for the final judgement that weighs both."""
        return f"{self.verdict}, {self.confidence}" if self.verdict else "nothing that can be read"


class Decision(Strict):
    """Whether a dialogue is kept, and the reasons if not; the judgements by question."""

    id: str
    kept: bool
    reasons: tuple[str, ...] = ()
    judgements: dict[str, Judgement] = Field(default_factory=dict)


def read_judgement(reply: str) -> Judgement:
    """Parse a verdict and the first confidence after it; without a confidence it counts as not sure."""
    reply = reply[:_MOST]
    found = _VERDICT.match(reply)
    if not found:
        return Judgement(verdict=None, confidence="not sure", reply=reply)
    confidence = _CONFIDENCE.search(_VERDICT_LINE.split(reply[found.end() :], maxsplit=1)[0])
    level = CONFIDENCE[(confidence.lastindex or 0) - 1] if confidence else "not sure"
    return Judgement(verdict=found[1].lower(), confidence=level, reply=reply)


def check(dialogue: Dialogue, place: Place, checks: Sequence[str] = CHECKS, language: Language = ENGLISH) -> list[str]:
    """List the problems of a dialogue that can be detected without a judge; empty if there are none.

    Each problem begins with the name of its check and a colon.

    Args:
        language: the expected language of the dialogue as a whole.
    """
    spoken = [turn for turn in dialogue.turns if turn.kind == "speak"]
    words = split_words(said(dialogue).lower())
    problems = []
    if len(dialogue.turns) < LEAST_TURNS:
        problems.append(f"length: {len(dialogue.turns)} turns, fewer than {LEAST_TURNS}")
    if len(words) < LEAST_WORDS:
        problems.append(f"length: {len(words)} words, fewer than {LEAST_WORDS}")
    if silent := [name for name in dialogue.people if name not in {turn.speaker for turn in spoken}]:
        problems.append(f"both spoke: {' and '.join(silent)} said nothing")
    if (share := repeated(words)) > MOST_REPEATED:
        problems.append(f"repetition: {share:.0%} of word triples occur before")
    if "language" in checks and (why := not_in(language, said(dialogue))):  # loading the detection library takes time
        problems.append(f"language: {why}")
    if not names_culture(dialogue, place):
        problems.append("culture words: no name, place or thing of the country is mentioned")
    return [problem for problem in problems if problem.partition(":")[0] in checks]


def said(dialogue: Dialogue) -> str:
    """Return the words of all turns."""
    return " ".join(turn.text for turn in dialogue.turns)


def split_words(text: str) -> list[str]:
    """Split at spaces; in scripts without spaces, into characters."""
    return re.findall(rf"{_UNSPACED}|(?:(?!{_UNSPACED})\S)+", text)


def repeated(words: Sequence[str]) -> float:
    """Compute the share of word triples that occurred before; 0 for fewer than three words."""
    triples = list(zip(words, words[1:], words[2:], strict=False))
    return 1 - len(set(triples)) / len(triples) if triples else 0.0


def names_culture(dialogue: Dialogue, place: Place) -> bool:
    """Return whether the turns mention a person's name, or a word of the country, ignoring accents and case."""
    text = _plain(said(dialogue))
    names = [part for name in dialogue.people for part in name.split()]
    listed = [_plain(word) for word in (*place.words, *place.cities, *place.foods, *names)]
    return any(re.search(_bounded(word), text) for word in listed)


def _bounded(word: str) -> str:
    """Build a pattern of a separate word; within others if its script has no spaces."""
    return re.escape(word) if re.match(_UNSPACED, word) else rf"\b{re.escape(word)}s?\b"


def _plain(text: str) -> str:
    apart = unicodedata.normalize("NFKD", text.lower())
    return "".join(char for char in apart if not unicodedata.combining(char))


def judge(
    dialogues: Sequence[Dialogue], culture: str, writer: Writer, seed: int, heard: Heard
) -> list[dict[str, Judgement]]:
    """Ask three judgements per dialogue with the most probable answers; some dialogues at a time.

    A local writer reads a dialogue once for all three, as far as its memory goes.
    """
    texts, style = read_yaml(_TEXTS), Style(most=12, top_p=0)
    found: list[dict[str, Judgement]] = [{} for _ in dialogues]
    total = len(dialogues) * len(QUESTIONS)
    for start in range(0, len(dialogues), writer.batch):
        group = range(start, min(start + writer.batch, len(dialogues)))
        with writer.remembering():
            for number, question in enumerate(QUESTIONS):
                heard(start * len(QUESTIONS) + number * len(group), total)
                chats = [_question(texts[question], dialogues[i], culture, found[i]) for i in group]
                for i, reply in zip(group, writer.write(chats, style, seed + start), strict=True):
                    found[i][question] = read_judgement(reply)
    if dialogues:
        heard(total, total)
    return found


def _question(text: str, dialogue: Dialogue, culture: str, known: Mapping[str, Judgement]) -> list[Message]:
    """Build the chat of a question; ``known`` are the judgements of earlier ones."""
    words = {"dialogue": as_text(dialogue), "culture": culture}
    words |= {f"{question}_verdict": given.text() for question, given in known.items()}
    return [{"role": "user", "content": text.format_map(words)}]


def as_text(dialogue: Dialogue) -> str:
    """Format scene and turns for a judge; goals and backgrounds stay private."""
    return "\n".join([dialogue.scenario, *(turn.line() for turn in dialogue.turns)])


def decide(dialogue: Dialogue, problems: Sequence[str], judgements: dict[str, Judgement]) -> Decision:
    """Keep a dialogue unless a check found a problem, or quality or the final judgement is bad and very confident."""
    reasons = list(problems)
    for question in ("quality", "meta"):
        if question in judgements and judgements[question].drops:
            reasons.append(f"judge: {question} bad, very confident")
    return Decision(id=dialogue.id, kept=not reasons, reasons=tuple(reasons), judgements=judgements)


def tally(decisions: Iterable[Decision]) -> Counter[str]:
    """Count how often each kind of reason dropped a dialogue, and how many were ``kept``.

    With a judge, ``judgements`` is their number, and ``unreadable`` the number without a verdict.
    """
    counts: Counter[str] = Counter()
    for each in decisions:
        counts.update({reason.partition(":")[0] for reason in each.reasons} or {"kept"})
        if each.judgements:
            unreadable = sum(not given.verdict for given in each.judgements.values())
            counts.update({"judgements": len(each.judgements), "unreadable": unreadable})
    return counts
