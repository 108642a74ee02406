"""What chooses the values of trials: optuna's sampler where it is installed, else random draws."""

import contextlib
import importlib.util
from typing import Any, Protocol

import torch

from bench.core import random
from bench.core.search import DIGITS, Choices, Space
from bench.records.trial import TrialRecord

Values = dict[str, float | str]


class Sampler(Protocol):
    """Chooses the values of the trials of one cell."""

    def values(self, number: int, attempt: int) -> Values:
        """The values of a trial; a later attempt gives others."""
        ...

    def learn(self, trial: TrialRecord) -> None:
        """Hear how a trial ended."""
        ...


class RandomSampler:
    """Even draws over the space, from a generator of its own for each trial."""

    def __init__(self, space: Space, cell: str) -> None:
        self._space, self._cell = space, cell

    def values(self, number: int, attempt: int) -> Values:
        """See `Sampler`."""
        draws = random.generator(0, "tune", self._cell, number, attempt)
        places = torch.rand(len(self._space), generator=draws, dtype=torch.float64).tolist()
        return {
            name: where.at(place) for (name, where), place in zip(self._space.items(), places, strict=True)
        }

    def learn(self, trial: TrialRecord) -> None:
        """See `Sampler`; draws do not depend on it."""


class OptunaSampler:
    """Optuna's tree-structured Parzen estimator, which looks where trials were good."""

    def __init__(self, space: Space, cell: str) -> None:
        import optuna  # not installed everywhere

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._optuna, self._cell = optuna, cell
        of = optuna.distributions
        self._distributions = {
            name: of.CategoricalDistribution(where.values)
            if isinstance(where, Choices)
            else of.FloatDistribution(where.low, where.high, log=where.scale == "log")
            for name, where in space.items()
        }
        self._study = optuna.create_study(direction="maximize")

    def values(self, number: int, attempt: int) -> Values:
        """See `Sampler`."""
        seed = random.derive(0, "tune", self._cell, number, attempt) % 2**32
        self._study.sampler = self._optuna.samplers.TPESampler(seed=seed)
        asked = self._study.ask(self._distributions)
        self._study.tell(asked, state=self._optuna.trial.TrialState.FAIL)  # `learn` adds it with its result
        return {name: _rounded(value) for name, value in asked.params.items()}

    def learn(self, trial: TrialRecord) -> None:
        """See `Sampler`; values outside of the space, as a preset may have, tell nothing."""
        if not trial.rungs:
            return
        states = self._optuna.trial.TrialState
        with contextlib.suppress(ValueError):
            found = self._optuna.trial.create_trial(
                state=states.COMPLETE if trial.state == "finished" else states.PRUNED,
                value=trial.rungs[-1].accuracy,
                params=dict(trial.values),
                distributions=self._distributions,
                intermediate_values={rung.percent: rung.accuracy for rung in trial.rungs},
            )
            self._study.add_trial(found)


def _rounded(value: Any) -> float | str:
    return float(f"{value:.{DIGITS}g}") if isinstance(value, float) else str(value)


def sampler_name() -> str:
    """Which one `make_sampler` takes."""
    return "optuna" if importlib.util.find_spec("optuna") else "random"


def make_sampler(space: Space, cell: str) -> Sampler:
    """The sampler of one cell, by its key."""
    return OptunaSampler(space, cell) if sampler_name() == "optuna" else RandomSampler(space, cell)
