"""What COCO's figures cost: the lab's metric against torchmetrics' default, from a network's output on, and its memory.

python scripts/benchmarks/instance_metrics.py
"""

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import TINY, interleaved, print_machine
from pycocotools import mask as rle
from torch import Tensor
from torchmetrics.detection import MeanAveragePrecision
from torchvision.models.detection.roi_heads import paste_masks_in_image

from cv_lab.data.instances import Instances
from cv_lab.training.average_precision import AveragePrecision, at_own_size

IMAGES, OBJECTS, CLASSES, SIZE = 3 if TINY else 200, 20, 20, (240, 320)
MEMORY_IMAGES = (2,) if TINY else (50, 200)  # of one evaluation each
ELLIPSE = ((torch.linspace(-1, 1, 28)[:, None] ** 2 + torch.linspace(-1, 1, 28) ** 2) < 1).float()


def make_images(count: int) -> tuple[list[dict[str, Tensor]], list[Instances]]:
    """Ellipses, and a network's output that finds them a little displaced, one in five as another class."""
    random = np.random.default_rng(0)
    outputs, objects = [], []
    height, width = SIZE
    for image in range(count):
        sides = random.integers(8, 120, (OBJECTS, 2))
        corners = random.random((OBJECTS, 2)) * (np.array([width, height]) - sides)
        boxes = np.concatenate([corners, corners + sides], 1).astype(np.float32)
        classes = random.integers(0, CLASSES, OBJECTS)
        grids = ELLIPSE.expand(OBJECTS, -1, -1)
        exact = {"boxes": torch.from_numpy(boxes), "labels": torch.from_numpy(classes), "scores": torch.ones(OBJECTS)}
        truth = at_own_size(exact | {"masks": grids}, SIZE, (1.0, 1.0))
        masks = truth.masks
        assert masks is not None
        areas = rle.area(list(masks)).astype(float)
        crowd = np.zeros(OBJECTS, bool)
        objects.append(
            Instances(image, SIZE, (1.0, 1.0), classes, truth.boxes.astype(float), areas, crowd, masks, masks)
        )
        moved = boxes + random.normal(0, 3, boxes.shape).astype(np.float32)
        moved = moved.clip(0, [width - 1, height - 1] * 2)  # networks give boxes within the image
        moved[:, 2:] = np.maximum(moved[:, 2:], moved[:, :2] + 1)
        guessed = np.where(random.random(OBJECTS) < 0.2, random.integers(0, CLASSES, OBJECTS), classes)
        scores = np.sort(random.random(OBJECTS))[::-1].astype(np.float32)
        outputs.append(
            {
                "boxes": torch.from_numpy(moved),
                "labels": torch.from_numpy(guessed),
                "scores": torch.from_numpy(scores.copy()),
                "masks": grids,
            }
        )
    return outputs, objects


def lab(outputs: list[dict[str, Tensor]], objects: list[Instances]) -> dict[str, Tensor]:
    """COCO's figures, single classes included."""
    metric = AveragePrecision(CLASSES)
    for output, truth in zip(outputs, objects, strict=True):
        metric.update([at_own_size(output, truth.size, truth.scale)], [truth])
    return metric.compute()


def pasted_by_torchvision(output: dict[str, Tensor], truth: Instances) -> Tensor:
    return paste_masks_in_image(output["masks"][:, None], output["boxes"], truth.size)[:, 0] > 0.5


def pasted_by_the_lab(output: dict[str, Tensor], truth: Instances) -> Tensor:
    found = at_own_size(output, truth.size, truth.scale)
    assert found.masks is not None
    masks = rle.decode(list(found.masks))
    return torch.from_numpy(masks.transpose(2, 0, 1).copy()).bool()


def default(
    class_metrics: bool, paste: Callable[[dict[str, Tensor], Instances], Tensor] = pasted_by_torchvision
) -> Callable[..., dict[str, Tensor]]:
    """What torchvision and torchmetrics do: masks drawn on whole images, encoded, and matched by pycocotools."""

    def figures(outputs: list[dict[str, Tensor]], objects: list[Instances]) -> dict[str, Tensor]:
        metric = MeanAveragePrecision(
            iou_type=("bbox", "segm"),
            class_metrics=class_metrics,
            iou_thresholds=np.linspace(0.5, 0.95, 10).tolist(),  # as pycocotools has them; the default is float32
            rec_thresholds=np.linspace(0, 1, 101).tolist(),
        )
        for output, truth in zip(outputs, objects, strict=True):
            drawn = paste(output, truth)
            corners = np.concatenate([truth.boxes[:, :2], truth.boxes[:, :2] + truth.boxes[:, 2:]], 1)
            target: dict[str, Any] = {
                "boxes": torch.from_numpy(corners).float(),
                "labels": torch.from_numpy(truth.classes),
                "masks": torch.from_numpy(rle.decode(list(truth.truth)).transpose(2, 0, 1).copy()),
                "area": torch.from_numpy(truth.areas).float(),
            }
            metric.update([output | {"masks": drawn}], [target])
        return metric.compute()

    return figures


def seconds() -> None:
    """Print what both take, and by how much their values of the same masks differ."""
    outputs, objects = make_images(IMAGES)
    results: dict[str, dict[str, Tensor]] = {}

    def timed(name: str, side: Callable[..., dict[str, Tensor]]) -> Callable[[], float]:
        def run() -> float:
            start = time.perf_counter()
            results[name] = side(outputs, objects)
            return time.perf_counter() - start

        return run

    sides = {"lab": lab, "torchmetrics": default(False), "torchmetrics with classes": default(True)}
    medians = interleaved({name: timed(name, side) for name, side in sides.items()}, rounds=3)
    print(
        f"{IMAGES} images of {SIZE[0]} x {SIZE[1]} pixels, {OBJECTS} objects each, {CLASSES} classes; masks and boxes"
    )
    for name, value in medians.items():
        print(f"{name}: {value:.2f} s; the lab takes {medians['lab'] / value:.2f} of it")
    ours, theirs = results["lab"], default(True, pasted_by_the_lab)(outputs, objects)
    pairs = [
        ("mask_map", "segm_map"),
        ("mask_map_50", "segm_map_50"),
        ("box_map", "bbox_map"),
        ("box_map_75", "bbox_map_75"),
    ]
    difference = max(abs(ours[a].item() - theirs[b].item()) for a, b in pairs)
    by_class = (ours["mask_ap"] - theirs["segm_map_per_class"]).abs().max().item()
    print(f"mask mAP {ours['mask_map'].item():.4f}; values differ by {difference:.1e}, by class by {by_class:.1e}")


def memory(count: int, side: str) -> None:
    """Print by how many MB an evaluation raises this process's memory at most; on Linux."""
    outputs, objects = make_images(count)
    figures = lab if side == "lab" else default(False)
    figures(outputs[:2], objects[:2])  # what libraries take once
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    before = _status("VmRSS")
    figures(outputs, objects)
    print(_status("VmHWM") - before)


def _status(key: str) -> float:
    """MB, of this process."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(key))
    return int(line.split()[1]) / 1e3


def main() -> None:
    if len(sys.argv) > 1:
        memory(int(sys.argv[1]), sys.argv[2])
        return
    print_machine()
    seconds()
    for count in MEMORY_IMAGES:
        added = {}
        for side in ("lab", "torchmetrics"):
            command = [sys.executable, __file__, str(count), side]
            answer = subprocess.run(command, capture_output=True, text=True, check=True)
            added[side] = float(answer.stdout.split()[-1])
        print(f"memory of {count} images: {added['lab']:.0f} MB more; torchmetrics {added['torchmetrics']:.0f} MB")


if __name__ == "__main__":
    main()
