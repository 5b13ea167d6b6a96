"""Conventions of labels, and errors, that all parts of the lab share."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

IGNORE = 255  # of pixels, after Pascal VOC; an image's label 255 is a class like others


class ClassCounts(NamedTuple):
    """How often each of K classes occurs.

    Attributes:
        counts: its pixels, or its images where pixels have no classes; int (K,).
        totals: all pixels, unlabelled ones too, of the images in which it occurs, or the number of images; int (K,).
    """

    counts: NDArray[np.integer]
    totals: NDArray[np.integer]


def first_line(error: Exception) -> str:
    """Type and first line of an error, to quote an error of a library within a message of the lab."""
    return f"{type(error).__name__}: {error}".splitlines()[0]


class NonFiniteLossError(RuntimeError):
    """The training loss became NaN or infinite.

    Args:
        where: step, epoch and what else helps to find the cause.
    """

    def __init__(self, loss: float, where: str) -> None:
        super().__init__(
            f"the training loss is {loss} at {where}: try a lower lr, a warm-up (scheduler=warmup_cosine) or "
            "trainer.gradient_clip_val=1"
        )
