"""Average precision by COCO's protocol, for masks and boxes, with masks kept as run lengths alone."""

import logging
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from numpy.typing import NDArray
from pycocotools import mask as rle
from torch import Tensor
from torchmetrics.detection import MeanAveragePrecision

from cv_lab.data.instances import Instances, RunLengths

# It prints its tables through a logger.
logging.getLogger("faster_coco_eval").setLevel(logging.WARNING)

KINDS = {"segm": "mask", "bbox": "box"}  # torchmetrics' names, and ours
ALL_AREAS = 0  # of the four ranges of areas that precision is computed for
HALF = 0  # of the ten thresholds of overlap, the lowest: 0.5


class AveragePrecision(MeanAveragePrecision):
    """torchmetrics' metric, given detections and :class:`~cv_lab.data.instances.Instances`.

    It is twice as fast as its default at equal values: masks are encoded by pycocotools and matched by
    faster-coco-eval, and figures of single classes are read from the precisions of the one evaluation, where
    torchmetrics evaluates anew for each class.

    Args:
        num_classes: K.
    """

    def __init__(self, num_classes: int) -> None:
        super().__init__(iou_type=("bbox", "segm"), extended_summary=True, backend="faster_coco_eval")
        self.num_classes = num_classes

    def update(self, found: Sequence["Found"], objects: Sequence[Instances]) -> None:  # type: ignore[override]
        """Count what was `found` in images with `objects`."""
        for one, truth in zip(found, objects, strict=True):
            boxes = torch.as_tensor(truth.boxes, dtype=torch.float32)
            self.detection_box.append(torch.from_numpy(one.boxes))
            self.detection_mask.append(_tuples(one.masks))  # type: ignore[arg-type]
            self.detection_labels.append(torch.from_numpy(one.classes))
            self.detection_scores.append(torch.from_numpy(one.scores))
            self.groundtruth_box.append(boxes)
            self.groundtruth_mask.append(_tuples(truth.truth))  # type: ignore[arg-type]
            self.groundtruth_labels.append(torch.from_numpy(truth.classes))
            self.groundtruth_crowds.append(torch.from_numpy(truth.crowd.astype(np.int64)))
            self.groundtruth_area.append(torch.as_tensor(truth.areas, dtype=torch.float32))

    def _sync_dist(self, dist_sync_fn: Any = None, process_group: Any = None) -> None:
        """Gather what all processes counted, in their order.

        torchmetrics gathers image by image, and waits forever where one process has more images than another.
        """
        parts: list[Any] = [None] * dist.get_world_size(process_group)
        dist.all_gather_object(parts, {name: getattr(self, name) for name in self._reductions}, process_group)
        for name in self._reductions:
            setattr(self, name, [value for part in parts for value in part[name]])

    def compute(self) -> dict[str, Tensor]:
        """Scalars by name, and tensors by class.

        Of masks and, as ``box_...``, of boxes: "mask_map" over overlaps of 0.5 to 0.95, "mask_map_50", "mask_map_75",
        "mask_map_small", "mask_map_medium", "mask_map_large" (below 32 x 32 pixels, up to 96 x 96, above),
        "mask_mar_1", "mask_mar_10", "mask_mar_100", "mask_mar_small" and so on (recall with so many detections an
        image), float32 scalars; "mask_ap" by class, float32 (K,); "mask_precision", float32 (101, K), by recall from
        0 to 1 at an overlap of 0.5. What has no objects is NaN.
        """
        raw = super().compute()
        present = raw["classes"].flatten().long()
        result: dict[str, Tensor] = {}
        for theirs, ours in KINDS.items():
            for name, value in raw.items():
                kind, _, figure = name.partition("_")
                if kind == theirs and figure.startswith(("map", "mar")) and not figure.endswith("per_class"):
                    result[f"{ours}_{figure}"] = _nan(value.flatten()[0])
            ap = torch.full((self.num_classes,), math.nan)
            curves = torch.full((len(self.rec_thresholds), self.num_classes), math.nan)
            if f"{theirs}_precision" in raw:
                # (thresholds of overlap, recalls, classes, areas, numbers of detections)
                precision = _nan(raw[f"{theirs}_precision"].float())[:, :, :, ALL_AREAS, -1]
                ap[present] = precision.mean((0, 1))
                curves[:, present] = precision[HALF]
            result |= {f"{ours}_ap": ap, f"{ours}_precision": curves}
        return result


class Found:
    """What was found in an image, at the image's own size.

    Args:
        boxes: float32 (M, 4), x, y, width and height in pixels.
        classes: int64 (M,).
        scores: float32 (M,).
        masks: M run lengths.
    """

    __slots__ = ("boxes", "classes", "masks", "scores")

    def __init__(
        self,
        boxes: NDArray[np.float32],
        classes: NDArray[np.int64],
        scores: NDArray[np.float32],
        masks: Sequence[RunLengths],
    ) -> None:
        self.boxes, self.classes, self.scores, self.masks = boxes, classes, scores, masks


def at_own_size(detections: dict[str, Tensor], size: tuple[int, int], scale: tuple[float, float]) -> Found:
    """Detections in an image as a network saw it, in the image of its own size.

    Masks are drawn one by one and kept as run lengths: of a photograph with a hundred of them this takes 0.3 MB at a
    time instead of 100 MB.

    Args:
        detections: of a :class:`~cv_lab.models.mask_rcnn.InstanceSegmenter`.
        size: own height and width.
        scale: factors from own x and y to those that the network saw.
    """
    height, width = size
    corners = detections["boxes"].cpu() / torch.tensor([*scale, *scale])
    corners[:, 0::2].clamp_(0, width)
    corners[:, 1::2].clamp_(0, height)
    boxes = torch.cat([corners[:, :2], corners[:, 2:] - corners[:, :2]], 1)
    canvas = np.zeros((height, width), np.uint8, order="F")
    masks = [_draw(mask, box, canvas) for mask, box in zip(detections["masks"].cpu(), corners.tolist(), strict=True)]
    return Found(boxes.numpy(), detections["labels"].cpu().numpy(), detections["scores"].cpu().numpy(), masks)


def _draw(mask: Tensor, box: list[float], canvas: NDArray[np.uint8]) -> RunLengths:
    """Run lengths of a mask (S, S) scaled to its box on an empty canvas, as torchvision's `paste_masks_in_image`.

    The box and the mask are first widened by one cell, so that what lies at the mask's edge is interpolated alike.
    """
    cells = mask.shape[-1]
    x0, y0, x1, y1 = box
    middle_x, middle_y = (x0 + x1) / 2, (y0 + y1) / 2
    half_x, half_y = (x1 - x0) / 2 * (cells + 2) / cells, (y1 - y0) / 2 * (cells + 2) / cells
    left, top, right, bottom = (
        int(middle_x - half_x),
        int(middle_y - half_y),
        int(middle_x + half_x),
        int(middle_y + half_y),
    )
    rows, columns = max(bottom - top + 1, 1), max(right - left + 1, 1)
    padded = F.pad(mask, (1, 1, 1, 1))[None, None]
    scaled = F.interpolate(padded, size=(rows, columns), mode="bilinear", align_corners=False)[0, 0].numpy() > 0.5
    height, width = canvas.shape
    at = slice(max(top, 0), min(bottom + 1, height)), slice(max(left, 0), min(right + 1, width))
    canvas[at] = scaled[at[0].start - top : at[0].stop - top, at[1].start - left : at[1].stop - left]
    drawn = rle.encode(canvas)
    canvas[at] = 0
    return drawn


def _tuples(masks: Sequence[RunLengths]) -> tuple[tuple[tuple[int, int], bytes], ...]:
    """As torchmetrics keeps masks."""
    return tuple((tuple(mask["size"]), mask["counts"]) for mask in masks)


def _nan(value: Tensor) -> Tensor:
    """With NaN for -1, by which COCO's tools mean that there is nothing to measure."""
    return torch.where(value == -1, math.nan, value)
