"""Detected objects as pictures and as plain values."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as rle

from cv_lab.pictures import draw
from cv_lab.training.average_precision import Found

STEPS = ((1, 0), (0, 1), (-1, 0), (0, -1))  # in x and y: right, down, left, up


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


def yolo_line(row: dict[str, Any], number: int, size: tuple[int, int]) -> str:
    """A line of YOLO's labels: the class's number, and a polygon, or the box where there is no mask.

    Args:
        row: of :func:`as_plain`.
        number: of its class, from 0.
        size: height and width of the image, in whose shares coordinates are given; a box is its centre, width and
            height.
    """
    height, width = size
    x, y, w, h = row["bbox"]
    points = outline(rle.decode(row["segmentation"])) if "segmentation" in row else np.zeros((0, 2))
    if not len(points):  # no mask, or an empty one
        points = np.array([[x + w / 2, y + h / 2], [w, h]])
    shares = points / (width, height)
    return " ".join([str(number), *(f"{value:.6f}" for value in shares.flatten())])


def outline(mask: NDArray[np.uint8]) -> NDArray[np.int64]:
    """The outline of the largest piece of a mask, as corners x and y of a polygon, int64 (C, 2); holes are filled.

    Args:
        mask: uint8 (H, W); nonzero pixels belong to it.
    """
    inside = np.pad(mask > 0, 1)
    own, above, before = inside[1:, 1:], inside[:-1, 1:], inside[1:, :-1]
    # Sides of pixels between inside and outside, by x, y and direction, with the inside on their right.
    sides = {(x, y, 0) for y, x in np.argwhere(own & ~above).tolist()}
    sides |= {(x, y, 1) for y, x in np.argwhere(before & ~own).tolist()}
    sides |= {(x + 1, y, 2) for y, x in np.argwhere(above & ~own).tolist()}
    sides |= {(x, y + 1, 3) for y, x in np.argwhere(own & ~before).tolist()}
    rings, left = [], set(sides)
    while left:
        start = side = next(iter(left))
        ring: list[tuple[int, int]] = []
        while not ring or side != start:
            x, y, direction = side
            ring.append((x, y))
            left.remove(side)
            x, y = x + STEPS[direction][0], y + STEPS[direction][1]
            # The right turn first: pixels that touch at a corner alone are two pieces.
            turns = ((x, y, (direction + turn) % 4) for turn in (1, 0, -1))
            side = next(turn for turn in turns if turn in sides)
        rings.append(np.array(ring))
    largest = max(rings, key=_area, default=np.zeros((0, 2), np.int64))
    straight = largest - np.roll(largest, 1, 0) == np.roll(largest, -1, 0) - largest
    return largest[~straight.all(1)]


def _area(ring: NDArray[np.int64]) -> int:
    """Twice the area of a ring, negative for a hole."""
    following = np.roll(ring, -1, 0)
    return int((ring[:, 0] * following[:, 1] - following[:, 0] * ring[:, 1]).sum())


def plain_mask(mask: dict[str, Any]) -> dict[str, Any]:
    """Return run lengths with their counts as text."""
    return {"size": list(mask["size"]), "counts": mask["counts"].decode()}
