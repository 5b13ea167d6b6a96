"""The statistical tests and intervals of a report, in NumPy alone.

SciPy would bring the distributions, but the lab does not depend on it, and its import takes longer than the report of
a small study. Tests compare these functions with published tables.
"""

import math
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

LEVEL = 0.05  # of significance; intervals cover 1 - LEVEL
POWER = 0.8  # that a recommended number of seeds has
MOST_SEEDS = 1000  # beyond which their number is not worth naming
RESAMPLES = 1000
LARGEST = 30_000_000  # numbers in a table of resampled weights; more images get fewer resamples
FEWEST = 200  # resamples whatever the number of images
NORMAL = 1.959963984540054  # 97.5 % quantile of the normal distribution

Floats = NDArray[np.floating]


@dataclass(frozen=True)
class Comparison:
    """A difference between two settings, with its 95 % interval and the p-value of "they are equal".

    Attributes:
        difference: positive if the first is better.
        low: lower end of the interval.
        high: upper end.
        p: two-sided, not corrected for further comparisons.
        test: name of the test.
        n: seeds of each setting, or images.
        deviation: standard deviation of one seed's difference; None where the comparison rests on images.
    """

    difference: float
    low: float
    high: float
    p: float
    test: str
    n: int
    deviation: float | None = None


def beta_share(a: float, b: float, x: float) -> float:
    """The regularized incomplete beta function I_x(a, b), by its continued fraction.

    Press et al., Numerical Recipes (3rd edition, 2007), section 6.4.
    """
    if x <= 0 or x >= 1:
        return float(x >= 1)
    if x > (a + 1) / (a + b + 2):  # where the fraction converges fast for the complement alone
        return 1 - beta_share(b, a, 1 - x)
    front = math.exp(math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x))
    tiny = 1e-300
    c, d = 1.0, 1 / _not_zero(1 - (a + b) * x / (a + 1), tiny)
    fraction = d
    for m in range(1, 10_000):
        for numerator in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            d = 1 / _not_zero(1 + numerator * d, tiny)
            c = _not_zero(1 + numerator / c, tiny)
            fraction *= c * d
        if abs(c * d - 1) < 1e-14:
            break
    return front * fraction / a


def t_p_value(t: float, df: float) -> float:
    """Two-sided p-value of Student's t with `df` degrees of freedom."""
    return beta_share(df / 2, 0.5, df / (df + t * t))


def f_p_value(f: float, df1: float, df2: float) -> float:
    """Probability of an F statistic of at least `f`."""
    return beta_share(df2 / 2, df1 / 2, df2 / (df2 + df1 * f))


@lru_cache(maxsize=4096)
def t_quantile(probability: float, df: float) -> float:
    """The value that Student's t stays below with a `probability` above one half."""
    low, high = 0.0, 1.0
    while t_p_value(high, df) / 2 > 1 - probability:
        high *= 2
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if t_p_value(middle, df) / 2 > 1 - probability else (low, middle)
    return high


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values corrected for their number by Holm's step-down method (1979), in the order given."""
    adjusted = [0.0] * len(p_values)
    highest = 0.0
    for rank, i in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = highest
    return adjusted


def mean_interval(values: Sequence[float]) -> tuple[float, float] | None:
    """95 % interval of a mean by Student's t with n - 1 degrees of freedom; None for fewer than two values."""
    if len(values) < 2:
        return None
    middle, half = (
        float(np.mean(values)),
        _half_width(float(np.std(values, ddof=1)) / math.sqrt(len(values)), len(values)),
    )
    return middle - half, middle + half


def wilson(share: float, n: int) -> tuple[float, float]:
    """95 % interval of a share of `n` samples (Wilson, 1927)."""
    z = NORMAL**2 / n
    middle = (share + z / 2) / (1 + z)
    half = NORMAL * math.sqrt(share * (1 - share) / n + z / (4 * n)) / (1 + z)
    return max(0.0, middle - half), min(1.0, middle + half)


def mcnemar(only_first: int, only_second: int) -> float:
    """Two-sided p-value of McNemar's exact test (1947) from the images that only one of two networks got right."""
    n, k = only_first + only_second, min(only_first, only_second)
    if n == 0:
        return 1.0
    logarithms = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, n + 1)))])
    upto = np.arange(k + 1)
    terms = logarithms[n] - logarithms[upto] - logarithms[n - upto] - n * math.log(2)
    return min(1.0, 2 * float(np.exp(terms).sum()))


def compare_seeds(first: Mapping[int, float], second: Mapping[int, float]) -> Comparison | None:
    """Compare two settings by their scores, where larger is better.

    Settings with the same seeds share data splits and initialisations, so they are compared seed by seed (paired t
    test); others by Welch's t test (1947), with the degrees of freedom of the smaller sample. Welch's own number of
    them claims a difference of equal settings in 13 % of the cases for 2 against 20 seeds; this one never in more than
    5 % (Mickey and Brown, 1966, Annals of Mathematical Statistics 37:639-642). Differences that do not vary at all have
    no t statistic: the sign test counts the seeds then.

    Args:
        first: scores by seed.
        second: scores by seed.

    Returns:
        None if either has a single seed.
    """
    if min(len(first), len(second)) < 2:
        return None
    a, b = (np.array([scores[seed] for seed in sorted(scores)]) for scores in (first, second))
    difference = float(a.mean() - b.mean())
    n = min(len(a), len(b))
    if first.keys() == second.keys():
        error, test = float(np.std(a - b, ddof=1)) / math.sqrt(n), "t test paired by seed"
    else:
        error, test = math.sqrt(a.var(ddof=1) / len(a) + b.var(ddof=1) / len(b)), "Welch's t test"
    if error <= 1e-9 * max(abs(a.mean()), abs(b.mean()), 1e-9):
        p = 1.0 if equal(a.mean(), b.mean()) else 2 * 0.5**n
        return Comparison(difference, difference, difference, min(1.0, p), "sign test", n, 0.0)
    half, p = _half_width(error, n), t_p_value(difference / error, n - 1)
    return Comparison(difference, difference - half, difference + half, p, test, n, error * math.sqrt(n))


def equal(a: float, b: float) -> bool:
    """Whether two figures are the same up to rounding."""
    return math.isclose(a, b, rel_tol=1e-9, abs_tol=1e-12)


def seeds_needed(difference: float, deviation: float) -> int | None:
    """About how many seeds a paired comparison needs to find a difference four times out of five.

    Args:
        difference: that is to be found.
        deviation: standard deviation of the difference in one seed.

    Returns:
        None if it is more than MOST_SEEDS, or if the two do not say.
    """
    if difference == 0 or deviation == 0:
        return None

    def enough(n: int) -> bool:
        quantiles = t_quantile(1 - LEVEL / 2, n - 1) + t_quantile(POWER, n - 1)
        return quantiles * deviation <= abs(difference) * math.sqrt(n)

    n = 2 + bisect_left(range(2, MOST_SEEDS + 1), True, key=enough)
    return n if n <= MOST_SEEDS else None


def effect_p_value(scores: Floats) -> float:
    """P-value of "the levels of a parameter have equal means", by an analysis of variance with repeated measures.

    Args:
        scores: float (seeds, levels), at least two of each. Rows share a seed.
    """
    return _repeated(scores @ _contrasts(scores.shape[1]).T)


def interaction_p_value(scores: Floats) -> float:
    """P-value of "the effects of two parameters add up", by an analysis of variance over the whole grid.

    Args:
        scores: float (seeds, levels of the one, levels of the other), at least two of each.
    """
    rows, columns = (_contrasts(n) for n in scores.shape[1:])
    projected = np.einsum("ia,jb,sab->sij", rows, columns, scores)
    return _repeated(projected.reshape(len(scores), -1))


def _repeated(contrasts: Floats) -> float:
    """F test that the means of orthonormal contrasts, float (n, d), are all zero.

    The degrees of freedom are those of Greenhouse and Geisser (1959), so that settings need not vary alike.
    """
    n, d = contrasts.shape
    effect = n * float((contrasts.mean(0) ** 2).sum())
    covariance = np.atleast_2d(np.cov(contrasts, rowvar=False))
    error = float(np.trace(covariance))
    if error <= 1e-18 * max(effect, 1e-18):
        return 1.0 if effect <= 1e-18 else min(1.0, 2 * 0.5**n)  # all seeds agree: the sign test
    epsilon = error**2 / (d * float((covariance**2).sum()))
    return f_p_value(effect / error, epsilon * d, epsilon * d * (n - 1))


def _contrasts(levels: int) -> Floats:
    """Orthonormal contrasts (Helmert's), float (levels - 1, levels)."""
    matrix = np.tril(-np.ones((levels, levels)), -1)[1:] + np.diag(np.arange(levels))[1:]
    contrasts: Floats = matrix / np.linalg.norm(matrix, axis=1, keepdims=True)
    return contrasts


@lru_cache(maxsize=4)
def resamples(n: int) -> Floats:
    """How often each of `n` images occurs in each bootstrap sample, float32 (samples, n); the same in every report."""
    count = max(FEWEST, min(RESAMPLES, LARGEST // n))
    drawn = np.random.default_rng(0).integers(0, n, (count, n))
    return np.stack([np.bincount(row, minlength=n) for row in drawn]).astype(np.float32)


@dataclass(frozen=True)
class Scores:
    """A figure as a function of sums over the images of a test set, so that it can be computed of any sample of them.

    Attributes:
        parts: what each image adds, float32 (N, D).
        figure: maps sums, float (..., D), to figures (...).
    """

    parts: Floats
    figure: Callable[[Floats], Floats]

    @property
    def n(self) -> int:
        """Number of images."""
        return len(self.parts)

    def value(self) -> float:
        """The figure of all images."""
        return float(self.figure(self.parts.sum(0, dtype=np.float64)))

    def samples(self) -> Floats:
        """The figure of each bootstrap sample, float (samples,)."""
        return self.figure((resamples(self.n) @ self.parts).astype(np.float64))


def bootstrap_interval(scores: Sequence[Scores]) -> tuple[float, float] | None:
    """95 % interval of a figure, or of its mean over networks, over the images of one test set.

    Percentiles of the bootstrap (Efron, 1979). A share of 0 or 1 is the same in every sample, and gets the interval
    of Wilson instead; None if all samples are equal otherwise, as from a single image.

    Args:
        scores: one a network, of the same images.
    """
    drawn = np.mean([one.samples() for one in scores], axis=0)
    low, high = (float(end) for end in np.nanpercentile(drawn, [100 * LEVEL / 2, 100 - 100 * LEVEL / 2]))
    if low < high:
        return low, high
    return wilson(low, scores[0].n) if low in (0.0, 1.0) else None


def compare_images(first: Scores, second: Scores, exact: bool) -> Comparison:
    """Compare two networks on the same images, by a paired bootstrap.

    Args:
        first: of the one network.
        second: of the other, for the same images in the same order.
        exact: the figure is the share of images that are right; its p-value is that of McNemar's exact test.
    """
    drawn = first.samples() - second.samples()
    difference = first.value() - second.value()
    low, high = (float(end) for end in np.nanpercentile(drawn, [100 * LEVEL / 2, 100 - 100 * LEVEL / 2]))
    if exact:
        right, other = first.parts[:, 0] > 0, second.parts[:, 0] > 0
        p = mcnemar(int((right & ~other).sum()), int((other & ~right).sum()))
        return Comparison(difference, low, high, p, "McNemar's exact test", first.n)
    error = float(np.nanstd(drawn))
    p = math.erfc(abs(difference) / error / math.sqrt(2)) if error > 0 else 1.0
    return Comparison(difference, low, high, p, "paired bootstrap", first.n)


def _half_width(error: float, n: int) -> float:
    return t_quantile(1 - LEVEL / 2, n - 1) * error


def _not_zero(value: float, tiny: float) -> float:
    return value if abs(value) > tiny else tiny
