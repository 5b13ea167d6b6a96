"""What a confusion matrix says in words."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def most_confused(
    matrix: NDArray[np.integer], classes: Sequence[str], top: int = 10
) -> list[tuple[str, str, int, float]]:
    """The most frequent mistakes.

    Args:
        matrix: counts, int (K, K); rows are the truth, columns the prediction.
        classes: K names.
        top: maximum number of mistakes to return.

    Returns:
        (truth, predicted, count, share of the true class's samples in 0..1), the largest count
        first; of equal counts the larger share, then the order of the classes. Pairs that never
        occur are left out.
    """
    if matrix.shape != (len(classes), len(classes)):
        raise ValueError(f"matrix has shape {matrix.shape}, {len(classes)} classes need a square")
    truth, predicted = np.nonzero(matrix * (1 - np.eye(len(classes), dtype=matrix.dtype)))
    counts = matrix[truth, predicted]
    shares = counts / matrix.sum(1)[truth]
    order = np.lexsort((predicted, truth, -shares, -counts))[:top]
    return [(classes[truth[i]], classes[predicted[i]], int(counts[i]), float(shares[i])) for i in order]
