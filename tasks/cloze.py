"""Cloze scoring: options are read by the log-likelihood of their texts, without letters.

The likelihood of a text falls with its length, so that of an option is taken to the power 1 / bytes, the geometric mean
over its UTF-8 bytes: lm-eval's ``acc_bytes``; ``acc_norm`` there divides by characters. Answers hold these per-byte
likelihoods: ``probs`` normalised over the options, and 1 - their mean as ``off_options``. Both give the log-likelihoods
of the texts again, so that the difference to those after a content-free question needs no model: the domain-conditional
PMI of Holtzman et al. (2021, "Surface Form Competition"), lm-eval's ``acc_mutual_info`` with a premise.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .answers import Answers, Layout
from .spec import TaskSpec

LEAST = 1e-9  # of a per-byte likelihood: the last decimal that a submission keeps


def byte_lengths(choices: Sequence[Sequence[str]], width: int) -> np.ndarray:
    """Return the UTF-8 bytes (prompts, width) of each option's text, 1 where a prompt has fewer options."""
    return np.array(
        [[*(len(text.encode()) for text in row), *[1] * (width - len(row))] for row in choices], dtype=float
    )


def per_byte(logs: Any, lengths: np.ndarray, widths: np.ndarray) -> Any:
    """Map log-likelihoods of texts (..., prompts, options) to logarithms that sum, as likelihoods, to their mean.

    Each is divided by the option's bytes and shared by the number of options ``widths`` (prompts,). Works on numpy
    arrays and torch tensors alike and is differentiable.
    """
    like = getattr(logs, "new_tensor", np.asarray)
    return logs / like(lengths) - like(np.log(np.maximum(widths, 1)))[:, None]


def log_likelihoods(answers: Answers, lengths: np.ndarray) -> np.ndarray:
    """Compute the log-likelihoods of the texts (population, prompts, options) from answers; see ``per_byte``."""
    mean = answers.probs * (1 - answers.off_options)[..., None]
    shared = np.log(np.maximum(answers.layout.widths, 1))[:, None]
    logs: np.ndarray = lengths * (np.log(np.maximum(mean, LEAST)) + shared)
    return logs


def lengths_of(spec: TaskSpec, layout: Layout) -> np.ndarray:
    """Return the bytes (prompts, options) of the options' texts of a layout."""
    cells = np.stack([layout.item, layout.paraphrase], axis=1)
    unique, where = np.unique(cells, axis=0, return_inverse=True)
    shown = [spec.items.present(layout.items[i], layout.paraphrases[name], "natural").choices for i, name in unique]
    return byte_lengths(shown, layout.codes.shape[1])[where.ravel()]


def pmi(real: Answers, prior: Answers, lengths: np.ndarray) -> np.ndarray:
    """Compute the softmax (population, prompts, options) of log-likelihoods minus those after content-free questions.

    Args:
        prior: the content-free answer to each row of ``real``, with the same options.
        lengths: bytes of the options' texts.
    """
    gain = log_likelihoods(real, lengths) - log_likelihoods(prior, lengths)
    gain = np.where(real.layout.inside, gain, -np.inf)
    odds = np.exp(gain - gain.max(-1, keepdims=True))
    result: np.ndarray = odds / odds.sum(-1, keepdims=True)
    return result
