"""Image classification from scratch."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor, nn

from cv_lab.data.augment import Batch
from cv_lab.tasks.base import ModelFactory, OptimizerFactory, Photo, SchedulerFactory, Task
from cv_lab.training.evidence import Arrays, ClassEvidence
from cv_lab.training.losses import full_precision, log_of
from cv_lab.training.metrics import ConfusionMatrix, SplitMetrics, accuracy, classes_of, f1
from cv_lab.training.units import LOSS, SHARE

TOP = 5  # classes that a prediction ranks


class Classification(Task):
    """Train a network to name the one class of each image.

    Args:
        model: makes the network, which maps float (N, 3, H, W) to logits (N, K), from ``num_classes=K``.
        classes: the K names.
        loss: of logits and target, the target int64 (N,) or, after mixing, float (N, K).
        optimizer, scheduler: see :class:`~cv_lab.tasks.base.Task`.
        flip_tta: also test the mean of the logits of each image and its mirror image, as "accuracy_tta" (test-time
            augmentation). It takes a second pass over the test images and leaves all other figures as they are.
    """

    monitor = "val/accuracy"
    mode = "max"
    units: ClassVar = {"loss": LOSS, "cross_entropy": LOSS, "accuracy": SHARE, "accuracy_tta": SHARE, "f1": SHARE}
    details = ("cross_entropy",)

    def __init__(
        self,
        model: ModelFactory,
        classes: Sequence[str],
        loss: nn.Module,
        optimizer: OptimizerFactory,
        scheduler: SchedulerFactory | None = None,
        flip_tta: bool = False,
    ) -> None:
        super().__init__(model(num_classes=len(classes)), classes, optimizer, scheduler)
        self.loss, self.flip_tta = loss, flip_tta
        self.metrics["test_tta_metrics"] = ConfusionMatrix(len(classes))

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

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        super().test_step(batch, batch_idx)
        if self.flip_tta and len(batch["image"]):
            logits = full_precision(self(batch["image"])) + full_precision(self(batch["image"].flip(-1)))
            self.split_metrics("test_tta").update(classes_of(logits), batch["label"])

    def on_test_epoch_start(self) -> None:
        super().on_test_epoch_start()
        self.split_metrics("test_tta").reset()

    def on_test_epoch_end(self) -> None:
        super().on_test_epoch_end()
        if self.flip_tta:
            self.log("test/accuracy_tta", accuracy(self.split_metrics("test_tta").compute()), logger=False)

    def predict(self, images: Tensor) -> Tensor:
        """Class probabilities, float (N, K)."""
        return full_precision(self(images)).softmax(1)

    def output_of(self, predictions: Tensor) -> Tensor:
        return log_of(predictions)

    def write(
        self, photo: Photo, prediction: Tensor, folder: Path, name: str, score: float
    ) -> tuple[list[dict[str, Any]], str]:
        """Write nothing but the row: the most probable classes, and the probability of each class."""
        (probabilities,) = prediction.tolist()
        ranked = sorted(zip(self.classes, probabilities, strict=True), key=lambda pair: -pair[1])
        row: dict[str, Any] = {"image": str(photo.path), "predicted": ranked[0][0]}
        for place, (label, probability) in enumerate(ranked[:TOP], start=1):
            row |= {f"top_{place}": label, f"top_{place}_probability": probability}
        row |= {f"probability/{label}": p for label, p in zip(self.classes, probabilities, strict=True)}
        return [row], f"{ranked[0][0]} ({100 * ranked[0][1]:.1f} %)"

    def step(self, split: str, batch: Batch) -> Tensor:
        logits = self(batch["image"])
        loss = self.loss(logits, batch.get("soft_label", batch["label"]))
        metrics = self.split_metrics(split)
        metrics.update(loss, logits, batch["label"])
        if metrics.evidence is not None:
            metrics.evidence.update(batch, logits)
        return loss
