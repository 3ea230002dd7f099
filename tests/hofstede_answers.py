"""Answers to the items of the Hofstede measure, one group of them worked by hand, and tables of their scores."""

from functools import cache
from pathlib import Path

import numpy as np
from culteval.tasks.answers import UNPARSED, Answers
from culteval.tasks.measure import MeasureOptions, measure_of
from culteval.tasks.prompts import ProtocolOptions, render
from culteval.tasks.spec import load_spec

VSM = Path(__file__).parent.parent / "tasks" / "vsm13"
SPEC = load_spec(VSM / "vsm13.yaml")
DIMENSIONS = ("pdi", "idv", "mas", "uai", "lto", "ivr")
SA = np.array([72.0, 48.0, 43.0, 64.0, 27.0, 14.0])
# Sums over the 62 complete rows of the matrix of 2015, added up apart from the package.
WORLD = np.array([3634.0, 2837.0, 3045.0, 4151.0, 3085.0, 2945.0]) / 62

# m01 .. m24 of one imaginary group
HAND = np.array([1, 2, 3, 4, 5, 1, 4, 2, 5, 4, 2, 5, 1, 4, 3, 5, 4, 1, 5, 2, 4, 2, 5, 3])
HAND_INDICES = {
    "pdi": -5,  # 35 (m07 4 - m02 2) + 25 (m20 2 - m23 5) =   70 -  75
    "idv": 245,  # 35 (m04 4 - m01 1) + 35 (m09 5 - m06 1) =  105 + 140
    "mas": 0,  # 35 (m05 5 - m03 3) + 35 (m08 2 - m10 4) =   70 -  70; with the misprint's 25 it were 20
    "uai": -55,  # 40 (m18 1 - m15 3) + 25 (m21 4 - m24 3) =  -80 +  25
    "lto": -45,  # 40 (m13 1 - m14 4) + 25 (m19 5 - m22 2) = -120 +  75
    "ivr": 65,  # 35 (m12 5 - m11 2) + 40 (m17 4 - m16 5) =  105 -  40
}


def measure(code="SA", **options):
    return measure_of(SPEC, code, MeasureOptions(**options))


@cache
def prompts(split, people=0):
    return render(SPEC, split, ProtocolOptions(personas=people))


def certain(codes, layout, **text):
    """Answers that put all probability on ``codes`` (prompts,)."""
    probs = (layout.codes == np.asarray(codes)[:, None]).astype(float)[None]
    return Answers(layout, probs, np.zeros((1, len(layout))), **text)


def by_item(codes, split="heldout", people=0):
    layout = prompts(split, people).layout
    return certain(np.asarray(codes)[layout.item], layout)


def texts(codes, layout):
    return certain(np.where(codes == UNPARSED, 3, codes), layout, texts=("?",) * len(layout), parsed=codes)


def table(scores):
    scores = list(scores)
    found = {score.metric: score for score in scores}
    assert len(found) == len(scores)
    return found
