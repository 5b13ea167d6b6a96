"""COCO's figures, against pycocotools on the same detections, and masks as detectron2 pastes them."""

import contextlib
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from pycocotools import mask as rle
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torch import Tensor
from torchvision.ops import roi_align

from cv_lab.data.instances import Instances
from cv_lab.data.instances import rectangles as drawn_boxes
from cv_lab.data.shapes import Shapes
from cv_lab.training.average_precision import FIGURES, KINDS, AveragePrecision, Found, at_own_size

CLASSES = 4
SIZE = (200, 240)
Scenes = tuple[list[Found], list[Instances]]


def rectangles(boxes: NDArray[np.float64], size: tuple[int, int] = SIZE) -> list[dict[str, Any]]:
    canvas = np.zeros((*size, len(boxes)), np.uint8, order="F")
    for i, (x, y, w, h) in enumerate(boxes.astype(int)):
        canvas[max(y, 0) : y + h, max(x, 0) : x + w, i] = 1
    return rle.encode(canvas)


def scene(
    id: int | str,
    boxes: NDArray[np.float64],
    classes: NDArray[np.int64],
    crowd: NDArray[np.bool_] | None = None,
    areas: NDArray[np.float64] | None = None,
) -> Instances:
    masks = rectangles(boxes)
    areas = np.array([rle.area(mask) for mask in masks], float) if areas is None else areas
    crowd = np.zeros(len(boxes), bool) if crowd is None else crowd
    return Instances(id, SIZE, (1.0, 1.0), classes, boxes, areas, crowd, masks, masks)


def found(boxes: NDArray[np.float64], classes: NDArray[np.int64], scores: NDArray[np.floating]) -> Found:
    return Found(boxes.astype(np.float32), classes, scores.astype(np.float32), rectangles(boxes))


def scenes(
    images: int = 16,
    objects: int = 8,
    crowds: float = 0.0,
    extra: int = 3,
    levels: int | None = None,
    blur: float = 4.0,
    classes: int = 3,
    sides: tuple[int, int] = (8, 150),
    seed: int = 0,
) -> Scenes:
    """Random objects, and detections that are moved copies of them; the class 3 never occurs in the truth.

    Args:
        images: how many; their ids are numbers of one to three digits.
        objects: in an image at most.
        crowds: the share of objects that are crowds.
        extra: detections of an image beyond the copies.
        levels: different scores; None for as many as there are detections.
        blur: standard deviation in pixels by which copies are moved.
        classes: of the objects.
        sides: of the objects, in pixels, from the least to below the most.
        seed: of all that is drawn.
    """
    random = np.random.default_rng(seed)
    detections, truth = [], []
    for id in random.permutation(150)[:images].tolist():
        amount = int(random.integers(0, objects + 1))
        extent = random.integers(*sides, (amount, 2))
        corners = (random.random((amount, 2)) * (np.array(SIZE[::-1]) - extent)).astype(int)
        boxes = np.concatenate([corners, extent], 1).astype(float)
        labels = random.integers(0, classes, amount)
        # What annotators call the area differs from that of the mask, and may be 0.
        areas = extent.prod(1) * random.choice([0.0, 0.7, 1.0], amount, p=[0.05, 0.35, 0.6])
        truth.append(scene(id, boxes, labels, random.random(amount) < crowds, areas))
        others = np.concatenate([random.random((extra, 2)) * 90, random.integers(4, 100, (extra, 2))], 1)
        moved = np.concatenate([boxes + random.normal(0, blur, boxes.shape), others])
        moved[:, 2:] = moved[:, 2:].clip(4)
        guessed = np.concatenate([labels, random.integers(0, CLASSES, extra)])
        scores = random.random(len(moved))
        if levels is not None:
            scores = np.ceil(scores * levels) / levels
        detections.append(found(moved, guessed, scores))
    return detections, truth


def of_each_class(count: int) -> Scenes:
    """`count` objects of each class, of which some are found: recalls are whole multiples of 1 / `count`."""
    random = np.random.default_rng(count)
    detections, truth = [], []
    for id in range(count):
        boxes = np.array([[10.0, 10, 20, 20], [60, 20, 50, 50], [10, 80, 100, 110]])
        truth.append(scene(id, boxes, np.arange(3)))
        kept = random.random(3) < 0.6
        # Shortened to 3/5 or 4/5 of their height, which is their overlap too.
        shorter = boxes * np.array([[1, 1, 1, random.choice([0.6, 0.8, 1.0])]])
        detections.append(found(shorter[kept], np.arange(3)[kept], random.random(3)[kept]))
    return detections, truth


def copies() -> Scenes:
    _, truth = scenes(seed=3)
    return [found(o.boxes, o.classes, np.ones(len(o.classes))) for o in truth], truth


CASES: dict[str, Scenes] = {
    "plain": scenes(),
    "crowds": scenes(crowds=0.3, extra=8),
    "ties": scenes(levels=3, extra=10),
    "all scores equal": scenes(levels=1, extra=10),
    "more than 100 detections": scenes(images=3, objects=30, extra=400, classes=2),
    "few objects, and images without any": scenes(images=30, objects=1, extra=2),
    "a class in detections alone": scenes(classes=1, extra=12),
    "five objects a class": of_each_class(5),
    "ten objects a class": of_each_class(10),
    "exact copies": copies(),
    "small": scenes(sides=(2, 32), blur=1),
    "large": scenes(sides=(97, 190), blur=12),
    "nothing found": scenes(images=3, objects=0, extra=0),
}


def official(detections: Sequence[Found], truth: Sequence[Instances], kind: str) -> COCOeval:
    """pycocotools' evaluation."""
    annotations = [
        {
            "image_id": o.id,
            "category_id": int(o.classes[m]),
            "bbox": o.boxes[m].tolist(),
            "area": float(o.areas[m]),
            "iscrowd": int(o.crowd[m]),
            "segmentation": o.truth[m],
        }
        for o in truth
        for m in range(len(o.classes))
    ]
    told = [
        {"image_id": o.id, "category_id": int(c), "score": float(s)}
        | ({"bbox": b.tolist()} if kind == "bbox" else {"segmentation": m})
        for o, f in zip(truth, detections, strict=True)
        for c, s, b, m in zip(f.classes, f.scores, f.boxes, f.masks, strict=True)
    ]
    real, results = COCO(), COCO()
    real.dataset = {
        "images": [{"id": o.id, "height": o.size[0], "width": o.size[1]} for o in truth],
        "categories": [{"id": k} for k in range(CLASSES)],
        "annotations": [{**one, "id": number} for number, one in enumerate(annotations, start=1)],
    }
    with contextlib.redirect_stdout(io.StringIO()):
        real.createIndex()
        if told:
            results = real.loadRes(told)
        else:  # which loadRes refuses
            results.dataset = {**real.dataset, "annotations": []}
            results.createIndex()
        evaluation = COCOeval(real, results, kind)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation


def figures_of(detections: Sequence[Found], truth: Sequence[Instances], classes: int = CLASSES) -> dict[str, Tensor]:
    metric = AveragePrecision(classes)
    for start in range(0, len(truth), 4):
        metric.update(detections[start : start + 4], truth[start : start + 4])
    return metric.compute()


def nan(value: Any) -> NDArray[np.float64]:
    return np.where(np.asarray(value) == -1, np.nan, value)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("case", CASES)
def test_figures_are_those_of_pycocotools(case: str, kind: str) -> None:
    figures, ours = figures_of(*CASES[case]), KINDS[kind]
    evaluation = official(*CASES[case], kind)
    assert len(evaluation.stats) == len(FIGURES) == 12
    told = [figures[f"{ours}_{name}"].item() for name in FIGURES]
    assert told == pytest.approx(nan(evaluation.stats).tolist(), abs=1e-6, nan_ok=True)
    precision = nan(evaluation.eval["precision"][:, :, :, 0, 2])  # (thresholds, recalls, classes)
    assert figures[f"{ours}_ap"].tolist() == pytest.approx(precision.mean((0, 1)).tolist(), abs=1e-6, nan_ok=True)
    assert np.allclose(figures[f"{ours}_precision"].numpy(), precision[0], atol=1e-6, equal_nan=True)


def test_a_recall_of_three_fifths_reaches_the_threshold() -> None:
    box = np.array([[20.0, 30, 40, 40]])
    some, none = np.zeros(1, int), np.zeros(0, int)
    truth = [scene(id, box, some) for id in range(5)]
    seen = [found(box, some, np.ones(1)) if id < 3 else found(box[:0], none, np.zeros(0)) for id in range(5)]
    figures = figures_of(seen, truth, classes=1)
    for kind in KINDS.values():  # the precision is 1 at the 61 recalls from 0 to 0.6, and 0 at the other 40
        assert figures[f"{kind}_map"].item() == pytest.approx(61 / 101, abs=1e-6)
        assert figures[f"{kind}_ap"].tolist() == pytest.approx([61 / 101], abs=1e-6)


def test_an_overlap_of_three_fifths_reaches_the_threshold() -> None:
    whole, part, some = np.array([[20.0, 30, 40, 40]]), np.array([[20.0, 30, 40, 24]]), np.zeros(1, int)
    figures = figures_of([found(part, some, np.ones(1))], [scene(1, whole, some)], classes=1)
    for kind in KINDS.values():  # found at 0.5, 0.55 and 0.6 of ten thresholds
        assert figures[f"{kind}_map"].item() == pytest.approx(0.3, abs=1e-6)


def test_images_count_in_the_order_of_their_ids() -> None:
    """As in pycocotools: a false detection of an equal score costs nothing when its image comes after the true one."""
    box, elsewhere, some = np.array([[20.0, 30, 40, 40]]), np.array([[150.0, 100, 40, 40]]), np.zeros(1, int)
    right, wrong = found(box, some, np.ones(1)), found(elsewhere, some, np.ones(1))

    def map_of(true: int, false: int) -> float:
        truth = [scene(false, elsewhere[:0], some[:0]), scene(true, box, some)]
        return figures_of([wrong, right], truth, classes=1)["mask_map"].item()

    assert map_of(true=9, false=10) == pytest.approx(1)
    assert map_of(true=10, false=9) == pytest.approx(0.5)


def test_one_class_keeps_its_axis() -> None:
    detections, truth = scenes(classes=1, extra=0)
    figures = figures_of(detections, truth, classes=1)
    for kind in KINDS.values():
        assert figures[f"{kind}_ap"].shape == (1,)
        assert figures[f"{kind}_precision"].shape == (101, 1)
        assert figures[f"{kind}_ap"].item() == pytest.approx(figures[f"{kind}_map"].item(), abs=1e-6)


def test_without_objects_there_is_no_figure() -> None:
    metric = AveragePrecision(CLASSES)
    nothing, no_class = np.zeros((0, 4)), np.zeros(0, int)
    metric.update([found(nothing, no_class, np.zeros(0))], [scene(1, nothing, no_class)])
    figures = metric.compute()
    assert figures["mask_map"].isnan()
    assert figures["box_ap"].isnan().all()


def test_an_epoch_begins_anew() -> None:
    detections, truth = CASES["plain"]
    metric = AveragePrecision(CLASSES)
    metric.update(detections[:5], truth[:5])
    metric.compute()
    metric.reset()
    metric.update(detections, truth)
    assert metric.compute()["mask_map"].item() == figures_of(detections, truth)["mask_map"].item()


def test_processes_put_their_images_together(monkeypatch: pytest.MonkeyPatch) -> None:
    detections, truth = CASES["ties"]
    others = list(zip(detections[8:], truth[8:], strict=True))

    def all_gather_object(parts: list[Any], own: Any) -> None:
        parts[:] = [others, own]

    metric = AveragePrecision(CLASSES)
    metric.update(detections[:8], truth[:8])
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda *_: 2)
    monkeypatch.setattr(torch.distributed, "all_gather_object", all_gather_object)
    together = metric.compute()
    monkeypatch.undo()
    alone = figures_of(detections, truth)
    assert all(torch.equal(together[name].nan_to_num(-1), alone[name].nan_to_num(-1)) for name in alone)


def pasted(masks: Tensor, boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """detectron2's `paste_masks_in_image`: each mask sampled at the centres of all pixels, and cut at a half."""
    height, width = size
    x0, y0, x1, y1 = boxes[:, :, None].unbind(1)
    y = (torch.arange(height) + 0.5 - y0) / (y1 - y0) * 2 - 1
    x = (torch.arange(width) + 0.5 - x0) / (x1 - x0) * 2 - 1
    shape = (len(masks), height, width)
    grid = torch.stack([x[:, None, :].expand(shape), y[:, :, None].expand(shape)], 3)
    return F.grid_sample(masks[:, None], grid, align_corners=False)[:, 0] >= 0.5


def detections_of(boxes: Tensor, masks: Tensor) -> dict[str, Tensor]:
    count = len(boxes)
    return {"boxes": boxes, "masks": masks, "labels": torch.zeros(count).long(), "scores": torch.ones(count)}


@pytest.mark.parametrize("hard", [False, True])
def test_masks_are_pasted_as_detectron2_pastes_them(hard: bool) -> None:
    torch.manual_seed(0)
    masks = F.interpolate(torch.rand(40, 1, 5, 5), 28, mode="bicubic")[:, 0].clamp(0, 1)
    corners = torch.rand(40, 2) * 90 - 10
    boxes = torch.cat([corners, corners + torch.rand(40, 2) * 60 + 0.3], 1)
    boxes[:, 0::2].clamp_(0, 80)
    boxes[:, 1::2].clamp_(0, 70)
    if hard:  # many places are then exactly between 0 and 1
        masks, boxes = (masks > 0.5).float(), boxes.round()
    boxes = boxes[(boxes[:, 2:] > boxes[:, :2]).all(1)]
    masks = masks[: len(boxes)]
    seen = at_own_size(detections_of(boxes, masks), (70, 80), (1.0, 1.0))
    drawn = np.stack([rle.decode(mask) for mask in seen.masks])
    assert (drawn == pasted(masks, boxes, (70, 80)).numpy()).all()
    # An image in memory of half the size gives the same in the whole one, twice as large.
    double = at_own_size(detections_of(boxes / 2, masks), (70, 80), (0.5, 0.5))
    assert double.masks == seen.masks


def test_a_box_beyond_the_image_shows_nothing() -> None:
    boxes = torch.tensor([[90.0, 10, 95, 20], [10, 10, 10, 20], [0, 0, 4, 4]])
    seen = at_own_size(detections_of(boxes, torch.ones(3, 28, 28)), (70, 80), (1.0, 1.0))
    assert rle.area(list(seen.masks)).tolist() == [0, 0, 16]


def test_masks_that_cells_can_show_are_pasted_back_whole() -> None:
    """The truth, cut to 28 x 28 cells of its box and pasted back, is itself; the limit of what a network can reach."""
    data = Shapes(train_count=1, test_count=30, image_size=64, target="instances")
    images = data.load("test")
    metric = AveragePrecision(len(images.classes))
    for objects in images.objects:
        boxes = torch.from_numpy(objects.boxes).float()
        boxes[:, 2:] += boxes[:, :2]
        masks = torch.from_numpy(rle.decode(list(objects.truth)).transpose(2, 0, 1).copy()).float()
        regions = torch.cat([torch.arange(len(boxes))[:, None], boxes], 1)
        cut = roi_align(masks[:, None], regions, (28, 28), sampling_ratio=-1, aligned=True)[:, 0]
        seen = at_own_size(
            detections_of(boxes, cut) | {"labels": torch.from_numpy(objects.classes)}, objects.size, objects.scale
        )
        theirs = pasted(cut, boxes, objects.size).numpy()
        assert (np.stack([rle.decode(mask) for mask in seen.masks]) == theirs).all()
        metric.update([seen], [objects])
    figures = metric.compute()
    assert figures["mask_map"].item() == pytest.approx(1)
    assert figures["box_map"].item() == pytest.approx(1)


def test_boxes_alone_have_the_figures_that_they_have_beside_masks() -> None:
    detections, truth = CASES["crowds"]
    metric = AveragePrecision(CLASSES, masks=False)
    metric.update([Found(one.boxes, one.classes, one.scores, None) for one in detections], truth)
    figures, both = metric.compute(), figures_of(detections, truth)
    assert figures.keys() == {name for name in both if name.startswith("box_")}
    assert all(torch.equal(figures[name].nan_to_num(-1), both[name].nan_to_num(-1)) for name in figures)


def test_rectangles_are_the_nearest_pixels() -> None:
    boxes = np.array([[1.4, 2.6, 3.2, 2.0], [-5, -5, 100, 100], [9.9, 0.2, 0.1, 0.1], [2, 3, 1, 1]])
    whole = np.ones((8, 10), np.uint8)
    drawn = rle.decode(drawn_boxes(boxes, (8, 10))).transpose(2, 0, 1)
    first, third, fourth = np.zeros((3, 8, 10), np.uint8)
    first[3:5, 1:5] = third[0, 9] = fourth[3, 2] = 1
    assert np.array_equal(drawn, [first, whole, third, fourth])
