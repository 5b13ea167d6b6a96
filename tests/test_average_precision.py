"""COCO's figures, against pycocotools on the same detections."""

import contextlib
import io
from typing import Any

import numpy as np
import pytest
import torch
from pycocotools import mask as rle
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torchvision.models.detection.roi_heads import paste_masks_in_image

from cv_lab.average_precision import AveragePrecision, Found, at_own_size
from cv_lab.data.instances import Instances

CLASSES = 4


def scenes(count: int, seed: int) -> tuple[list[Found], list[Instances]]:
    """Random objects, some of them crowds, and detections that are moved copies of them; class 3 never occurs."""
    random = np.random.default_rng(seed)
    found, objects = [], []
    for image in range(count):
        height, width, amount = 200, 240, int(random.integers(0, 8))
        sides = random.integers(8, 150, (amount, 2))
        corners = (random.random((amount, 2)) * (np.array([width, height]) - sides)).astype(int)
        boxes = np.concatenate([corners, sides], 1).astype(float)

        def masks(boxes: np.ndarray, height: int = height, width: int = width) -> list[dict[str, Any]]:
            canvas = np.zeros((height, width, len(boxes)), np.uint8, order="F")
            for i, (x, y, w, h) in enumerate(boxes.astype(int)):
                canvas[max(y, 0) : y + h, max(x, 0) : x + w, i] = 1
            return rle.encode(canvas)

        truth = masks(boxes)
        classes = random.integers(0, 3, amount)
        areas = rle.area(truth).astype(float) if amount else np.zeros(0)
        crowd = random.random(amount) < 0.1
        objects.append(Instances(image, (height, width), (1.0, 1.0), classes, boxes, areas, crowd, truth, truth))
        moved = np.concatenate([boxes, boxes[: amount // 2]]) + random.normal(0, 4, (amount + amount // 2, 4))
        moved[:, 2:] = moved[:, 2:].clip(4)
        guessed = np.concatenate([classes, random.integers(0, 3, amount // 2)])
        scores = random.random(len(moved)).astype(np.float32)
        found.append(Found(moved.astype(np.float32), guessed, scores, masks(moved)))
    return found, objects


def official(found: list[Found], objects: list[Instances], kind: str) -> COCOeval:
    truth, results = COCO(), COCO()
    images = [{"id": i, "height": o.size[0], "width": o.size[1]} for i, o in enumerate(objects)]
    truth.dataset = {
        "images": images,
        "categories": [{"id": k} for k in range(CLASSES)],
        "annotations": [
            {
                "id": 1000 * i + m + 1,
                "image_id": i,
                "category_id": int(o.classes[m]),
                "bbox": o.boxes[m].tolist(),
                "area": o.areas[m],
                "iscrowd": int(o.crowd[m]),
                "segmentation": o.truth[m],
            }
            for i, o in enumerate(objects)
            for m in range(len(o.classes))
        ],
    }
    told = [
        {"image_id": i, "category_id": int(c), "score": float(s)}
        | ({"bbox": b.tolist()} if kind == "bbox" else {"segmentation": m})
        for i, f in enumerate(found)
        for c, s, b, m in zip(f.classes, f.scores, f.boxes, f.masks, strict=True)
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        truth.createIndex()
        results = truth.loadRes(told)
        evaluation = COCOeval(truth, results, kind)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation


@pytest.mark.parametrize(("kind", "ours"), [("segm", "mask"), ("bbox", "box")])
def test_figures_are_those_of_pycocotools(kind: str, ours: str) -> None:
    found, objects = scenes(40, seed=1)
    metric = AveragePrecision(CLASSES)
    for start in range(0, 40, 8):
        metric.update(found[start : start + 8], objects[start : start + 8])
    figures = metric.compute()
    evaluation = official(found, objects, kind)
    names = ("map", "map_50", "map_75", "map_small", "map_medium", "map_large")
    names += ("mar_1", "mar_10", "mar_100", "mar_small", "mar_medium", "mar_large")
    assert [figures[f"{ours}_{name}"].item() for name in names] == pytest.approx(evaluation.stats.tolist(), abs=1e-6)
    precision = evaluation.eval["precision"][:, :, :, 0, 2]  # (thresholds, recalls, classes)
    assert figures[f"{ours}_ap"][:3].tolist() == pytest.approx(precision[:, :, :3].mean((0, 1)).tolist(), abs=1e-6)
    assert figures[f"{ours}_ap"][3].isnan()
    assert torch.allclose(figures[f"{ours}_precision"][:, :3].double(), torch.from_numpy(precision[0, :, :3]))


def test_without_objects_there_is_no_figure() -> None:
    metric = AveragePrecision(CLASSES)
    none = np.zeros((0, 4))
    empty = Instances(1, (8, 8), (1.0, 1.0), np.zeros(0, int), none, np.zeros(0), np.zeros(0, bool), [], [])
    nothing = Found(none.astype(np.float32), np.zeros(0, int), np.zeros(0, np.float32), [])
    metric.update([nothing], [empty])
    figures = metric.compute()
    assert figures["mask_map"].isnan()
    assert figures["box_ap"].isnan().all()


def test_masks_are_drawn_as_torchvision_draws_them() -> None:
    torch.manual_seed(0)
    masks = torch.nn.functional.interpolate(torch.rand(12, 1, 5, 5), 28, mode="bicubic")[:, 0].clamp(0, 1)
    corners = torch.rand(12, 2) * 90 - 10
    boxes = torch.cat([corners, corners + torch.rand(12, 2) * 60 + 0.3], 1).clamp(0, 80)
    boxes[:, 3].clamp_(max=70)
    detections = {"boxes": boxes, "masks": masks, "labels": torch.zeros(12).long(), "scores": torch.rand(12)}
    found = at_own_size(detections, (70, 80), (1.0, 1.0))
    drawn = np.stack([rle.decode(mask) for mask in found.masks])
    theirs = (paste_masks_in_image(masks[:, None], boxes, (70, 80))[:, 0] > 0.5).numpy()
    assert (drawn == theirs).all()
    # An image in memory of half the size gives the same in the whole one, twice as large.
    double = at_own_size(detections | {"boxes": boxes / 2}, (70, 80), (0.5, 0.5))
    assert double.masks == found.masks
