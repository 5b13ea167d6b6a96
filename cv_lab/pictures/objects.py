"""Detected objects as pictures and as plain values."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as rle

from cv_lab.pictures import draw
from cv_lab.training.average_precision import Found


def draw_found(
    image: NDArray[np.uint8],
    found: Found,
    own: tuple[int, int],
    classes: Sequence[str],
    colors: NDArray[np.uint8],
    size: int = 240,
) -> Image.Image:
    """Draw detections over an image.

    Args:
        image: uint8 (h, w, 3), perhaps scaled.
        found: the detections.
        own: height and width of the image that they were found in.
        classes: the K names.
        colors: uint8 (K, 3), repeated if there are fewer.
        size: longer side of the picture in pixels.
    """
    return draw.instances(
        image,
        [rle.decode(shape) for shape in found.shapes(own)],
        [f"{classes[k]} {100 * score:.0f}" for k, score in zip(found.classes, found.scores, strict=True)],
        [colors[k % len(colors)].tolist() for k in found.classes],
        size,
    )


def at_least(found: Found, score: float) -> Found:
    """Keep the detections with a score of at least `score`."""
    kept = np.flatnonzero(found.scores >= score).tolist()
    masks = None if found.masks is None else [found.masks[i] for i in kept]
    return Found(found.boxes[kept], found.classes[kept], found.scores[kept], masks)


def as_plain(found: Found, classes: Sequence[str]) -> list[dict[str, Any]]:
    """Detections as plain values; masks, if there are any, are run lengths as in COCO's results."""
    boxes = found.boxes.tolist()
    masks = [{}] * len(boxes) if found.masks is None else [{"segmentation": plain_mask(mask)} for mask in found.masks]
    return [
        {"class": classes[k], "score": float(score), "bbox": box, **mask}
        for k, score, box, mask in zip(found.classes, found.scores, boxes, masks, strict=True)
    ]


def plain_mask(mask: dict[str, Any]) -> dict[str, Any]:
    """Return run lengths with their counts as text."""
    return {"size": list(mask["size"]), "counts": mask["counts"].decode()}
