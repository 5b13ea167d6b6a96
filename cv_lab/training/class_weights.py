"""Class weights from class frequencies, against class imbalance."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cv_lab.labels import ClassCounts

SCHEMES = ("inverse_frequency", "median_frequency", "effective_number")
WeightSpec = str | Mapping[str, float] | None


def with_class_weights(
    config: Mapping[str, Any], classes: Sequence[str], counts: Callable[[], ClassCounts] | None
) -> dict[str, Any]:
    """Replace `class_weights` (and `beta`) in the config of a loss by `weight`, what the loss is to be made with.

    Losses within the loss are treated alike.

    Args:
        config: plain values, to be instantiated by Hydra.
        classes: the K names.
        counts: counts the classes in the training data; it is called only if there are weights to compute. None gives
            weights of 1, to be replaced by those of a checkpoint.

    Returns:
        the config, with `weight`, float32 (K,), wherever it had a scheme.

    Raises:
        ValueError: see :func:`class_weights`.
    """
    made: dict[str, Any] = {
        key: with_class_weights(value, classes, counts) if isinstance(value, Mapping) else value
        for key, value in config.items()
    }
    if "class_weights" not in config:
        return made
    spec, beta = config["class_weights"], made.pop("beta", None)
    del made["class_weights"]
    check_scheme(spec, beta)
    if spec is None:
        return made
    weights = np.ones(len(classes)) if counts is None else class_weights(spec, counts(), classes, beta)
    return made | {"weight": torch.tensor(weights, dtype=torch.float32)}


def class_weights(
    spec: str | Mapping[str, float], counted: ClassCounts, classes: Sequence[str], beta: float | None = None
) -> NDArray[np.float64]:
    """Compute one weight per class, (K,), finite and positive (or 0 where given so).

    A class that never occurs gets weight 1 by every scheme, which has no effect, since it does not occur. timm's
    `compute_class_weights` has no median frequency, and counts an absent class as one sample, which lowers the weights
    of the others.

    Args:
        spec: the scheme:

            - "inverse_frequency": one over the share of the samples, scaled to a mean of 1 over the classes;
            - "median_frequency": the frequency of a class is its share of the pixels of those images in which it
              occurs, and its weight the median frequency over its own (Eigen & Fergus, 2015). Images that have one
              class each are counted as if they were the pixels of one image;
            - "effective_number": one over the effective number of samples (Cui et al., 2019), scaled to a mean of 1;
            - or weights by name, ``{background: 0.1}``; classes that are not named get 1.
        counted: how often each class occurs in the training data.
        classes: the K names.
        beta: of "effective_number", :math:`(1 - \\beta) / (1 - \\beta^n)` for a class of n samples. 0 gives all classes
            the same weight, and towards 1 the weights become those of "inverse_frequency"; the paper uses 0.9 to
            0.9999. None uses 1 - 1 / (the median of the classes' n).

    Raises:
        ValueError: if the scheme or a named class is unknown, or a weight or `beta` is not as described.
    """
    check_scheme(spec, beta)
    if isinstance(spec, Mapping):
        return _given(spec, classes)
    weights, occurs = np.ones(len(classes)), counted.counts > 0
    n, totals = counted.counts[occurs].astype(float), counted.totals[occurs]
    if not len(n):
        return weights
    if spec == "median_frequency":
        frequencies = n / totals
        weights[occurs] = np.median(frequencies) / frequencies
        return weights
    if spec == "inverse_frequency":
        raw = n.sum() / n
    else:
        # Overlapping samples carry less information than separate ones. The paper's beta is 1 - 1/V for a data set of V
        # separate samples. V defaults to the median of the counts, since there are millions of pixels but hundreds of
        # images.
        if beta is None:
            beta = 1 - 1 / max(np.median(n), 2.0)
        with np.errstate(divide="ignore"):  # the logarithm of beta 0 is -inf, which gives equal weights
            raw = 1 / -np.expm1(n * np.log(beta))  # proportional to (1 - beta) / (1 - beta^n)
    weights[occurs] = raw / raw.mean()
    return weights


def check_scheme(spec: WeightSpec, beta: float | None) -> None:
    """Refuse a scheme and a `beta` that :func:`class_weights` could not use.

    Raises:
        ValueError: see there.
    """
    if isinstance(spec, str) and spec not in SCHEMES:
        raise ValueError(
            f"class weights {spec!r} are unknown: give one of {', '.join(SCHEMES)}, or weights by name, such as "
            "{background: 0.1}"
        )
    if beta is None:
        return
    if spec != "effective_number":
        raise ValueError(f"beta={beta} belongs to class_weights=effective_number, not to {spec}: leave it out")
    if not 0 <= beta < 1:
        raise ValueError(
            f"beta={beta} must be at least 0 and below 1: 0.9 to 0.9999 are usual; null fits it to the data"
        )


def _given(spec: Mapping[str, float], classes: Sequence[str]) -> NDArray[np.float64]:
    if unknown := [name for name in spec if name not in classes]:
        raise ValueError(f"class weights name {', '.join(unknown)}, but the classes are {', '.join(classes)}")
    if wrong := [f"{name}: {value}" for name, value in spec.items() if not 0 <= value < float("inf")]:
        raise ValueError(f"class weights must be finite and not negative, but got {', '.join(wrong)}")
    return np.array([float(spec.get(name, 1.0)) for name in classes])
