"""Predict for a large image tile by tile: masks are blended, objects found twice are merged."""

from collections.abc import Sequence
from itertools import product
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from cv_lab.data import pixels
from cv_lab.models.mask_rcnn import Detections
from cv_lab.tasks.base import Photo, Task
from cv_lab.trial.predictor import BATCH_SIZE, predict_batch

OVERLAP = 0.25  # of a tile with the next one, at least
SAME = 0.5  # overlap of two boxes from which on they are of one object


def open_whole(path: Path) -> Photo:
    """Read an image file at its own size.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is not an image, or a damaged one.
    """
    with pixels.opened(path) as image:
        width, height = image.size
        whole = image.fitting((height, width))
    return Photo(path, whole, whole, (height, width))


def predict_tiles(task: Task, photo: Photo, side: int, score: float = 0.0) -> Tensor | list[Detections]:
    """What a loaded `task` says of a whole image, in the form of :meth:`~cv_lab.tasks.base.Task.predict`.

    Each tile is scaled to the network's size as an image by itself would be.

    Args:
        task: of semantic or instance segmentation.
        photo: of :func:`open_whole`.
        side: of a tile, in pixels of the image.
        score: objects below it are left out before they are merged, so that none of them replaces a better one.

    Returns:
        Probabilities of a batch of one image, float (1, K, H, W); or its detections.
    """
    height, width = photo.size
    places = list(product(starts_of(height, side), starts_of(width, side)))
    tiles = [photo.pixels[y : y + side, x : x + side] for y, x in places]
    photos = [task.fitted(pixels.Photo(Image.fromarray(tile))) for tile in tiles]
    batches = (photos[start : start + BATCH_SIZE] for start in range(0, len(photos), BATCH_SIZE))
    outputs = [output for batch in batches for output in predict_batch(task, batch)]
    if task.target == "mask":
        return blended(outputs, photos, places, photo.size, side)
    outputs = [{name: values[one["scores"] >= score] for name, values in one.items()} for one in outputs]
    return [merged(outputs, photos, places, photo.size)]


def starts_of(length: int, side: int) -> list[int]:
    """Where tiles of `side` begin that cover `length` pixels and overlap by `OVERLAP` at least."""
    if length <= side:
        return [0]
    step = max(1, round(side * (1 - OVERLAP)))
    count = 1 + -(-(length - side) // step)
    return [round(float(start)) for start in np.linspace(0, length - side, count)]


def weights_of(starts: Sequence[int], length: int, side: int) -> list[NDArray[np.float32]]:
    """How much each tile counts at its pixels along one axis.

    The outer quarter of an overlap does not count at all, since a network sees less there; weights rise linearly over
    the half between. At the borders of the image tiles count whole.
    """
    side = min(side, length)
    at = np.arange(side) + 0.5
    weights = []
    for number, start in enumerate(starts):
        weight = np.ones(side)
        for distance, neighbour in ((at, number - 1), (side - at, number + 1)):
            if 0 <= neighbour < len(starts):
                overlap = side - abs(starts[neighbour] - start)
                weight *= ((distance - overlap / 4) / (overlap / 2)).clip(0, 1)
        weights.append(weight.astype(np.float32))
    return weights


def blended(
    outputs: Sequence[Tensor],
    photos: Sequence[Photo],
    places: Sequence[tuple[int, int]],
    size: tuple[int, int],
    side: int,
) -> Tensor:
    """The weighted means of the tiles' probabilities, float (1, K, H, W)."""
    rows, columns = (sorted(set(values)) for values in zip(*places, strict=True))
    by_row = dict(zip(rows, weights_of(rows, size[0], side), strict=True))
    by_column = dict(zip(columns, weights_of(columns, size[1], side), strict=True))
    sums = torch.zeros(len(outputs[0]), *size)
    total = torch.zeros(size)
    for output, photo, (y, x) in zip(outputs, photos, places, strict=True):
        shown = output[None, :, : photo.shown.shape[0], : photo.shown.shape[1]].float()
        if shown.shape[2:] != photo.size:
            shown = F.interpolate(shown, photo.size, mode="bilinear", align_corners=False)
        weight = torch.from_numpy(by_row[y][:, None] * by_column[x])
        here = (slice(y, y + len(weight)), slice(x, x + weight.shape[1]))
        sums[:, *here] += shown[0] * weight
        total[here] += weight
    return (sums / total)[None]


def merged(
    outputs: Sequence[Detections], photos: Sequence[Photo], places: Sequence[tuple[int, int]], size: tuple[int, int]
) -> Detections:
    """The tiles' detections in coordinates of the whole image, each object once.

    Boxes of one class from two tiles are of one object if they overlap by more than `SAME`, of their union; where one
    is cut off at the border of its tile, of that one, which is a part; where both are, of the smaller one. Of these,
    one that is not cut off is kept, or else that with the highest score.
    """
    parts, cut = [], []
    for output, photo, (y, x) in zip(outputs, photos, places, strict=True):
        height, width = photo.size
        scale = torch.tensor([photo.shown.shape[1] / width, photo.shown.shape[0] / height]).repeat(2)
        boxes = output["boxes"] / scale
        pixel = (1 / scale).clamp(min=1)
        inner = torch.tensor([x > 0, y > 0, x + width < size[1], y + height < size[0]])
        gaps = torch.cat([boxes[:, :2], torch.tensor([width, height]) - boxes[:, 2:]], 1)
        cut.append(((gaps < pixel) & inner).any(1))
        parts.append({**output, "boxes": boxes + torch.tensor([x, y]).repeat(2)})
    every = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    tile = torch.repeat_interleave(torch.arange(len(parts)), torch.tensor([len(part["scores"]) for part in parts]))
    kept = once(every["boxes"], every["labels"], every["scores"], tile, torch.cat(cut))
    return {name: values[kept] for name, values in every.items()}


def once(boxes: Tensor, labels: Tensor, scores: Tensor, tile: Tensor, cut: Tensor) -> Tensor:
    """The boxes to keep, int64, by falling score; see :func:`merged`.

    Args:
        boxes: float (M, 4), x and y of two corners.
        labels: int64 (M,).
        scores: float (M,).
        tile: int64 (M,), the tile of each.
        cut: bool (M,), whether it is cut off at its tile's border.
    """
    order = np.lexsort((-scores.numpy(), cut.numpy())).tolist()
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    dropped = torch.zeros(len(boxes), dtype=torch.bool)
    kept = []
    for k in order:
        if dropped[k]:
            continue
        kept.append(k)
        corners = torch.maximum(boxes[:, :2], boxes[k, :2]), torch.minimum(boxes[:, 2:], boxes[k, 2:])
        shared = (corners[1] - corners[0]).clamp(min=0).prod(1)
        part = torch.minimum(areas, areas[k]) if cut[k] else areas  # boxes that are not cut off come first
        whole = torch.where(cut | cut[k], part, areas + areas[k] - shared)
        dropped |= (labels == labels[k]) & (tile != tile[k]) & (shared > SAME * whole)
    index = torch.tensor(kept, dtype=torch.long)
    return index[scores[index].argsort(descending=True, stable=True)]
