"""Pictures of a multi-label classifier: the labels that it gives some validation images, and scores of each label."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from pytorch_lightning import Trainer
from torch import Tensor

from cv_lab.callbacks.pictures.base import Pictures, Sample, save_samples
from cv_lab.data.base import ImageData
from cv_lab.data.label_sets import LabelledImages
from cv_lab.files import write_csv
from cv_lab.pictures import draw
from cv_lab.tasks.multilabel import MultiLabelClassification
from cv_lab.training.label_metrics import THRESHOLD


class MultiLabelPictures(Pictures):
    """See :class:`~cv_lab.callbacks.pictures.base.Pictures`.

    After the test the folder also holds ``samples.json`` with ``images/*.png``, and of the test set
    ``class_scores.csv`` (images, average precision and F1 of each label). There is no confusion matrix, since an image
    has no single true label.

    Args:
        folder: where the pictures go.
        count: images in the sample, drawn in balance over the rarest labels of images.
    """

    def look(
        self, task: MultiLabelClassification, data: ImageData, images: LabelledImages, index: NDArray[np.integer]
    ) -> list[Sample]:
        pixels = images.images[index].permute(0, 2, 3, 1).numpy()
        with torch.inference_mode():
            probabilities = task.predict_step({"image": data.inputs(images, index, task.device)}, 0).float().cpu()
        return [
            {
                "index": i,
                "truth": _names(true > 0, task.classes),
                "predicted": _names(p > THRESHOLD, task.classes),
                "probabilities": dict(zip(task.classes, p.tolist(), strict=True)),
                "image": image,
            }
            for i, true, p, image in zip(index.tolist(), images.label_sets[index], probabilities, pixels, strict=True)
        ]

    def gallery(self, task: MultiLabelClassification, samples: Sequence[Sample]) -> Image.Image:
        return draw.grid([_tile(sample) for sample in samples])

    def figures(self, trainer: Trainer, task: MultiLabelClassification) -> list[dict[str, float | str | None]]:
        """The rows of ``class_scores.csv``."""
        data: ImageData = trainer.datamodule  # type: ignore[attr-defined]
        scores = task.split_metrics("test").scores.compute()
        counts = np.sum([images.class_counts().counts for images in data.test_sets()], axis=0)
        columns = (task.classes, counts, scores["ap"].tolist(), scores["f1"].tolist())
        return [
            {"class": name, "images": int(count), "ap": _cell(ap), "f1": _cell(f1)}
            for name, count, ap, f1 in zip(*columns, strict=True)
        ]

    def finish(
        self,
        task: MultiLabelClassification,
        samples: Sequence[Sample],
        figures: list[dict[str, float | str | None]],
    ) -> dict[str, Image.Image]:
        write_csv(self.folder / "class_scores.csv", figures)
        save_samples(self.folder, samples)
        return {}


def _tile(sample: Sample) -> Image.Image:
    """The image of a sample with its labels, and the certainty of the decision that is least certain."""
    truth, predicted = (", ".join(sample[kind]) or "none" for kind in ("truth", "predicted"))
    certainty = min(max(p, 1 - p) for p in sample["probabilities"].values())
    return draw.classification_tile(sample["image"], truth, predicted, certainty, file=sample.get("file", ""))


def _names(chosen: Tensor, classes: tuple[str, ...]) -> list[str]:
    return [name for name, is_chosen in zip(classes, chosen.tolist(), strict=True) if is_chosen]


def _cell(value: float) -> float | None:
    return None if np.isnan(value) else value
