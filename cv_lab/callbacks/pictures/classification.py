"""Pictures of a classifier: its predictions for some validation images, and its confusion matrix."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from pytorch_lightning import Trainer

from cv_lab.callbacks.pictures.base import Pictures, Sample, save_samples
from cv_lab.data.base import ImageData
from cv_lab.data.in_memory import InMemoryImages
from cv_lab.files import write_csv
from cv_lab.pictures import charts, draw
from cv_lab.pictures.artifacts import write_confusion_csv
from cv_lab.study.confusion import most_confused
from cv_lab.tasks.classification import Classification


class ClassificationPictures(Pictures):
    """See :class:`~cv_lab.callbacks.pictures.base.Pictures`.

    After the test the folder also holds ``samples.json`` with ``images/*.png``, and of the test set the confusion
    matrix as ``confusion_matrix.csv`` (rows are the truth) and ``.png``, ``class_accuracy.csv`` and
    ``most_confused.csv``.

    Args:
        folder: where the pictures go.
        count: images in the sample, drawn in balance over the classes.
    """

    def look(
        self, task: Classification, data: ImageData, images: InMemoryImages, index: NDArray[np.integer]
    ) -> list[Sample]:
        with torch.inference_mode():
            batch = {"image": data.inputs(images, index, task.device)}
            confidences, predictions = task.predict_step(batch, 0).max(1)
        pixels = images.images[index].permute(0, 2, 3, 1).numpy()
        columns = (index.tolist(), images.labels[index].tolist(), predictions.tolist(), confidences.tolist(), pixels)
        return [
            {"index": i, "truth": task.classes[t], "predicted": task.classes[p], "confidence": c, "image": image}
            for i, t, p, c, image in zip(*columns, strict=True)
        ]

    def gallery(self, task: Classification, samples: Sequence[Sample]) -> Image.Image:
        tiles = (
            draw.classification_tile(s["image"], s["truth"], s["predicted"], s["confidence"], file=s.get("file", ""))
            for s in samples
        )
        return draw.grid(list(tiles))

    def figures(self, trainer: Trainer, task: Classification) -> NDArray[np.integer]:
        return task.confusion("test").cpu().numpy()

    def finish(
        self, task: Classification, samples: Sequence[Sample], figures: NDArray[np.integer]
    ) -> dict[str, Image.Image]:
        write_confusion_csv(figures, task.classes, self.folder / "confusion_matrix.csv")
        write_csv(self.folder / "class_accuracy.csv", class_rows(figures, task.classes))
        columns = ("truth", "predicted", "images", "share")
        pairs = most_confused(figures, task.classes, top=20)
        write_csv(self.folder / "most_confused.csv", [dict(zip(columns, pair, strict=True)) for pair in pairs])
        save_samples(self.folder, samples)
        return {"confusion_matrix": charts.confusion_matrix(figures, task.classes)}


def class_rows(counts: NDArray[np.integer], classes: Sequence[str]) -> list[dict[str, Any]]:
    """Images and accuracy of each class from a confusion matrix, int (K, K); no accuracy where there are no images."""
    totals = counts.sum(1)
    return [
        {"class": name, "images": int(total), "accuracy": counts[k, k] / total if total else None}
        for k, (name, total) in enumerate(zip(classes, totals, strict=True))
    ]
