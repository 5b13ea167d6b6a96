"""Pictures as PNG: encoded once, for files and for TensorBoard."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cv_lab.files import replacing, write_csv


class Png(NamedTuple):
    """An encoded picture.

    Attributes:
        data: the content of a PNG file.
        width: in pixels.
        height: in pixels.
    """

    data: bytes
    width: int
    height: int


def encode(image: Image.Image) -> Png:
    """Compress a picture lightly: in a quarter of the time that Pillow's default takes, to a sixth more bytes."""
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", compress_level=1)
    return Png(buffer.getvalue(), image.width, image.height)


def save_png(image: Image.Image | Png, path: Path) -> None:
    """Write a PNG file whole or not at all."""
    png = image if isinstance(image, Png) else encode(image)
    with replacing(path) as temporary:
        temporary.write_bytes(png.data)


def write_confusion_csv(counts: NDArray[np.integer], classes: Sequence[str], path: Path) -> None:
    """Write counts, int (K, K), as a table with the truth in rows.

    The first column names it, and is called "truth", with underscores behind it where that is a class.
    """
    first = "truth"
    while first in classes:
        first += "_"
    rows = [
        {first: name, **dict(zip(classes, row, strict=True))}
        for name, row in zip(classes, counts.tolist(), strict=True)
    ]
    write_csv(path, rows)
