"""From a configuration to what its aligner is handed: the goal and the budget. No model is needed."""

from __future__ import annotations

from ..tasks.countries import Country, name_of
from ..tasks.prompts import Asking, split_items
from .budget import Budget
from .config import RunConfig
from .goal import Goal, fit_goal
from .joint import JointGoal
from .registry import spec_of


def goal_of(config: RunConfig) -> Goal:
    """The goal of a configuration: of one task, or of several together.

    Raises:
        UsageError: a task without figures for the country, or without closed questions to fit.
    """
    country = Country(config.fit_country, name_of(config.fit_country))
    common = (country, config.readout, config.options, config.respondents, config.seed)
    goals = tuple(fit_goal(spec_of(name), *common) for name in config.fit)
    return goals[0] if len(goals) == 1 else JointGoal(goals)


def budget_of(config: RunConfig) -> Budget:
    """The budget of a configuration: a survey evaluation asks every fitted item once."""
    items = sum(len(split_items(spec_of(name), "fit", Asking())) for name in config.fit)
    return Budget(total=config.budget * items, per_survey=items)
