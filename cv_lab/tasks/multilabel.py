"""Multi-label classification: which of several labels an image has, each judged by itself."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from omegaconf import DictConfig
from pytorch_lightning import Trainer
from torch import Tensor

from cv_lab.data.augment import Batch
from cv_lab.data.base import ImageData
from cv_lab.labels import ClassCounts
from cv_lab.tasks.base import ModelFactory, OptimizerFactory, Photo, SchedulerFactory, Task
from cv_lab.training.evidence import Arrays, LabelEvidence
from cv_lab.training.label_metrics import LabelMetrics
from cv_lab.training.losses import full_precision, log_of
from cv_lab.training.units import LOSS, SHARE

log = logging.getLogger(__name__)
POSITIVE_WEIGHTS = ("none", "balanced")


class MultiLabelClassification(Task):
    """Train a network to name all labels of each image.

    The loss is binary cross entropy of each label, averaged over images and labels. Figures are the mean average
    precision (mAP), over the labels that occur, F1 over all decisions (micro) and as a mean over labels (macro), and
    the share of images whose labels are all right (subset accuracy); decisions are taken at a probability of 0.5.

    Args:
        model: makes the network, which maps float (N, 3, H, W) to logits (N, K), from ``num_classes=K``.
        classes: the K labels.
        loss: must be None, since the task has its own.
        optimizer, scheduler: see :class:`~cv_lab.tasks.base.Task`.
        positive_weights: how much an image that has a label weighs in the loss of this label: "none", as much as one
            that lacks it; "balanced", the number of training images without it over that with it, so that both sides
            weigh the same. A label that none or all training images have weighs 1.

    Raises:
        ValueError: if a loss is given, or `positive_weights` is not known.
    """

    monitor = "val/mAP"
    mode = "max"
    units: ClassVar = {"loss": LOSS, "cross_entropy": LOSS} | dict.fromkeys(
        ("mAP", "f1_micro", "f1_macro", "subset_accuracy", "ap", "f1"), SHARE
    )
    target = "labels"
    fewest_classes = 1
    details = ("cross_entropy", "f1_macro")
    positive_weight: Tensor

    def __init__(
        self,
        model: ModelFactory,
        classes: Sequence[str],
        loss: None,
        optimizer: OptimizerFactory,
        scheduler: SchedulerFactory | None = None,
        positive_weights: str = "none",
    ) -> None:
        if loss is not None:
            raise ValueError(
                f"multi-label classification has a loss of its own, which {type(loss).__name__} cannot replace: give "
                "loss=none, and task.positive_weights=balanced to weigh rare labels up"
            )
        if positive_weights not in POSITIVE_WEIGHTS:
            raise ValueError(
                f"task.positive_weights={positive_weights} is not known: give {' or '.join(POSITIVE_WEIGHTS)}"
            )
        super().__init__(model(num_classes=len(classes)), classes, optimizer, scheduler)
        self.positive_weights = positive_weights
        self.register_buffer("positive_weight", torch.ones(len(classes)))

    def prepare(self, data: ImageData, trainer: Trainer, config: DictConfig, resumed: bool) -> ImageData:
        """Take the weights of the loss from the training images."""
        for split in ("train", "val", "test"):
            if not (images := getattr(data, split)).class_counts().counts.any():
                raise ValueError(
                    f"none of the {len(images)} {split} images has a label, so nothing can be learned or measured: "
                    "check the labels of the data, or its splits"
                )
        assert data.train is not None
        counts = data.train.class_counts()
        if absent := [name for name, count in zip(self.classes, counts.counts, strict=True) if count == 0]:
            log.warning("no training image has the label %s: the network cannot learn it", ", ".join(absent))
        if self.positive_weights == "balanced":
            self.positive_weight.copy_(balanced(counts))
        return data

    def configure_metrics(self, split: str) -> LabelMetrics:
        evidence = LabelEvidence() if split == "test" else None
        return LabelMetrics(len(self.classes), training=split == "train", evidence=evidence)

    def evidence(self) -> Arrays:
        return self.split_metrics("test").evidence.compute()

    def summarise(self, metrics: LabelMetrics) -> dict[str, Tensor]:
        scores = metrics.scores.compute()
        scalars = {
            **metrics.losses(),
            "mAP": scores["map"],
            "f1_micro": scores["f1_micro"],
            "f1_macro": scores["f1_macro"],
            "subset_accuracy": metrics.exact.compute(),
        }
        return scalars | {
            f"{figure}/{name}": value
            for figure in ("ap", "f1")
            for name, value in zip(self.classes, scores[figure], strict=True)
        }

    def predict(self, images: Tensor) -> Tensor:
        """The probability of each label, float (N, K)."""
        return full_precision(self(images)).sigmoid()

    def output_of(self, predictions: Tensor) -> Tensor:
        return log_of(predictions) - log_of(1 - predictions)

    def write(
        self, photo: Photo, prediction: Tensor, folder: Path, name: str, score: float
    ) -> tuple[list[dict[str, Any]], str]:
        """Write nothing but the row: the labels given, and the probability and the decision for each label."""
        (probabilities,) = prediction.tolist()
        given = [label for label, p in zip(self.classes, probabilities, strict=True) if p > score]
        row: dict[str, Any] = {"image": str(photo.path), "labels": ";".join(given)}
        for label, probability in zip(self.classes, probabilities, strict=True):
            row |= {f"probability/{label}": probability, f"decision/{label}": int(probability > score)}
        return [row], ", ".join(given) or "no label"

    def count_nothing(self, metrics: LabelMetrics) -> None:
        nothing = torch.empty(0, len(self.classes), device=self.device)
        metrics.scores.update(nothing.double(), nothing.to(torch.uint8))

    def step(self, split: str, batch: Batch) -> Tensor:
        logits, truth = self(batch["image"]), batch["labels"]
        raised = full_precision(logits)
        loss = F.binary_cross_entropy_with_logits(
            raised, truth.to(raised.dtype), pos_weight=self.positive_weight.to(raised.dtype)
        )
        metrics = self.split_metrics(split)
        metrics.update(loss, logits, truth)
        if metrics.evidence is not None:
            metrics.evidence.update(batch, logits)
        return loss


def balanced(found: ClassCounts) -> Tensor:
    """Images without a label over images with it, float32 (K,); 1 for a label that none or all have."""
    positives, totals = torch.as_tensor(found.counts), torch.as_tensor(found.totals)
    negatives = totals - positives
    return torch.where((positives > 0) & (negatives > 0), negatives / positives.clamp(min=1), 1.0).float()
