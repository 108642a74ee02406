"""Simulated families of methods: how often equal ones are told apart, and which differences are seen.

PYTHONPATH=tests python -m helpers.separation    # the figures of bench/README.md, two minutes
"""

import numpy as np
from scipy import stats

from bench.analysis.best import SIGNIFICANCE, Separation, separate_rows
from bench.analysis.intervals import mean_interval
from bench.records.columns import Floats

EQUAL = np.full(14, 0.01)
# standard deviations as they are on digits at ipc 1: random real images and unrolled methods vary most
MEASURED = np.array([6, 8, 8, 8, 8, 9, 9, 11, 13, 13, 19, 30, 50, 50]) / 1000
CHEAP = np.array([3] * 12 + [10] * 2)  # seeds as in the shipped sweeps: more of what costs milliseconds


def families(deviation: Floats, seeds: int | Floats, count: int, lift: float = 0.0) -> list[Separation]:
    """Families of results with equal means, but for the first.

    Args:
        deviation: [N], of one seed of each result.
        seeds: Of each result; an array [N], or one number for all.
        count: How many families.
        lift: What the first result is better by.
    """
    n = np.broadcast_to(np.asarray(seeds), deviation.shape)
    rng = np.random.default_rng(int(n[0]))
    found = []
    for _ in range(count):
        mean = 0.6 + deviation * rng.standard_normal(len(n)) / np.sqrt(n)
        mean[0] += lift
        spread = deviation * np.sqrt(rng.chisquare(n - 1) / (n - 1))
        separation = separate_rows(np.stack([mean, spread, n], axis=1))
        assert separation is not None
        found.append(separation)
    return found


def separated(found: list[Separation]) -> float:
    """The share of families in which somebody is told apart."""
    return float(np.mean([one.above.any() for one in found]))


def seen(found: list[Separation]) -> float:
    """The share of the others from which the first is told apart."""
    return float(np.mean([one.above[0, 1:].mean() for one in found]))


def tukey(deviation: Floats, seeds: int, count: int) -> float:
    """The share of families of equal means in which Tukey's test, with one variance, tells somebody apart."""
    rng, n = np.random.default_rng(seeds), len(deviation)
    drawn = deviation[:, None] * rng.standard_normal((count, n, seeds))
    mean, pooled = drawn.mean(axis=2), drawn.var(axis=2, ddof=1).mean(axis=1)
    critical = stats.studentized_range.isf(SIGNIFICANCE, n, n * (seeds - 1))
    return float((np.ptp(mean, axis=1) > critical * np.sqrt(pooled / seeds)).mean())


def main() -> None:
    """Print the figures."""
    print("seeds  covered  equal  measured spreads  seen: 2 sd  3 sd  4 sd  told from (sd)")
    for n in (3, 5, 10):
        drawn = np.random.default_rng(n).normal(size=(100_000, n))
        low, high = mean_interval(drawn.mean(axis=1), drawn.std(axis=1, ddof=1), n)
        covered = ((low <= 0) & (high >= 0)).mean()
        equal = families(EQUAL, n, 2000)
        wrong = separated(equal), separated(families(MEASURED, n, 2000))
        power = [seen(families(EQUAL, n, 300, lift=0.01 * sd)) for sd in (2, 3, 4)]
        least = np.median([one.least_difference for one in equal]) / 0.01
        shares = "  ".join(f"{100 * share:5.1f}" for share in (covered, *wrong, *power))
        print(f"{n:5d}  {shares}  {least:4.1f}")
    few = 0.01 * np.random.default_rng(0).normal(size=(2000, 3))
    ends = stats.bootstrap((few,), np.mean, axis=-1, n_resamples=999, rng=np.random.default_rng(0))
    low, high = ends.confidence_interval  # NaN where three numbers are too much alike
    print(f"the bootstrap (BCa) of 3 seeds covers {100 * ((low <= 0) & (high >= 0)).mean():.0f}")
    print(f"Tukey's test of measured spreads at 3 seeds: {100 * tukey(MEASURED, 3, 4000):.0f} separated")
    print(f"3, and 10 of the two noisiest: {100 * separated(families(MEASURED, CHEAP, 2000)):.1f} separated")


if __name__ == "__main__":
    main()
