"""Intervals of means over seeds by Student's t, and variances that moderate each other. No torch.

Accuracies of seeds are few (three to ten) and close to normal. Student's t covers 95 % for any number of
them, which no bootstrap of three numbers does.

References:
    Satterthwaite, An approximate distribution of estimates of variance components, Biometrics 2, 1946.
    Smyth, Linear models and empirical Bayes methods for assessing differential expression in microarray
    experiments, SAGMB 3, 2004: moderated variances, section 6.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from scipy import special, stats

from bench.records.columns import Floats

CONFIDENCE = 0.95
LEAST_SEEDS = 3  # below this a spread is shown but no interval is claimed
EXACT_DIGITS = 12  # accuracies are equal if they agree in these decimals: the rest is rounding of sums
VARIANCE_FLOOR = (
    1e-3  # of the median variance: equal accuracies of a few seeds do not prove that there is no spread
)
STEP = 1e-5  # of the difference quotients of a score


def mean_interval(mean: Any, deviation: Any, seeds: Any) -> tuple[Any, Any]:
    """The 95 % interval of a mean over seeds: mean -+ t sd / sqrt(n).

    Args:
        mean: Of the seeds; a number or an array.
        deviation: Their standard deviation, with n - 1 in the denominator.
        seeds: n, how many.

    Returns:
        Both ends. NaN below three seeds, and where the deviation is zero: equal seeds tell nothing of the
        spread.
    """
    n = np.asarray(seeds, float)
    deviation = np.round(deviation, EXACT_DIGITS)  # of equal numbers it is zero but for rounding
    return t_interval(mean, np.square(deviation) / n, np.where(n >= LEAST_SEEDS, n - 1, np.nan))


def t_interval(estimate: Any, variance: Any, freedom: Any) -> tuple[Any, Any]:
    """The 95 % interval of an estimate from its own variance and the degrees of freedom of that.

    Args:
        estimate: A number or an array.
        variance: Of the estimate. Zero: no interval.
        freedom: Degrees of freedom; NaN: no interval.

    Returns:
        Both ends, NaN where there is none.
    """
    half = stats.t.ppf((1 + CONFIDENCE) / 2, freedom) * np.sqrt(np.where(variance, variance, np.nan))
    return estimate - half, estimate + half


def sum_of_variances(variance: Any, freedom: Any, axis: int = -1) -> tuple[Any, Any]:
    """The variance of a sum of independent estimates, and its degrees of freedom (Satterthwaite).

    Args:
        variance: Of each term.
        freedom: The degrees of freedom of each variance.
        axis: Along which the terms are.
    """
    total = np.sum(variance, axis=axis)
    with np.errstate(divide="ignore", invalid="ignore"):
        return total, np.square(total) / np.sum(np.square(variance) / freedom, axis=axis)


def score_interval(score: Callable[..., Any], *groups: Sequence[float]) -> tuple[float, float]:
    """The 95 % interval of a smooth function of the means of groups of seeds that are drawn independently.

    The function is taken as linear over the spread of the means (delta method).

    Args:
        score: A function of a mean of each group.
        *groups: The accuracies of the seeds of each group.

    Returns:
        Both ends; NaN where a group has fewer than three seeds, or none has any spread.
    """
    if min(map(len, groups)) < LEAST_SEEDS:
        return np.nan, np.nan
    means = np.array([np.mean(group) for group in groups])
    steps = STEP * np.eye(len(groups))
    slopes = np.array([(score(*(means + h)) - score(*(means - h))) / (2 * STEP) for h in steps])
    variance = np.square(slopes) * [np.var(group, ddof=1) / len(group) for group in groups]
    low, high = t_interval(score(*means), *sum_of_variances(variance, [len(group) - 1 for group in groups]))
    return float(low), float(high)


# --- variances of methods that are compared -----------------------------------------------------------------


def floored(variance: Floats) -> Floats:
    """Raise variances [N] near zero to a small part of the median of the others; all zero stay zero."""
    positive = variance[variance > 0]
    return np.maximum(variance, VARIANCE_FLOOR * np.median(positive)) if len(positive) else variance


def moderated(variance: Floats, freedom: Floats) -> tuple[Floats, Floats]:
    """Draw the variances of methods towards what they have in common, as far as they agree.

    Variances that differ no more than chance explains become the pooled one; those that truly differ stay
    apart.

    Args:
        variance: [..., N], positive.
        freedom: [N], degrees of freedom; 0: unknown, such a method gets what the others have in common.

    Returns:
        The moderated variances [..., N] and their degrees of freedom [..., N], at most those of all together.
    """
    known = freedom > 0
    if known.sum() < 2:
        alone = variance[..., known] if known.any() else np.full((*variance.shape[:-1], 1), np.nan)
        return np.where(known, variance, alone), np.broadcast_to(freedom.sum(), variance.shape)
    v, d = variance[..., known], freedom[known]
    z = np.log(v) - special.digamma(d / 2) + np.log(d / 2)
    spread = z.var(axis=-1, ddof=1) - special.polygamma(1, d / 2).mean()
    differ = spread > 1e-3
    prior = 2 * _trigamma_inverse(np.where(differ, spread, 1.0))[..., None]  # its degrees of freedom
    common = np.exp(z.mean(axis=-1, keepdims=True) + special.digamma(prior / 2) - np.log(prior / 2))
    own = np.where(known, variance, 0)
    mixed = (prior * common + freedom * own) / (prior + freedom)
    pooled = (v * d).sum(axis=-1, keepdims=True) / d.sum()
    apart = differ[..., None]
    return np.where(apart, mixed, pooled), np.where(apart, np.minimum(prior + freedom, d.sum()), d.sum())


def _trigamma_inverse(y: Floats) -> Floats:
    """x with trigamma(x) = y, by Newton's method on 1 / trigamma, which is nearly linear."""
    x = 0.5 + 1 / y
    for _ in range(8):
        value = special.polygamma(1, x)
        x = x + value * (1 - value / y) / special.polygamma(2, x)
    return x
