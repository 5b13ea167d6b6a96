"""Weights of classes from their frequencies, against losses that the most frequent class rules."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from cv_lab.labels import ClassCounts

SCHEMES = ("inverse_frequency", "median_frequency", "effective_number")
WeightSpec = str | Mapping[str, float] | None


def class_weights(
    spec: str | Mapping[str, float], found: ClassCounts, classes: Sequence[str], beta: float | None = None
) -> NDArray[np.float64]:
    """One weight a class, (K,), finite and positive (or 0 where given so).

    A class that never occurs gets weight 1 by every scheme, which changes nothing as long as it does not occur.

    Args:
        spec: the scheme:

            - "inverse_frequency": one over the share of the samples, scaled to a mean of 1 over the classes;
            - "median_frequency": the frequency of a class is its share of the pixels of those images in which it
              occurs, and its weight the median frequency over its own (Eigen & Fergus, 2015). Images that have one
              class each are counted as if they were the pixels of one image;
            - "effective_number": one over the effective number of samples (Cui et al., 2019), scaled to a mean of 1;
            - or weights by name, ``{background: 0.1}``; classes that are not named get 1.
        found: in the training data.
        classes: the K names.
        beta: of "effective_number", :math:`(1 - \\beta) / (1 - \\beta^n)` for a class of n samples: 0 weighs all
            classes alike, towards 1 it becomes "inverse_frequency"; the paper takes 0.9 to 0.9999. None takes
            1 - 1 / (the median of the classes' n).

    Raises:
        ValueError: if the scheme or a named class is not known, a given weight is negative or not finite, or `beta`
            is out of range or given to another scheme.
    """
    check_scheme(spec, beta)
    if isinstance(spec, Mapping):
        return _given(spec, classes)
    weights = np.ones(len(classes))
    occurs = found.counts > 0
    n, totals = found.counts[occurs].astype(float), found.totals[occurs]
    if not len(n):
        return weights
    if spec == "median_frequency":
        frequencies = n / totals
        weights[occurs] = np.median(frequencies) / frequencies
        return weights
    if spec == "inverse_frequency":
        raw = n.sum() / n
    else:
        # Samples that overlap tell less than as many separate ones. The paper's beta is 1 - 1/V for a data set of V
        # separable samples; V is the median class by default, since pixels come by the million, images by the hundred.
        if beta is None:
            beta = 1 - 1 / max(np.median(n), 2.0)
        with np.errstate(divide="ignore"):  # of beta 0, whose logarithm is -inf, as it shall be
            raw = 1 / -np.expm1(n * np.log(beta))  # proportional to (1 - beta) / (1 - beta^n)
    weights[occurs] = raw / raw.mean()
    return weights


def check_scheme(spec: WeightSpec, beta: float | None) -> None:
    """Refuse a scheme and a `beta` that :func:`class_weights` could not use, before there are any counts.

    Raises:
        ValueError: see there.
    """
    if isinstance(spec, str) and spec not in SCHEMES:
        raise ValueError(
            f"class weights {spec!r} are not known: give one of {', '.join(SCHEMES)}, or weights by name, such as "
            "{background: 0.1}"
        )
    if beta is None:
        return
    if spec != "effective_number":
        raise ValueError(f"beta={beta} is of class_weights=effective_number, not of {spec}: leave it out")
    if not 0 <= beta < 1:
        raise ValueError(
            f"beta={beta} must be at least 0 and below 1: 0.9 to 0.9999 are usual; null fits it to the data"
        )


def _given(spec: Mapping[str, float], classes: Sequence[str]) -> NDArray[np.float64]:
    if unknown := [name for name in spec if name not in classes]:
        raise ValueError(f"class weights name {', '.join(unknown)}, but the classes are {', '.join(classes)}")
    if wrong := [f"{name}: {value}" for name, value in spec.items() if not 0 <= value < float("inf")]:
        raise ValueError(f"class weights must be finite and not negative, given are {', '.join(wrong)}")
    return np.array([float(spec.get(name, 1.0)) for name in classes])
