"""Image classification from scratch."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor, nn

from cv_lab.data.augment import Batch
from cv_lab.models.cut import heads_of
from cv_lab.models.weights import start_from
from cv_lab.tasks.base import ModelFactory, OptimizerFactory, Photo, SchedulerFactory, Task
from cv_lab.training.evidence import Arrays, ClassEvidence
from cv_lab.training.losses import full_precision
from cv_lab.training.metrics import SplitMetrics, accuracy, f1
from cv_lab.training.units import LOSS, SHARE


class Classification(Task):
    """Train a network to name the one class of each image.

    Args:
        model: makes the network, which maps float (N, 3, H, W) to logits (N, K), from ``num_classes=K``.
        classes: the K names.
        loss: of logits and target, the target int64 (N,) or, after mixing, float (N, K).
        optimizer, scheduler: see :class:`~cv_lab.tasks.base.Task`.
    """

    monitor = "val/accuracy"
    mode = "max"
    units: ClassVar = {"loss": LOSS, "cross_entropy": LOSS, "accuracy": SHARE, "f1": SHARE}
    details = ("cross_entropy",)

    def __init__(
        self,
        model: ModelFactory,
        classes: Sequence[str],
        loss: nn.Module,
        optimizer: OptimizerFactory,
        scheduler: SchedulerFactory | None = None,
    ) -> None:
        super().__init__(model(num_classes=len(classes)), classes, optimizer, scheduler)
        self.loss = loss

    def start_from(self, state: dict[str, Tensor], source: str) -> None:
        start_from(self.model, state, source, heads_of(self.model))

    def configure_metrics(self, split: str) -> SplitMetrics:
        evidence = ClassEvidence() if split == "test" else None
        return SplitMetrics(len(self.classes), training=split == "train", evidence=evidence)

    def confusion(self, split: str) -> Tensor:
        return self.split_metrics(split).confusion.compute()

    def evidence(self) -> Arrays:
        return self.split_metrics("test").evidence.compute()

    def summarise(self, metrics: SplitMetrics) -> dict[str, Tensor]:
        counts = metrics.confusion.compute()
        return {**metrics.losses(), "accuracy": accuracy(counts), "f1": f1(counts)}

    def predict(self, images: Tensor) -> Tensor:
        """Class probabilities, float (N, K)."""
        return full_precision(self(images)).softmax(1)

    def write(
        self, photo: Photo, prediction: Tensor, folder: Path, name: str, score: float
    ) -> tuple[list[dict[str, Any]], str]:
        """Write nothing but the row: the class and the probability of each."""
        (probabilities,) = prediction.tolist()
        best = max(range(len(self.classes)), key=probabilities.__getitem__)
        row = {"image": str(photo.path), "predicted": self.classes[best]}
        for name, probability in zip(self.classes, probabilities, strict=True):
            row[f"class {name}" if name in ("image", "predicted") else name] = probability
        return [row], f"{self.classes[best]} ({100 * probabilities[best]:.1f} %)"

    def step(self, split: str, batch: Batch) -> Tensor:
        logits = self(batch["image"])
        loss = self.loss(logits, batch.get("soft_label", batch["label"]))
        metrics = self.split_metrics(split)
        metrics.update(loss, logits, batch["label"])
        if metrics.evidence is not None:
            metrics.evidence.update(batch, logits)
        return loss
