"""Seeded, class-balanced splits and subsets, as sorted indices."""

import numpy as np


def stratified_split(labels: np.ndarray, fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Split indices in two so that the second part holds `fraction` of every class.

    Every class of at least two samples is in both parts, even if `fraction` of them is less than half a sample; a class
    of one is in the first.

    Args:
        labels: int (N,).
        fraction: between 0 and 1, exclusive.
        seed: the same seed gives the same split.

    Returns:
        The indices of the larger and of the smaller part, each sorted.

    Raises:
        ValueError: if `fraction` is out of range or leaves one part empty.
    """
    if not isinstance(fraction, int | float) or not 0 < fraction < 1:
        raise ValueError(f"val_fraction={fraction} must lie between 0 and 1, exclusive")
    amount = round(fraction * len(labels))
    if not 0 < amount < len(labels):
        raise ValueError(
            f"val_fraction={fraction} of {len(labels)} images leaves no image on one side of the split: "
            "give a larger or smaller share, more images, or data.validation=test"
        )
    second = balanced_subset(labels, amount, seed)
    random = np.random.default_rng(seed)
    for name in np.unique(labels):
        members = np.flatnonzero(labels == name)
        taken = np.intersect1d(members, second)
        if len(members) > 1 and len(taken) == 0:
            second = np.append(second, random.choice(members))
        elif len(taken) == len(members):
            second = np.setdiff1d(second, random.choice(members))
    if len(second) == 0:
        raise ValueError(f"val_fraction={fraction}: every class has one image, so that none can be held out")
    second = np.sort(second)
    return np.setdiff1d(np.arange(len(labels)), second), second


def balanced_subset(labels: np.ndarray, amount: int | float, seed: int) -> np.ndarray:
    """Draw `amount` indices in which classes keep their shares, each to within one sample.

    Args:
        labels: int (N,).
        amount: a count (int) or a fraction of all (float up to 1.0).
        seed: the same seed gives the same subset, and a larger one contains it but for rounding.

    Returns:
        Sorted indices, int (count,).

    Raises:
        ValueError: if `amount` is not positive, or more than there is.
    """
    count = 0
    if type(amount) in (int, float) and 0 < amount <= len(labels):
        count = round(amount * len(labels)) if isinstance(amount, float) and amount <= 1 else int(amount)
    if count == 0:
        raise ValueError(
            f"a subset of {amount} is not possible: give a count from 1 to {len(labels)} or a fraction up to 1.0"
        )
    random = np.random.default_rng(seed)
    names, sizes = np.unique(labels, return_counts=True)
    # Each class gets its share rounded down, and those with the largest remainders one more (largest remainder method).
    taken, remainders = np.divmod(sizes * count, len(labels))
    order = np.lexsort((random.random(len(names)), -remainders))
    taken[order[: count - taken.sum()]] += 1
    members = [random.permutation(np.flatnonzero(labels == name)) for name in names]
    return np.sort(np.concatenate([some[:number] for some, number in zip(members, taken, strict=True)]))
