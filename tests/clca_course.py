"""Courses of CLCA on a tiny model: a writer that says what it is told, scenes, and dialogues."""

from contextlib import nullcontext

import numpy as np
from culteval.harness.registry import spec_of
from culteval.optimizers.clca.culture import in_words
from culteval.optimizers.clca.dialogues.scenarios import adapted
from culteval.optimizers.clca.pipeline import Pipeline
from culteval.optimizers.clca.settings import CLCASettings
from culteval.tasks.metrics.reference import scores_of

from .optimizers.clca.test_scenes import dialogue, turn

CULTURE = in_words(scores_of(spec_of("vsm13"), "extended"), "US")


class Script:
    """A writer that says what a function makes of a chat; it remembers what it was shown."""

    name, tokens, batch = "script", 0, 40

    def __init__(self, say):
        self.say, self.shown = say, []

    def remembering(self):
        return nullcontext()

    def write(self, chats, style, seed, begun=()):
        self.shown += [list(chat) for chat in chats]
        return [self.say(chat, seed) for chat in chats]


def talk(chat, seed):
    """Well-formed and varied talk, a judge's and an intent's answers included."""
    last, count = chat[-1]["content"], len(chat)
    if "VERDICT" in last:
        return "good, confident"
    if "say what" in last:
        return "They want to settle it kindly. And more."
    said = (
        "Good morning, is the diner in Boston open on Thanksgiving this year",
        "My aunt bakes apple pie whenever her neighbours visit from Chicago",
        "Rent goes up next month although nothing has been repaired since May",
        "Could you lend me twenty dollars until the community college pays",
        "Perhaps we should ask everybody at the potluck what they prefer",
        "Nobody told the landlord about our barbecue behind the garage",
    )
    return f"SPEAK: {said[(seed + count // 2) % len(said)]} {'and so on ' * (seed % 2)}"


def scenes(count=3, code="US"):
    return adapted(code, count, np.random.default_rng(0))


def told():
    turns = (turn("Ann Lee", text="Hello there"), turn("Ann", "non-verbal", "nods"), turn("Ann Lee", text="Bye"))
    intents = ("Ann Lee wants in.", "Ann wants quiet.", "")
    turns = tuple(t.model_copy(update={"intent": i}) for t, i in zip(turns, intents, strict=True))
    return dialogue(turns)


def course(folder, load, writer=None, seed=0, **settings):
    model = load("llama", True)
    small = {
        "scenarios": 4,
        "turns": 4,
        "words": 12,
        "length": 900,
        "epochs": 2,
        "batch": 2,
        "rate": 0.01,
        "alpha": 8,
        "actions": "free",
    }
    said = []
    return Pipeline(
        folder, "US", CULTURE, CLCASettings(**small | settings), seed, lambda: model,
        lambda replies: writer or Script(talk), lambda *told: said.append(told),
    )  # fmt: skip
