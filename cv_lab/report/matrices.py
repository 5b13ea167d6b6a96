"""Confusion matrices of trials."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cv_lab.study.confusion import most_confused
from cv_lab.study.read import read_table
from cv_lab.study.record import UnreadableError
from cv_lab.study.trials import Trial

PAIRS = 8  # mistakes listed of each matrix


@dataclass(frozen=True)
class Matrix:
    """A confusion matrix: its trial, its classes, its counts (K, K) with the truth in rows."""

    trial: Trial
    classes: list[str]
    counts: NDArray[np.int64]

    def pairs(self) -> list[tuple[str, str, int, float]]:
        """The most confused pairs, see :func:`~cv_lab.study.confusion.most_confused`."""
        return most_confused(self.counts, self.classes, PAIRS)


def matrix(trial: Trial, notes: list[str]) -> Matrix | None:
    """The trial's confusion matrix, if it wrote one; a damaged one is noted."""
    path = trial.folder / "predictions" / "confusion_matrix.csv"
    if not path.exists():
        return None
    try:
        rows = read_table(path)
        classes = [next(iter(row.values())) for row in rows]
        counts = np.array([[int(row[name]) for name in classes] for row in rows], dtype=np.int64)
        if not rows or counts.min() < 0:
            raise UnreadableError("confusion_matrix.csv is damaged (no counts)")
    except (KeyError, ValueError, OverflowError, OSError) as error:
        what = error if isinstance(error, UnreadableError) else f"confusion_matrix.csv is damaged ({error})"
        notes.append(f"{trial.name} is shown without its confusion matrix: {what}.")
        return None
    return Matrix(trial, classes, counts)
