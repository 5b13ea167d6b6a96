"""Average precision by COCO's protocol, for masks and boxes, with masks stored as run lengths only."""

import logging
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from faster_coco_eval import COCO, COCOeval_faster
from numpy.typing import NDArray
from pycocotools import mask as rle
from torch import Tensor

from cv_lab.data.instances import Instances, RunLengths, by_id, rectangles
from cv_lab.training.metrics import Metric

# It prints its tables through a logger.
logging.getLogger("faster_coco_eval").setLevel(logging.WARNING)

KINDS = {"segm": "mask", "bbox": "box"}  # COCO's names, and ours
FIGURES = (  # in COCO's order
    *("map", "map_50", "map_75", "map_small", "map_medium", "map_large"),
    *("mar_1", "mar_10", "mar_100", "mar_small", "mar_medium", "mar_large"),
)
ALL_AREAS = 0  # of the four ranges of areas that precision is computed for
MOST_DETECTIONS = -1  # of the three numbers of detections an image, the largest: 100
MIN_OVERLAP = 0.5  # intersection over union of a detection with the object that it matches
HALF = 0  # of the ten thresholds of overlap, the lowest: 0.5


class AveragePrecision(Metric):
    """COCO's figures for detections and :class:`~cv_lab.data.instances.Instances`, equal to pycocotools'.

    They are computed by faster-coco-eval, which does in C++ what pycocotools does, in a third of its time or less.
    hotcoco 1.3, in Rust, gives pycocotools' figures to the last bit in a seventh of faster-coco-eval's processor time.
    But masks and boxes together take 1.7 ms an image here and 0.25 ms there (7 objects and 30 detections an image), and
    drawing the masks takes longer than either, so a young library with one maintainer can wait.
    `torchmetrics.detection.MeanAveragePrecision` calls the same library, but rounds the thresholds of overlap and
    recall to float32: a recall of exactly 3/5 then misses the threshold 0.6, and the figures differ from pycocotools'
    by up to some percent of a class. It also evaluates anew for each class.

    Images are evaluated in the order of their ids, as in pycocotools, since the order decides between detections of
    equal scores.

    Args:
        num_classes: K.
        masks: evaluate masks beside boxes.
    """

    full_state_update = False

    def __init__(self, num_classes: int, masks: bool = True) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.kinds = KINDS if masks else {"bbox": KINDS["bbox"]}
        self.images: list[tuple[Found, Instances]] = []  # no state, since torchmetrics gathers tensors alone

    def update(self, found: Sequence["Found"], objects: Sequence[Instances]) -> None:
        """Add the detections in images with `objects`."""
        self.images += zip(found, objects, strict=True)

    def reset(self) -> None:
        super().reset()
        self.images = []

    def compute(self) -> dict[str, Tensor]:
        """Scalars by name, and tensors by class.

        Of masks, unless they are not evaluated, and, as ``box_...``, of boxes: "mask_map" over overlaps of 0.5 to
        0.95, "mask_map_50", "mask_map_75", "mask_map_small", "mask_map_medium", "mask_map_large" (below 32 x 32 pixels,
        up to 96 x 96, above), "mask_mar_1", "mask_mar_10", "mask_mar_100", "mask_mar_small" and so on (recall with so
        many detections an image), float32 scalars; "mask_ap" by class, float32 (K,); "mask_precision", float32
        (101, K), by recall from 0 to 1 at an overlap of 0.5. What has no objects is NaN.
        """
        images = sorted(self.of_all_processes(), key=lambda image: by_id(image[1].id))
        truth = self._dataset([_truth(objects) for _, objects in images], images)
        result: dict[str, Tensor] = {}
        for theirs, ours in self.kinds.items():
            detections = self._dataset([_detections(found, theirs) for found, _ in images], images)
            evaluation = COCOeval_faster(truth, detections, theirs)
            evaluation.run()
            # (thresholds of overlap, recalls, classes, areas, numbers of detections)
            precision = evaluation.eval["precision"][:, :, :, ALL_AREAS, MOST_DETECTIONS]
            result |= {f"{ours}_{name}": _known(value) for name, value in zip(FIGURES, evaluation.stats, strict=True)}
            result |= {f"{ours}_ap": _known(precision.mean((0, 1))), f"{ours}_precision": _known(precision[HALF])}
        return result

    def of_all_processes(self) -> list[tuple["Found", Instances]]:
        """The images so far, in the order of the data set."""
        if not (dist.is_available() and dist.is_initialized()):
            return self.images
        parts: list[list[tuple[Found, Instances]]] = [[]] * dist.get_world_size()
        dist.all_gather_object(parts, self.images)
        return [image for part in parts for image in part]

    def _dataset(self, annotations: Sequence[list[dict[str, Any]]], images: Sequence[tuple[Any, Instances]]) -> COCO:
        """Build a data set in COCO's format from the annotations of each image."""
        every = [{**one, "image_id": number} for number, some in enumerate(annotations) for one in some]
        return COCO(
            {
                "images": [
                    {"id": number, "height": objects.size[0], "width": objects.size[1]}
                    for number, (_, objects) in enumerate(images)
                ],
                "categories": [{"id": k} for k in range(self.num_classes)],
                # COCOeval reads an id of 0 as no match.
                "annotations": [{**one, "id": number} for number, one in enumerate(every, start=1)],
            }
        )


class Found:
    """The detections in an image, at the image's own size.

    Args:
        boxes: float32 (M, 4), x, y, width and height in pixels.
        classes: int64 (M,).
        scores: float32 (M,).
        masks: M run lengths; None of a network that detects boxes alone.
    """

    __slots__ = ("boxes", "classes", "masks", "scores")

    def __init__(
        self,
        boxes: NDArray[np.float32],
        classes: NDArray[np.int64],
        scores: NDArray[np.float32],
        masks: Sequence[RunLengths] | None,
    ) -> None:
        self.boxes, self.classes, self.scores, self.masks = boxes, classes, scores, masks

    def shapes(self, size: tuple[int, int]) -> Sequence[RunLengths]:
        """The masks, or else the boxes as masks, in an image of `size`, height and width."""
        return rectangles(self.boxes, size) if self.masks is None else self.masks


def panoptic_quality(found: Found, objects: Instances) -> float | None:
    """Compute the panoptic quality (Kirillov et al., 2019) of one image, in 0..1, with the classes taken together.

    It is None for an image without objects and detections, else the sum of the overlaps of objects and the detections
    of their class that match them, by more than a half, divided by the mean of the number of objects and the number of
    detections. Crowds do not count. The overlaps are those of boxes where there are no masks.
    """
    real = np.flatnonzero(~objects.crowd).tolist()
    total = (len(real) + len(found.classes)) / 2
    if total == 0:
        return None
    if len(real) == 0 or len(found.classes) == 0:
        return 0.0
    overlap = np.array(rle.iou(list(found.shapes(objects.size)), [objects.truth[i] for i in real], [0] * len(real)))
    overlap *= found.classes[:, None] == objects.classes[real][None]
    matched = 0.0
    while (best := overlap.max()) > MIN_OVERLAP:  # an object that two detections match counts once
        one, other = np.unravel_index(overlap.argmax(), overlap.shape)
        overlap[one], overlap[:, other] = 0, 0
        matched += float(best)
    return matched / total


def at_own_size(detections: dict[str, Tensor], size: tuple[int, int], scale: tuple[float, float]) -> Found:
    """Map detections from network resolution to the original image.

    Masks are drawn one by one and stored as run lengths: for a photograph with a hundred of them this takes 0.3 MB at a
    time instead of 100 MB.

    Args:
        detections: of a :class:`~cv_lab.models.mask_rcnn.InstanceSegmenter`.
        size: height and width of the original image.
        scale: factors from x and y in the original image to those at network resolution.
    """
    height, width = size
    corners = detections["boxes"].cpu() / torch.tensor([*scale, *scale])
    corners[:, 0::2].clamp_(0, width)
    corners[:, 1::2].clamp_(0, height)
    boxes = torch.cat([corners[:, :2], corners[:, 2:] - corners[:, :2]], 1)
    canvas = np.zeros((height, width), np.uint8, order="F")
    masks = None
    if "masks" in detections:
        pairs = zip(detections["masks"].cpu(), corners.numpy(), strict=True)
        masks = [_paste(mask, box, canvas) for mask, box in pairs]
    return Found(boxes.numpy(), detections["labels"].cpu().numpy(), detections["scores"].cpu().numpy(), masks)


def _paste(mask: Tensor, box: NDArray[np.float32], canvas: NDArray[np.uint8]) -> RunLengths:
    """Run lengths of a mask (S, S) within its box on an empty canvas, as detectron2's `paste_masks_in_image`.

    Each pixel near the box takes the value that the mask has at the pixel's centre, interpolated between the centres
    of its cells, and 0 beyond the box. torchvision rounds boxes to whole pixels instead, which costs small objects
    some of their overlap with the truth.
    """
    left, top, right, bottom = box
    if left >= right or top >= bottom:
        return rle.encode(canvas)
    (rows, y), (columns, x) = _places(top, bottom, canvas.shape[0]), _places(left, right, canvas.shape[1])
    places = np.empty((1, len(y), len(x), 2), np.float32)
    places[..., 0], places[..., 1] = x, y[:, None]
    values = F.grid_sample(mask[None, None], torch.from_numpy(places), align_corners=False)[0, 0]
    canvas[rows, columns] = values.numpy() >= 0.5
    drawn = rle.encode(canvas)
    canvas[rows, columns] = 0
    return drawn


def _places(first: np.float32, last: np.float32, size: int) -> tuple[slice, NDArray[np.float32]]:
    """Return the pixels along a side of a box, and the places of their centres, the side's ends being -1 and 1."""
    pixels = slice(max(math.floor(first) - 1, 0), min(math.ceil(last) + 1, size))
    centres = np.arange(pixels.start, pixels.stop, dtype=np.float32) + np.float32(0.5)
    return pixels, (centres - first) / (last - first) * 2 - 1


def _truth(objects: Instances) -> list[dict[str, Any]]:
    columns = (objects.classes.tolist(), objects.boxes.tolist(), objects.areas.tolist(), objects.crowd, objects.truth)
    return [
        {"category_id": k, "bbox": box, "area": area, "iscrowd": int(crowd), "segmentation": mask}
        for k, box, area, crowd, mask in zip(*columns, strict=True)
    ]


def _detections(found: Found, kind: str) -> list[dict[str, Any]]:
    """Return COCO results as pycocotools reads them: areas are those of boxes or masks, whichever is evaluated."""
    boxes = found.boxes.tolist()
    areas = [width * height for _, _, width, height in boxes]
    if kind == "segm":
        assert found.masks is not None
        areas = [int(rle.area(mask)) for mask in found.masks]  # one by one: pycocotools fails at more than 255
    masks = [{}] * len(boxes) if found.masks is None else [{"segmentation": mask} for mask in found.masks]
    columns = (found.classes.tolist(), found.scores.tolist(), boxes, areas, masks)
    return [
        {"category_id": k, "score": score, "bbox": box, "area": area, **mask}
        for k, score, box, area, mask in zip(*columns, strict=True)
    ]


def _known(value: float | NDArray[np.float64]) -> Tensor:
    """Convert to float32, with NaN for -1, which COCO's tools give where there is nothing to measure."""
    return torch.as_tensor(np.where(value == -1, math.nan, value), dtype=torch.float32)
