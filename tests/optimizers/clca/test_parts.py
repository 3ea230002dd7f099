"""Texts for many chats, a part at a time: chats that begin alike together, texts in the order of the chats."""

from culteval.optimizers.writing import writer as writing
from culteval.optimizers.writing.writer import Style, in_parts


class Recorder:
    """A writer that repeats what it is told, and keeps its batches."""

    def __init__(self):
        self.batches = []

    def write(self, chats, style, seed, begun=()):
        told = [chat[0]["content"] for chat in chats]
        self.batches.append((told, seed))
        return [text.upper() for text in told]


def test_chats_that_begin_alike_are_written_together(monkeypatch):
    monkeypatch.setattr(writing, "PART", 2)
    told = ["scene b, turn one", "scene a, 1", "scene b", "scene a, turn two", "scene c"]
    writer, heard = Recorder(), []
    texts = in_parts(
        writer, [[{"role": "user", "content": text}] for text in told], Style(8, 0), 7, lambda *n: heard.append(n)
    )
    assert texts == [text.upper() for text in told]
    assert [sorted(batch) for batch, _ in writer.batches] == [
        ["scene a, 1", "scene a, turn two"], ["scene b", "scene b, turn one"], ["scene c"]
    ]  # fmt: skip
    assert [seed for _, seed in writer.batches] == [7, 9, 11] and heard == [(0, 5), (2, 5), (4, 5), (5, 5)]
