"""Pictures of detections: objects beside the truth, curves of each class, the best and the worst images."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as rle
from pytorch_lightning import Trainer

from cv_lab.callbacks.pictures.base import Pictures, Sample, sample_of, save_samples
from cv_lab.data.base import ImageData
from cv_lab.data.instances import InstanceImages, Instances
from cv_lab.files import write_csv
from cv_lab.pictures import charts, draw
from cv_lab.pictures.objects import as_plain, at_least, draw_found, plain_mask
from cv_lab.tasks.instance_segmentation import InstanceSegmentation
from cv_lab.training.average_precision import Found

MIN_OVERLAP = 0.5  # intersection over union of a detection with the object that it matches
BATCH_SIZE = 8  # images
PLURALS = {"mask": "masks", "box": "boxes"}
MAX_LEGEND = 30  # classes in a legend; if there are more, their names are in the pictures only


class InstancePictures(Pictures):
    """See :class:`~cv_lab.callbacks.pictures.base.Pictures`. A row: an image, its true objects, those found.

    After the test the folder also holds ``best.png`` and ``worst.png`` (the images of the highest and lowest panoptic
    quality), ``samples.json`` with ``images/*.png``, and of the test set ``average_precision.png``, and
    ``precision_recall.csv`` and ``.png``.

    Args:
        folder: where the pictures go.
        count: images in the gallery.
        sample: images among which the best and the worst are looked for.
        score: least score of the detections that are drawn.
    """

    def __init__(self, folder: str, count: int = 8, sample: int = 48, score: float = 0.5) -> None:
        super().__init__(folder, count)
        self.sample, self.score = sample, score

    def look(self, trainer: Trainer, task: InstanceSegmentation, count: int) -> list[Sample]:
        data: ImageData = trainer.datamodule  # type: ignore[attr-defined]
        images = data.val
        assert isinstance(images, InstanceImages)
        index = sample_of(data, count)
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

    def figures(self, trainer: Trainer, task: InstanceSegmentation) -> tuple[dict[str, torch.Tensor], list[Sample]]:
        """COCO's figures, and the samples among which the best and the worst are looked for."""
        return task.precision("test"), self.look(trainer, task, self.sample) if trainer.is_global_zero else []

    def gallery(self, task: InstanceSegmentation, samples: Sequence[Sample]) -> Image.Image:
        colors = draw.palette(min(len(task.classes), 256))
        rows = [_row(sample, task.classes, colors) for sample in samples]
        grid = draw.grid(rows, columns=2)
        if len(task.classes) > MAX_LEGEND:
            return grid
        return draw.stack([draw.legend(task.classes, colors, width=grid.width), grid])

    def finish(
        self,
        task: InstanceSegmentation,
        samples: Sequence[Sample],
        figures: tuple[dict[str, torch.Tensor], list[Sample]],
    ) -> dict[str, Image.Image]:
        precision, looked = figures
        curves, what = precision[f"{task.kind}_precision"].numpy(), PLURALS[task.kind]
        rows = [
            {"recall": i / (len(curves) - 1), **dict(zip(task.classes, row, strict=True))}
            for i, row in enumerate(curves.tolist())
        ]
        write_csv(self.folder / "precision_recall.csv", rows)
        save_samples(self.folder, [_plain_sample(sample, task.classes) for sample in samples])
        ap = 100 * precision[f"{task.kind}_ap"].numpy()
        pictures = {
            "average_precision": charts.bar_chart(ap, task.classes, f"Average precision of {what}, test set", "%"),
            "precision_recall": charts.precision_recall(
                curves, task.classes, f"{what.title()} at an overlap of 0.5, test set"
            ),
        }
        ranked = sorted((s for s in looked if s["quality"] is not None), key=lambda s: -s["quality"])
        half = self.count // 2
        if ranked:
            pictures |= {"best": self.gallery(task, ranked[:half]), "worst": self.gallery(task, ranked[::-1][:half])}
        return pictures


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
    return draw.beside([true, detected], f"truth, found: {judged}")


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
