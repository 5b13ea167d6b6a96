"""Weights of classes from their frequencies, against losses that the most frequent class rules."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

SCHEMES = ("inverse_frequency", "median_frequency", "effective_number")
WeightSpec = str | Mapping[str, float] | None


def class_weights(
    spec: str | Mapping[str, float], counts: NDArray[np.integer], classes: Sequence[str]
) -> NDArray[np.float64]:
    """One weight a class, (K,), finite and positive (or 0 where given so).

    A class that never occurs gets weight 1 by every scheme, which changes nothing as long as it does not occur.

    Args:
        spec: the scheme:

            - "inverse_frequency": one over the share of the samples, scaled to a mean of 1 over the classes;
            - "median_frequency": the median share over the share (Eigen & Fergus, 2015);
            - "effective_number": one over the effective number of samples (Cui et al., 2019), scaled to a mean of 1;
            - or weights by name, ``{background: 0.1}``; classes that are not named get 1.
        counts: samples or pixels of each class, int (K,).
        classes: the K names.

    Raises:
        ValueError: if the scheme or a named class is not known, or a given weight is negative or not finite.
    """
    if isinstance(spec, Mapping):
        return _given(spec, classes)
    if spec not in SCHEMES:
        raise ValueError(
            f"class weights {spec!r} are not known: give one of {', '.join(SCHEMES)}, or weights by name, such as "
            f"{{{classes[0]}: 0.1}}"
        )
    weights = np.ones(len(classes))
    occurs = counts > 0
    n = counts[occurs].astype(float)
    if not len(n):
        return weights
    if spec == "median_frequency":
        weights[occurs] = np.median(n) / n
        return weights
    if spec == "inverse_frequency":
        raw = n.sum() / n
    else:
        # Samples that overlap tell less than as many separate ones. The paper's beta is 1 - 1/V for a data set of V
        # separable samples; V is the median class here, since pixels come by the million and images by the hundred.
        beta = 1 - 1 / max(np.median(n), 2.0)
        raw = 1 / -np.expm1(n * np.log(beta))  # proportional to (1 - beta) / (1 - beta^n)
    weights[occurs] = raw / raw.mean()
    return weights


def _given(spec: Mapping[str, float], classes: Sequence[str]) -> NDArray[np.float64]:
    if unknown := [name for name in spec if name not in classes]:
        raise ValueError(f"class weights name {', '.join(unknown)}, but the classes are {', '.join(classes)}")
    if wrong := [f"{name}: {value}" for name, value in spec.items() if not 0 <= value < float("inf")]:
        raise ValueError(f"class weights must be finite and not negative, given are {', '.join(wrong)}")
    return np.array([float(spec.get(name, 1.0)) for name in classes])
