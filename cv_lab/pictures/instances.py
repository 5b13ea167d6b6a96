"""Pictures of what a network finds: objects beside the truth, curves of each class, the best and the worst images."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as rle
from pytorch_lightning import Callback, Trainer

from cv_lab.data.base import ImageData
from cv_lab.data.instances import InstanceImages, Instances
from cv_lab.data.splits import balanced_subset
from cv_lab.files import write_csv, write_json
from cv_lab.pictures import draw
from cv_lab.pictures.artifacts import save_png
from cv_lab.pictures.tensorboard import add_image
from cv_lab.tasks.instance_segmentation import InstanceSegmentation
from cv_lab.training.average_precision import Found

MATCHED = 0.5  # intersection over union of a mask with the object that it has found
AT_ONCE = 8  # images in a batch
LEGEND = 30  # classes at most; beyond that their names are in the pictures alone


class InstancePictures(Callback):
    """Show what is found in a fixed sample of validation images after each epoch; keep that of the best checkpoint.

    Each row holds an image with its true objects, and with those found. TensorBoard gets the gallery in every epoch,
    the folder as ``gallery_last_epoch.png``. At the end the folder holds, of the best checkpoint, ``gallery.png``,
    ``best.png`` and ``worst.png`` (the images of the sample of the highest and lowest panoptic quality),
    ``samples.json`` with ``images/*.png``, and of the test set ``average_precision.png``, and
    ``precision_recall.csv`` and ``.png``.

    Args:
        folder: where the pictures go.
        count: images in the gallery.
        sample: images among which the best and the worst are found.
        score: least score of what is drawn.
    """

    def __init__(self, folder: str, count: int = 8, sample: int = 48, score: float = 0.5) -> None:
        self.folder = Path(folder)
        self.count, self.sample, self.score = count, sample, score

    def on_validation_epoch_end(self, trainer: Trainer, task: InstanceSegmentation) -> None:  # type: ignore[override]
        if trainer.is_global_zero:
            gallery = self._gallery(self._look(trainer, task, self.count), task)
            add_image(trainer, "predictions", gallery)
            save_png(gallery, self.folder / "gallery_last_epoch.png")

    def on_test_epoch_end(self, trainer: Trainer, task: InstanceSegmentation) -> None:  # type: ignore[override]
        precision = task.precision("test")  # reduced over all processes
        if not trainer.is_global_zero:
            return
        looked = self._look(trainer, task, self.sample)
        shown = self._look(trainer, task, self.count)
        ranked = sorted((s for s in looked if s["quality"] is not None), key=lambda s: -s["quality"])
        half = self.count // 2
        figures = {name: value.numpy() for name, value in precision.items() if value.ndim > 0}
        pictures = {
            "gallery": self._gallery(shown, task),
            "average_precision": draw.bar_chart(
                100 * figures["mask_ap"], task.classes, "Average precision of masks, test set", "%"
            ),
            "precision_recall": draw.precision_recall(
                figures["mask_precision"], task.classes, "Masks at an overlap of 0.5, test set"
            ),
        }
        if ranked:
            pictures |= {"best": self._gallery(ranked[:half], task), "worst": self._gallery(ranked[::-1][:half], task)}
        for name, picture in pictures.items():
            add_image(trainer, "predictions_of_best" if name == "gallery" else name, picture)
            save_png(picture, self.folder / f"{name}.png")
        curves = figures["mask_precision"]
        rows = [
            {"recall": i / (len(curves) - 1), **dict(zip(task.classes, row, strict=True))}
            for i, row in enumerate(curves.tolist())
        ]
        write_csv(self.folder / "precision_recall.csv", rows)
        for number, sample in enumerate(shown):
            save_png(Image.fromarray(sample["image"]), self.folder / "images" / f"{number}.png")
        write_json(self.folder / "samples.json", [_told(sample, task.classes) for sample in shown])

    def _look(self, trainer: Trainer, task: InstanceSegmentation, count: int) -> list[dict[str, Any]]:
        """Of each sample its index, image, uint8 (H, W, 3), objects, what is found, and how well."""
        data: ImageData = trainer.datamodule  # type: ignore[attr-defined]
        images = data.val
        assert isinstance(images, InstanceImages)
        index = balanced_subset(images.labels.numpy(), min(count, len(images)), seed=0)
        samples = []
        for part in np.split(index, range(AT_ONCE, len(index), AT_ONCE)):
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

    def _gallery(self, samples: list[dict[str, Any]], task: InstanceSegmentation) -> Image.Image:
        colors = draw.palette(min(len(task.classes), 256))
        rows = [_row(sample, task.classes, colors) for sample in samples]
        grid = draw.grid(rows, columns=2)
        if len(task.classes) > LEGEND:
            return grid
        return draw.stack([draw.legend(task.classes, colors, width=grid.width), grid])


def panoptic_quality(found: Found, objects: Instances) -> float | None:
    """Panoptic quality (Kirillov et al., 2019) of one image, classes taken together, in 0..1; None without any object.

    It is the sum of the overlaps of objects with what has found them, by at least a half and of their class, over the
    mean of the number of objects and the number of what was found. Crowds do not count.
    """
    real = np.flatnonzero(~objects.crowd).tolist()
    total = (len(real) + len(found.classes)) / 2
    if total == 0:
        return None
    if len(real) == 0 or len(found.classes) == 0:
        return 0.0
    overlap = np.array(rle.iou(list(found.masks), [objects.truth[i] for i in real], [0] * len(real)))
    overlap *= found.classes[:, None] == objects.classes[real][None]
    matched = 0.0
    while (best := overlap.max()) > MATCHED:  # masks found may overlap, so that an object may have two: it counts once
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
    told = draw_found(sample["image"], found, classes, colors)
    judged = "no objects" if quality is None else f"panoptic quality {100 * quality:.0f} %"
    return draw.beside([true, told], f"truth, found: {judged}")


def draw_found(
    image: NDArray[np.uint8], found: Found, classes: Sequence[str], colors: NDArray[np.uint8], size: int = 240
) -> Image.Image:
    """`image`, uint8 (H, W, 3), with what was found in it; `size` is the picture's longer side in pixels."""
    return draw.instances(
        image,
        [rle.decode(mask) for mask in found.masks],
        [f"{classes[k]} {100 * score:.0f}" for k, score in zip(found.classes, found.scores, strict=True)],
        [colors[k % len(colors)].tolist() for k in found.classes],
        size,
    )


def at_least(found: Found, score: float) -> Found:
    """What was found with a score of at least `score`."""
    kept = np.flatnonzero(found.scores >= score).tolist()
    return Found(found.boxes[kept], found.classes[kept], found.scores[kept], [found.masks[i] for i in kept])


def _told(sample: dict[str, Any], classes: tuple[str, ...]) -> dict[str, Any]:
    """A sample as plain values; masks are run lengths of the image's own size, as in COCO's results."""
    objects, found = sample["objects"], sample["found"]
    return {
        "index": sample["index"],
        "id": objects.id,
        "quality": sample["quality"],
        "truth": [
            {"class": classes[k], "bbox": box, "segmentation": _plain(mask), "iscrowd": int(crowd)}
            for k, box, mask, crowd in zip(
                objects.classes, objects.boxes.tolist(), objects.truth, objects.crowd, strict=True
            )
        ],
        "found": as_plain(found, classes),
    }


def as_plain(found: Found, classes: Sequence[str]) -> list[dict[str, Any]]:
    """What was found as plain values; masks are run lengths as in COCO's results."""
    return [
        {"class": classes[k], "score": float(score), "bbox": box, "segmentation": _plain(mask)}
        for k, score, box, mask in zip(found.classes, found.scores, found.boxes.tolist(), found.masks, strict=True)
    ]


def _plain(mask: dict[str, Any]) -> dict[str, Any]:
    return {"size": list(mask["size"]), "counts": mask["counts"].decode()}
