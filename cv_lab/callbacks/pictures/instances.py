"""Pictures of detections: objects beside the truth, curves of each class, the best and the worst images."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as rle
from pytorch_lightning import Trainer

from cv_lab.callbacks.evidence import worst_first
from cv_lab.callbacks.pictures.base import Pictures, Sample, save_samples
from cv_lab.data.base import ImageData
from cv_lab.data.instances import InstanceImages
from cv_lab.files import write_csv
from cv_lab.pictures import charts, draw
from cv_lab.pictures.objects import as_plain, at_least, draw_found, plain_mask
from cv_lab.tasks.instance_segmentation import InstanceSegmentation
from cv_lab.training.average_precision import panoptic_quality
from cv_lab.training.evidence import Arrays

BATCH_SIZE = 8  # images
PLURALS = {"mask": "masks", "box": "boxes"}
MAX_LEGEND = 30  # classes in a legend; if there are more, their names are in the pictures only


class InstancePictures(Pictures):
    """See :class:`~cv_lab.callbacks.pictures.base.Pictures`. A row: an image, its true objects, those found.

    After the test the folder also holds ``best.png`` and ``worst.png`` (the test images of the highest and lowest
    panoptic quality), ``samples.json`` with ``images/*.png``, and of the test set ``average_precision.png``, and
    ``precision_recall.csv`` and ``.png``.

    Args:
        folder: where the pictures go.
        count: images in the gallery.
        score: least score of the detections that are drawn.
    """

    def __init__(self, folder: str, count: int = 8, score: float = 0.5) -> None:
        super().__init__(folder, count)
        self.score = score

    def extremes(self, arrays: Arrays) -> dict[str, NDArray[np.integer]]:
        order = arrays["index"][worst_first(arrays)]
        half = max(1, self.count // 2)
        return {"best": order[::-1][:half].copy(), "worst": order[:half]}

    def look(
        self, task: InstanceSegmentation, data: ImageData, images: InstanceImages, index: NDArray[np.integer]
    ) -> list[Sample]:
        samples = []
        for part in np.split(index, range(BATCH_SIZE, len(index), BATCH_SIZE)):
            batch = images.__getitems__(part.tolist())
            with torch.inference_mode():
                found = task.found(task(data.inputs(images, part, task.device)), batch)
            for i, pixels, objects, one in zip(part, batch["image"], batch["objects"], found, strict=True):
                sure = at_least(one, self.score)
                height, width = (round(side * s) for side, s in zip(objects.size, objects.scale[::-1], strict=True))
                samples.append(
                    {
                        "index": int(i),
                        "image": pixels[:, :height, :width].permute(1, 2, 0).contiguous().numpy(),
                        "objects": objects,
                        "found": sure,
                        "quality": panoptic_quality(sure, objects),
                    }
                )
        return samples

    def figures(self, trainer: Trainer, task: InstanceSegmentation) -> dict[str, torch.Tensor]:
        return task.precision("test")

    def gallery(self, task: InstanceSegmentation, samples: Sequence[Sample]) -> Image.Image:
        colors = draw.palette(min(len(task.classes), 256))
        rows = [_row(sample, task.classes, colors) for sample in samples]
        grid = draw.grid(rows, columns=2)
        if len(task.classes) > MAX_LEGEND:
            return grid
        return draw.stack([draw.legend(task.classes, colors, width=grid.width), grid])

    def finish(
        self, task: InstanceSegmentation, samples: Sequence[Sample], figures: dict[str, torch.Tensor]
    ) -> dict[str, Image.Image]:
        curves, what = figures[f"{task.kind}_precision"].numpy(), PLURALS[task.kind]
        rows = [
            {"recall": i / (len(curves) - 1), **dict(zip(task.classes, row, strict=True))}
            for i, row in enumerate(curves.tolist())
        ]
        write_csv(self.folder / "precision_recall.csv", rows)
        save_samples(self.folder, [_plain_sample(sample, task.classes) for sample in samples])
        ap = 100 * figures[f"{task.kind}_ap"].numpy()
        return {
            "average_precision": charts.bar_chart(ap, task.classes, f"Average precision of {what}, test set", "%"),
            "precision_recall": charts.precision_recall(
                curves, task.classes, f"{what.title()} at an overlap of 0.5, test set"
            ),
        }


def _row(sample: dict[str, Any], classes: tuple[str, ...], colors: NDArray[np.uint8]) -> Image.Image:
    objects, found, quality = sample["objects"], sample["found"], sample["quality"]
    true = draw.instances(
        sample["image"],
        [rle.decode(mask) for mask in objects.truth],
        [classes[k] + (" (crowd)" if crowd else "") for k, crowd in zip(objects.classes, objects.crowd, strict=True)],
        [colors[k % len(colors)].tolist() for k in objects.classes],
    )
    detected = draw_found(sample["image"], found, objects.size, classes, colors)
    judged = "no objects" if quality is None else f"panoptic quality {100 * quality:.0f} %"
    return draw.beside([true, detected], f"{sample.get('file', 'truth, found')}: {judged}")


def _plain_sample(sample: dict[str, Any], classes: tuple[str, ...]) -> dict[str, Any]:
    """Return a sample as plain values; masks are run lengths of the image's own size, as in COCO's results."""
    objects, found = sample["objects"], sample["found"]
    masks = [{} if found.masks is None else {"segmentation": plain_mask(mask)} for mask in objects.truth]
    return {
        "index": sample["index"],
        "image": sample["image"],
        "id": objects.id,
        "quality": sample["quality"],
        "truth": [
            {"class": classes[k], "bbox": box, **mask, "iscrowd": int(crowd)}
            for k, box, mask, crowd in zip(objects.classes, objects.boxes.tolist(), masks, objects.crowd, strict=True)
        ],
        "found": as_plain(found, classes),
    }
