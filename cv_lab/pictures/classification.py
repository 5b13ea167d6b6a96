"""Pictures of a classifier: what it says of some validation images, and its confusion matrix."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from pytorch_lightning import Callback, Trainer

from cv_lab.data.base import ImageData
from cv_lab.data.splits import balanced_subset
from cv_lab.files import write_csv, write_json
from cv_lab.pictures import draw
from cv_lab.pictures.artifacts import save_confusion_matrix, save_png
from cv_lab.pictures.tensorboard import add_image
from cv_lab.study.confusion import most_confused
from cv_lab.tasks.classification import Classification


class ClassificationPictures(Callback):
    """Show a fixed sample of validation images in TensorBoard after epochs; keep those of the best checkpoint.

    Epochs that take less than ten drawings are passed over until they do together: a probe of kept features would
    spend most of its time on drawing.

    The folder holds at the end ``gallery.png``, ``samples.json`` with ``images/*.png``, and of the test set the
    confusion matrix as ``confusion_matrix.csv`` (rows are the truth) and ``.png``, ``class_accuracy.csv`` and
    ``most_confused.csv``.

    Args:
        folder: where the pictures of the best checkpoint go.
        count: images in the sample, drawn in balance over the classes.
    """

    def __init__(self, folder: str, count: int = 32) -> None:
        self.folder = Path(folder)
        self.count = count
        self.next_drawing = 0.0

    def on_validation_epoch_end(self, trainer: Trainer, task: Classification) -> None:  # type: ignore[override]
        start = time.perf_counter()
        if trainer.is_global_zero and start >= self.next_drawing:
            _, _, tiles = self._predict(trainer, task)
            add_image(trainer, "predictions", draw.grid(tiles))
            self.next_drawing = start + 10 * (time.perf_counter() - start)

    def on_test_epoch_end(self, trainer: Trainer, task: Classification) -> None:  # type: ignore[override]
        counts = task.confusion("test").cpu().numpy()  # reduced over all processes
        if not trainer.is_global_zero:
            return
        images, samples, tiles = self._predict(trainer, task)
        gallery = draw.grid(tiles)
        matrix = save_confusion_matrix(counts, task.classes, self.folder)
        add_image(trainer, "predictions_of_best", gallery)
        add_image(trainer, "confusion_matrix", matrix)
        save_png(gallery, self.folder / "gallery.png")
        write_csv(self.folder / "class_accuracy.csv", class_rows(counts, task.classes))
        confused = most_confused(counts, task.classes, top=20)
        write_csv(
            self.folder / "most_confused.csv",
            [dict(zip(("truth", "predicted", "images", "share"), pair, strict=True)) for pair in confused],
        )
        for number, image in enumerate(images):
            save_png(Image.fromarray(image), self.folder / "images" / f"{number}.png")
        write_json(self.folder / "samples.json", samples)

    def _predict(
        self, trainer: Trainer, task: Classification
    ) -> tuple[list[np.ndarray], list[dict[str, Any]], list[Image.Image]]:
        """The sample's images, uint8 (H, W, 3), what the network says of them, and both drawn."""
        data: ImageData = trainer.datamodule  # type: ignore[attr-defined]
        index = balanced_subset(data.val.labels.numpy(), min(self.count, len(data.val)), seed=0)
        images, labels = data.val.images[index], data.val.labels[index].tolist()
        with torch.inference_mode():
            batch = {"image": data.inputs(data.val, index, task.device)}
            confidences, predictions = task.predict_step(batch, 0).max(1)
        arrays = list(images.permute(0, 2, 3, 1).numpy())
        samples = [
            {"index": int(i), "truth": task.classes[t], "predicted": task.classes[p], "confidence": c}
            for i, t, p, c in zip(index, labels, predictions.tolist(), confidences.tolist(), strict=True)
        ]
        tiles = [
            draw.classification_tile(array, sample["truth"], sample["predicted"], sample["confidence"])
            for array, sample in zip(arrays, samples, strict=True)
        ]
        return arrays, samples, tiles


def class_rows(counts: np.ndarray, classes: Sequence[str]) -> list[dict[str, Any]]:
    """Images and accuracy of each class from a confusion matrix, int (K, K); without images, no accuracy."""
    totals = counts.sum(1)
    return [
        {"class": name, "images": int(total), "accuracy": counts[k, k] / total if total else None}
        for k, (name, total) in enumerate(zip(classes, totals, strict=True))
    ]
