"""Images in memory with the objects in them: a mask, a box and a class for each object."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pycocotools import mask as rle
from torch import Tensor

from cv_lab.data.augment import Batch
from cv_lab.data.in_memory import InMemoryImages, Pixels
from cv_lab.data.layout import natural
from cv_lab.labels import ClassCounts

RunLengths = dict[str, Any]  # "size", height and width, and "counts", bytes, as pycocotools has them


class Instances:
    """The objects of one image: their truth at the image's own size, and what a network learns at the size in memory.

    A plain class rather than a dataclass, since Lightning copies those from batch to batch.

    Args:
        id: of the image, as its data set calls it.
        size: own height and width of the image in pixels.
        scale: factors from own x and y to those in memory.
        classes: int64 (M,), from 0 to K - 1.
        boxes: float64 (M, 4), x, y, width and height in own pixels.
        areas: float64 (M,), in own pixels.
        crowd: bool (M,), groups of objects: not learnt from, and neither found nor missed in COCO's figures.
        truth: M run lengths of own size.
        masks: M run lengths of the size in memory.
    """

    __slots__ = ("areas", "boxes", "classes", "crowd", "id", "masks", "scale", "size", "truth")

    def __init__(
        self,
        id: int | str,
        size: tuple[int, int],
        scale: tuple[float, float],
        classes: NDArray[np.int64],
        boxes: NDArray[np.float64],
        areas: NDArray[np.float64],
        crowd: NDArray[np.bool_],
        truth: Sequence[RunLengths],
        masks: Sequence[RunLengths],
    ) -> None:
        assert len(classes) == len(boxes) == len(areas) == len(crowd) == len(truth) == len(masks)
        self.id, self.size, self.scale = id, size, scale
        self.classes, self.boxes, self.areas, self.crowd = classes, boxes, areas, crowd
        self.truth, self.masks = truth, masks


class InstanceImages(InMemoryImages):
    """Images in memory with their objects.

    A batch has, beside what :class:`~cv_lab.data.in_memory.InMemoryImages` gives, M being the most objects, crowds
    apart, in one of its images: "masks", uint8 (N, M, H, W) of 0 and 1; "classes", int64 (N, M), -1 where an image
    has fewer objects; "objects", a list of N :class:`Instances`; and "id", a list of N names.

    Args:
        images: uint8 (N, 3, H, W).
        objects: of each image.
        classes: the K names.
        rows: int64 (N,), where each sample stood in the set that was loaded; by default 0 to N - 1.
    """

    def __init__(
        self,
        images: Pixels,
        objects: Sequence[Instances],
        classes: tuple[str, ...],
        rows: Tensor | None = None,
    ) -> None:
        # Splits are balanced by the class of the largest object.
        labels = torch.tensor([int(o.classes[o.areas.argmax()]) if len(o.classes) else 0 for o in objects])
        super().__init__(images, labels, classes, rows)
        self.objects = list(objects)

    def __getitems__(self, indices: list[int]) -> Batch:
        objects = [self.objects[i] for i in indices]
        learnt = [np.flatnonzero(~o.crowd).tolist() for o in objects]
        shape = (len(objects), max(map(len, learnt)), *self.images.shape[2:])
        masks = np.zeros(shape, np.uint8)
        classes = np.full(shape[:2], -1, np.int64)
        for number, (some, kept) in enumerate(zip(objects, learnt, strict=True)):
            if len(kept):
                masks[number, : len(kept)] = rle.decode([some.masks[i] for i in kept]).transpose(2, 0, 1)
                classes[number, : len(kept)] = some.classes[kept]
        return {
            **super().__getitems__(indices),
            "masks": torch.from_numpy(masks),
            "classes": torch.from_numpy(classes),
            "objects": objects,
            "id": [o.id for o in objects],
        }

    def subset(self, indices: Any) -> "InstanceImages":
        kept = super().subset(indices)
        objects = [self.objects[i] for i in torch.as_tensor(indices).tolist()]
        return InstanceImages(kept.images, objects, self.classes, kept.rows)

    def class_counts(self) -> ClassCounts:
        """Objects of each class, crowds apart, and objects of the images in which it occurs."""
        each = np.stack([np.bincount(o.classes[~o.crowd], minlength=len(self.classes)) for o in self.objects])
        return ClassCounts(each.sum(0), ((each > 0) * each.sum(1, keepdims=True)).sum(0))


def by_id(id: int | str) -> tuple[bool, Any]:
    """The key that sorts ids: numbers by their value, as pycocotools does, and before names in natural order."""
    return isinstance(id, str), natural(id) if isinstance(id, str) else id


def rectangles(boxes: NDArray[np.floating], size: tuple[int, int]) -> list[RunLengths]:
    """Boxes as run lengths of the pixels nearest to them, at least one pixel each.

    Args:
        boxes: (M, 4), x, y, width and height in pixels, that overlap the image.
        size: height and width of the image.
    """
    limits = np.array([size[1], size[0]])
    drawn = []
    for box in np.asarray(boxes, np.float64).reshape(-1, 4):
        first = np.clip(np.round(box[:2]), 0, limits - 1)
        last = np.clip(np.round(box[:2] + box[2:]), first + 1, limits)
        (left, top), (right, bottom) = first.astype(int).tolist(), last.astype(int).tolist()
        counts = [left * size[0] + top, *[bottom - top, size[0] - bottom + top] * (right - left)]
        counts[-1] = size[0] * size[1] - sum(counts[:-1])
        drawn.append(rle.frPyObjects({"size": list(size), "counts": counts}, *size))
    return drawn


def boxes_alone(objects: Instances, size: tuple[int, int]) -> Instances:
    """The same objects with their boxes for masks, as an object detector learns them.

    Args:
        objects: of an image.
        size: height and width in memory.
    """
    scaled = objects.boxes * np.array([*objects.scale, *objects.scale])
    return Instances(
        *(objects.id, objects.size, objects.scale, objects.classes, objects.boxes, objects.areas, objects.crowd),
        rectangles(objects.boxes, objects.size),
        rectangles(scaled, size),
    )


def from_numbered(numbers: NDArray[np.uint8], classes: NDArray[np.int64], id: int | str) -> Instances:
    """The objects of an image that do not overlap.

    Args:
        numbers: uint8 (H, W), 0 for the background and m + 1 for pixels of object m.
        classes: int64 (M,).
        id: of the image.
    """
    each = np.asfortranarray(numbers[:, :, None] == np.arange(1, len(classes) + 1), dtype=np.uint8)
    masks = rle.encode(each)
    areas, boxes = rle.area(masks).astype(np.float64), rle.toBbox(masks)
    crowd = np.zeros(len(classes), bool)
    height, width = numbers.shape
    return Instances(id, (height, width), (1.0, 1.0), classes, boxes, areas, crowd, masks, masks)
