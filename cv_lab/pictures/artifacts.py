"""What callbacks leave in a trial's folder."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from cv_lab.files import replacing, write_csv
from cv_lab.pictures import draw

# What a report calls a picture, by its file's name; others are called by their file's name.
TITLES = {
    "gallery.png": "predictions",
    "confusion_matrix.png": "confusion matrix of the test set",
    "gallery_last_epoch.png": "predictions of the last epoch",
    "iou.png": "intersection over union of each class",
    "best.png": "best images of the sample",
    "worst.png": "worst images of the sample",
    "average_precision.png": "average precision of each class",
    "precision_recall.png": "precision and recall of each class",
}


def save_png(image: Image.Image, path: Path) -> None:
    """Write `image` whole or not at all, with its title."""
    info = PngInfo()
    if path.name in TITLES:
        info.add_text("Title", TITLES[path.name])
    with replacing(path) as temporary:
        image.save(
            temporary, format="PNG", pnginfo=info, compress_level=1
        )  # a quarter of the time for a sixth more bytes


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
