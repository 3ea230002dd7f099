"""What the columns of a board are called and what they mean, in a line each."""

from __future__ import annotations

from ..harness.report.plots import LABELS
from ..harness.report.tables import columns_of
from ..tasks.spec import TaskSpec

SPLITS = {
    "heldout": "wordings, orders or questions that no aligner was given",
    "fit": "what the aligner was given",
    "control": "prompts that show what a score is worth, such as options without the question",
}
READOUTS = {
    "expected": "options weighted by their probabilities",
    "argmax": "the most probable option",
    "text": "the answer as generated and read",
    "expected_calibrated": "probabilities divided by those of content-free questions",
    "argmax_calibrated": "the most probable option after dividing by the probabilities of content-free questions",
}
MARKS = {
    "verified": "a sample of the answers was made again from model and adapter by the board's keepers, and agrees",
    "self-reported": "the answers are the submitter's; the scores were made here from them",
    "gain": "better, beyond doubt, than every row that needs no alignment, and than random prefixes by two standard "
    "deviations; not collapsed",
    "no gain": "not better, beyond doubt, than a row that needs no alignment, or than random prefixes; or collapsed",
    "collapsed": "the answers are nearly the same whatever is asked, so the score says nothing of the country",
    "rescored": "came with scores that its answers do not give; shown is what the answers give",
}
_METRICS = {
    "skill": ("Skill", "1 - loss / loss of the constant answer: 0 is no information about the country, 1 is perfect"),
    "loss": ("Loss", "sum of squared errors of the six indices against the published ones"),
    "l2": ("L2", "root of the sum of squared errors of the six indices"),
    "l1": ("L1", "sum of absolute errors of the six indices"),
    "loss_reversed": ("Loss, reversed order", "the loss with the options listed the other way round"),
    "loss_wording_spread": ("Spread over wordings", "largest minus smallest loss over the wordings"),
    "loss_order_spread": ("Spread over orders", "largest minus smallest loss over the orders of options"),
    "collapsed": ("Collapsed", "1 where all answers lie within a quarter of a scale step"),
    "spread": ("Spread of answers", "standard deviation of the item means over the items"),
    "distinct": ("Distinct answers", "number of different rounded item means"),
    "outside_mass": ("Outside options", "probability on anything but an option"),
    "unparsed": ("Unparsed", "share of generated texts without an option"),
    "w1": (
        "W1",
        "Wasserstein-1 distance between model's and country's answers, as a share of the scale, item mean",
    ),
    "js": ("JS", "Jensen-Shannon distance between model's and country's answers (natural logarithm), mean of items"),
    "tv": ("TV", "total variation between model's and country's answers, mean of items"),
    "kl": ("KL", "smoothed Kullback-Leibler divergence from the country's answers, mean of items"),
    "accuracy": ("Accuracy", "share of right answers on the country's own questions, or on all where it has none"),
    "accuracy_all": ("Accuracy, all", "share of right answers on the questions of all countries"),
    "accuracy_majority": ("Majority hit", "share of items where the model's commonest answer is the country's"),
    "accuracy_sampled": ("Sampled hit", "chance that a drawn answer equals that of a drawn person"),
    "side": ("Side", "share of pairs answered towards the pole that the country leans to"),
    "agreement": ("Agreement", "share of readable texts whose option is the most probable one"),
    "consistency": ("Consistency", "share of forced choices answered alike when the options change places"),
}


def label(metric: str) -> str:
    """A metric's short name."""
    return _METRICS[metric][0] if metric in _METRICS else LABELS.get(metric, metric.replace("_", " "))


def explanation(metric: str) -> str:
    """What a metric is, in a line."""
    if metric in _METRICS:
        return _METRICS[metric][1]
    if metric in LABELS:
        return f"the index of {LABELS[metric].lower()}"
    if metric.endswith("_error"):
        return f"{label(metric.removesuffix('_error'))}: the model's index minus the published one"
    return f"{metric}, as the task's own page defines it"


def board_metrics(spec: TaskSpec) -> list[str]:
    """The metrics that a task's board offers, in order: the number that decides first; indices are on the pages."""
    headline = spec.metadata.headline.metric
    first = ["skill", headline] if spec.metadata.measure == "hofstede" else [headline]
    rest = [column.metric for column in columns_of(spec)]
    names = dict.fromkeys([*first, *rest, *spec.metrics, "loss_wording_spread", "outside_mass", "unparsed"])
    return [name for name in names if name not in LABELS]


def usual_metrics(spec: TaskSpec) -> list[str]:
    """The few that are shown before a reader chooses."""
    return [*board_metrics(spec)[:3], "outside_mass", "unparsed"]


def precision(metric: str) -> int:
    """Decimal places that a metric is shown with."""
    return 0 if metric.startswith("loss") or metric in LABELS else 2 if metric == "skill" else 3
