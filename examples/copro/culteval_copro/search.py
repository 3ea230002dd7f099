"""The search in DSPy: what it is told, what its model writes, and how it continues after an interruption."""

import json
import logging
import time

import dspy
import numpy as np
from culteval.errors import CheckpointError
from culteval.optimizers.evo_prompt import cleaned
from culteval.optimizers.writing.writer import Style
from dspy.lm15 import Message, Response, Usage
from dspy.utils.exceptions import AdapterParseError

from . import MOST_CHARACTERS


class Stop(BaseException):
    """The end of the search inside DSPy, whose evaluation goes on after every ``Exception``."""


class Record:
    """Everything that was written and evaluated, in its order, as saved in the checkpoint.

    COPRO has no state of its own and no randomness: after an interruption it starts again, and gets the recorded
    replies and losses until there are none left.
    """

    def __init__(self, evaluator, writer, settings, seed, checkpoint):
        self.evaluator, self.writer, self.settings, self.seed = evaluator, writer, settings, seed
        self.checkpoint, self.read = checkpoint, 0
        self.replies, self.texts, self.losses, self.unread = [], [], [], []
        if state := checkpoint.load():
            self.replies, self.texts = json.loads(bytes(state["written"]))
            self.losses, self.unread = state["losses"].tolist(), state["unread"].tolist()
            spent = len(self.losses) * evaluator.objective.cost
            if not len(self.texts) == len(self.losses) == len(self.unread) or spent != evaluator.budget.spent:
                raise CheckpointError("the checkpoint's texts do not match its budget. Start over with `fresh`.")

    @property
    def best(self):
        return self.texts[int(np.argmin(self.losses))]

    def reply(self, text):
        """Return the model's reply to a request in words."""
        if self.read == len(self.replies):
            started, tokens = time.perf_counter(), self.writer.model.tokens
            style, chat = Style(self.settings.words, self.settings.top_p), [{"role": "user", "content": text}]
            self.replies += self.writer.write([chat], style, self.seed + self.read)
            self.evaluator.budget.record(self.writer.model.tokens - tokens, started)
        self.read += 1
        return self.replies[self.read - 1]

    def loss(self, text):
        """Return the loss of a preamble; each is evaluated once. Raise Stop if the budget is used up."""
        if text not in self.texts:
            if not self.evaluator.affordable:
                raise Stop
            value = self.evaluator.loss_of_text(f"{text}\n\n")
            self.texts.append(text)
            self.losses.append(value.loss)
            self.unread.append(value.unread)
            written = np.frombuffer(json.dumps([self.replies, self.texts]).encode(), np.uint8)
            state = {"written": written, "losses": np.array(self.losses), "unread": np.array(self.unread)}
            self.checkpoint.save(state, min(self.losses))
        return self.losses[self.texts.index(text)]


class Engine:
    """The model of culteval as one of DSPy."""

    def __init__(self, record):
        self.record = record

    def complete(self, request):
        parts = [request.system or "", *(message.text for message in request.messages)]
        reply = self.record.reply("\n\n".join(filter(None, parts))) or "-"
        return Response(None, request.model, Message.assistant(reply), "stop", Usage())


class Lenient(dspy.ChatAdapter):
    """Small models do not keep to DSPy's marks between fields: then the whole reply is the first field."""

    def parse(self, signature, completion):
        try:
            return super().parse(signature, completion)
        except AdapterParseError:
            return dict.fromkeys(signature.output_fields, "") | {next(iter(signature.output_fields)): completion}


class Preamble(dspy.Module):
    """A program that answers with its own instruction, which is what is evaluated."""

    def __init__(self, text):
        super().__init__()
        self.ask = dspy.Predict(dspy.Signature("question -> answer", text))

    def forward(self, question):
        return dspy.Prediction(answer=self.ask.signature.instructions)


def search(record, start, breadth, candidates):
    """Let COPRO propose preambles in rounds of ``breadth``, as many as the budget pays for."""

    null = record.evaluator.objective.null_loss  # so that the model sees scores of an ordinary size

    def score(example, prediction, trace=None):
        text = cleaned(prediction.answer)[:MOST_CHARACTERS].strip()
        try:
            return -record.loss(text) / null if text else -np.inf
        except Exception as error:
            raise Stop from error  # DSPy would count it as a bad candidate

    lm = dspy.LM("culteval", engine=Engine(record), cache=False)
    optimiser = dspy.COPRO(metric=score, breadth=breadth, depth=-(-candidates // breadth))
    rows, logger = [dspy.Example(question="").with_inputs("question")], logging.getLogger("dspy")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with dspy.context(lm=lm, adapter=Lenient()):
            optimiser.compile(Preamble(start), trainset=rows, eval_kwargs={"num_threads": 1, "display_progress": False})
    except Stop as stop:
        if stop.__cause__:
            raise stop.__cause__ from None
    finally:
        logger.setLevel(level)
