"""What callbacks leave in a trial's folder."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cv_lab.files import replacing, write_csv
from cv_lab.pictures import draw


def save_png(image: Image.Image, path: Path) -> None:
    """Write `image` whole or not at all."""
    with replacing(path) as temporary:
        image.save(temporary, format="PNG", compress_level=1)  # a quarter of the time for a sixth more bytes


def save_confusion_matrix(counts: NDArray[np.integer], classes: Sequence[str], folder: Path) -> Image.Image:
    """Write counts, int (K, K) with the truth in rows, as ``confusion_matrix.csv`` and ``.png``; return the latter."""
    rows = [
        {"truth": name, **dict(zip(classes, row, strict=True))}
        for name, row in zip(classes, counts.tolist(), strict=True)
    ]
    write_csv(folder / "confusion_matrix.csv", rows)
    matrix = draw.confusion_matrix(counts, classes)
    save_png(matrix, folder / "confusion_matrix.png")
    return matrix
