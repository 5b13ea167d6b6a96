"""Pictures of a multi-label classifier: the labels that it gives some validation images, and scores of each label."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from pytorch_lightning import Callback, Trainer

from cv_lab.callbacks.evidence import worst_first
from cv_lab.callbacks.pictures.base import WORST, sample_of, save_samples
from cv_lab.data.base import ImageData
from cv_lab.data.in_memory import InMemoryImages
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
    ``gallery.png``, ``worst.png`` with the test images of the highest loss, ``samples.json`` with ``images/*.png``, and
    of the test set ``class_scores.csv`` (images, average precision and F1 of each label). There is no confusion matrix:
    an image has no single true label.

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
        data: ImageData = trainer.datamodule  # type: ignore[attr-defined]
        if trainer.is_global_zero and start >= self.next_drawing:
            _, _, tiles = self._predict(task, data, data.val, sample_of(data, self.count))
            add_image(trainer, "predictions", draw.grid(tiles))
            self.next_drawing = start + 10 * (time.perf_counter() - start)

    def on_test_epoch_end(self, trainer: Trainer, task: MultiLabelClassification) -> None:  # type: ignore[override]
        scores, arrays = task.split_metrics("test").scores.compute(), task.evidence()  # of all processes
        if not trainer.is_global_zero:
            return
        data: ImageData = trainer.datamodule  # type: ignore[attr-defined]
        images, samples, tiles = self._predict(task, data, data.val, sample_of(data, self.count))
        gallery = draw.grid(tiles)
        add_image(trainer, "predictions_of_best", gallery)
        save_png(gallery, self.folder / "gallery.png")
        save_samples(self.folder, samples, images)
        files = data.test_files()
        worst = arrays["index"][worst_first(arrays)[:WORST]]
        names = [Path(files[i]).name if files else f"number {i}" for i in worst]
        _, _, tiles = self._predict(task, data, data.test, worst, names)
        save_png(draw.grid(tiles), self.folder / "worst.png")
        counts = data.test.class_counts().counts.tolist()
        columns = zip(task.classes, counts, scores["ap"].tolist(), scores["f1"].tolist(), strict=True)
        write_csv(
            self.folder / "class_scores.csv",
            [{"class": name, "images": count, "ap": _cell(ap), "f1": _cell(f1)} for name, count, ap, f1 in columns],
        )

    def _predict(
        self,
        task: MultiLabelClassification,
        data: ImageData,
        split: InMemoryImages,
        index: NDArray[np.integer],
        files: Sequence[str] = (),
    ) -> tuple[list[np.ndarray], list[dict[str, Any]], list[Image.Image]]:
        """Images of a split, uint8 (H, W, 3), what the network says of them, and both drawn."""
        assert isinstance(split, LabelledImages)
        images, truth = split.images[index], split.label_sets[index]
        with torch.inference_mode():
            probabilities = task.predict_step({"image": data.inputs(split, index, task.device)}, 0).float().cpu()
        arrays = list(images.permute(0, 2, 3, 1).numpy())
        samples: list[dict[str, Any]] = []
        tiles: list[Image.Image] = []
        files = files or [""] * len(index)
        for i, image, true, p, file in zip(index, arrays, truth, probabilities, files, strict=True):
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
            truth_words, given_words = (", ".join(some) or "none" for some in (names, given))
            tiles.append(draw.classification_tile(image, truth_words, given_words, certainty, file=file))
        return arrays, samples, tiles


def _names(chosen: torch.Tensor, classes: tuple[str, ...]) -> list[str]:
    return [name for name, is_chosen in zip(classes, chosen.tolist(), strict=True) if is_chosen]


def _cell(value: float) -> float | None:
    return None if np.isnan(value) else value
