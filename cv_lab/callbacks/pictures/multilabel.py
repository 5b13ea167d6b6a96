"""Pictures of a multi-label classifier: the labels that it gives some validation images, and scores of each label."""

import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from pytorch_lightning import Callback, Trainer

from cv_lab.callbacks.pictures.base import sample_of, save_samples
from cv_lab.data.base import ImageData
from cv_lab.data.label_sets import LabelledImages
from cv_lab.files import write_csv
from cv_lab.pictures import draw
from cv_lab.pictures.artifacts import save_png
from cv_lab.pictures.tensorboard import add_image
from cv_lab.tasks.multilabel import MultiLabelClassification
from cv_lab.training.label_metrics import THRESHOLD


class MultiLabelPictures(Callback):
    """Show a fixed sample of validation images in TensorBoard after epochs; keep that of the best checkpoint.

    Epochs that take less than ten drawings are skipped, as in classification. At the end the folder holds
    ``gallery.png``, ``samples.json`` with ``images/*.png``, and of the test set ``class_scores.csv`` (images, average
    precision and F1 of each label). There is no confusion matrix: an image has no single true label.

    Args:
        folder: where the pictures go.
        count: images in the sample, drawn in balance over the rarest labels of images.
    """

    def __init__(self, folder: str, count: int = 32) -> None:
        self.folder = Path(folder)
        self.count = count
        self.next_drawing = 0.0

    def on_validation_epoch_end(self, trainer: Trainer, task: MultiLabelClassification) -> None:  # type: ignore[override]
        start = time.perf_counter()
        if trainer.is_global_zero and start >= self.next_drawing:
            _, _, tiles = self._predict(trainer, task)
            add_image(trainer, "predictions", draw.grid(tiles))
            self.next_drawing = start + 10 * (time.perf_counter() - start)

    def on_test_epoch_end(self, trainer: Trainer, task: MultiLabelClassification) -> None:  # type: ignore[override]
        scores = task.split_metrics("test").scores.compute()  # reduced over all processes
        if not trainer.is_global_zero:
            return
        data: ImageData = trainer.datamodule  # type: ignore[attr-defined]
        images, samples, tiles = self._predict(trainer, task)
        gallery = draw.grid(tiles)
        add_image(trainer, "predictions_of_best", gallery)
        save_png(gallery, self.folder / "gallery.png")
        save_samples(self.folder, samples, images)
        counts = data.test.class_counts().counts.tolist()
        columns = zip(task.classes, counts, scores["ap"].tolist(), scores["f1"].tolist(), strict=True)
        write_csv(
            self.folder / "class_scores.csv",
            [{"class": name, "images": count, "ap": _cell(ap), "f1": _cell(f1)} for name, count, ap, f1 in columns],
        )

    def _predict(
        self, trainer: Trainer, task: MultiLabelClassification
    ) -> tuple[list[np.ndarray], list[dict[str, Any]], list[Image.Image]]:
        """The sample's images, uint8 (H, W, 3), what the network says of them, and both drawn."""
        data: ImageData = trainer.datamodule  # type: ignore[attr-defined]
        assert isinstance(data.val, LabelledImages)
        index = sample_of(data, self.count)
        images, truth = data.val.images[index], data.val.label_sets[index]
        with torch.inference_mode():
            probabilities = task.predict_step({"image": data.inputs(data.val, index, task.device)}, 0).float().cpu()
        arrays = list(images.permute(0, 2, 3, 1).numpy())
        samples: list[dict[str, Any]] = []
        tiles: list[Image.Image] = []
        for i, image, true, p in zip(index, arrays, truth, probabilities, strict=True):
            names, given = _names(true > 0, task.classes), _names(p > THRESHOLD, task.classes)
            certainty = float(torch.maximum(p, 1 - p).min())  # of the decision that is least certain
            samples.append(
                {
                    "index": int(i),
                    "truth": names,
                    "predicted": given,
                    "probabilities": dict(zip(task.classes, p.tolist(), strict=True)),
                }
            )
            tiles.append(
                draw.classification_tile(image, ", ".join(names) or "none", ", ".join(given) or "none", certainty)
            )
        return arrays, samples, tiles


def _names(chosen: torch.Tensor, classes: tuple[str, ...]) -> list[str]:
    return [name for name, is_chosen in zip(classes, chosen.tolist(), strict=True) if is_chosen]


def _cell(value: float) -> float | None:
    return None if np.isnan(value) else value
