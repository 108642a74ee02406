"""Which trials stop early: the rule of asynchronous successive halving, for trials that run one by one.

On Ray its own ASHAScheduler decides, with the same parts (Li et al., A System for Massively Parallel
Hyperparameter Tuning, MLSys 2020).
"""

from statistics import median

FIRST, KEPT = 10, 2  # percent of the first rung; one trial in so many goes on from a rung
LAST = 100


class SuccessiveHalving:
    """The rungs of one method in one cell: what trials scored there."""

    def __init__(self) -> None:
        self._scores: dict[int, list[float]] = {}

    def stops(self, percent: int, accuracy: float) -> bool:
        """Note what a trial scored at a rung; whether it is worse there than half of those before it."""
        before = self._scores.setdefault(percent, [])
        stop = percent < LAST and bool(before) and accuracy < median(before)
        before.append(accuracy)
        return stop
