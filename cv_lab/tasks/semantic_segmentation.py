"""Semantic segmentation: a class for every pixel."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from cv_lab.data.augment import Batch
from cv_lab.labels import IGNORE
from cv_lab.models.segmentation import Segmenter
from cv_lab.tasks.base import ModelFactory, OptimizerFactory, SchedulerFactory, Task
from cv_lab.training.evidence import Arrays, PixelEvidence
from cv_lab.training.metrics import (
    SplitMetrics,
    accuracy,
    class_accuracy,
    classes_of,
    frequency_weighted_iou,
    iou,
    mean_iou,
)
from cv_lab.training.optimizers import ParameterGroups


class SemanticSegmentation(Task):
    """Train a network to name the class of each pixel.

    Everything logged comes from one confusion matrix over all pixels of a split, in which those labelled 255 do not
    count. Classes in neither truth nor prediction have no IoU: they are left out of the means, and logged as NaN.

    Args:
        model: makes the network, which maps float (N, 3, H, W) to logits (N, K, H, W), from ``num_classes=K``.
        classes: the K names.
        loss: of logits and target, the target int64 (N, H, W).
        optimizer: see :class:`~cv_lab.tasks.base.Task`.
        scheduler: see :class:`~cv_lab.tasks.base.Task`.
        background: name of the class that "mean_iou_foreground" leaves out, if there is such a class.
        encoder_lr_ratio: learning rate of the network's encoder as a multiple of that of its other parts.
        freeze_encoder: train the other parts alone; the encoder's batch normalisation keeps its statistics too.
    """

    model: Segmenter
    monitor = "val/mean_iou"
    mode = "max"
    target = "mask"
    details = ("cross_entropy",)

    def __init__(
        self,
        model: ModelFactory,
        classes: Sequence[str],
        loss: nn.Module,
        optimizer: OptimizerFactory,
        scheduler: SchedulerFactory | None = None,
        background: str = "background",
        encoder_lr_ratio: float = 1.0,
        freeze_encoder: bool = False,
    ) -> None:
        super().__init__(model(num_classes=len(classes)), classes, optimizer, scheduler)
        self.loss = loss
        self.background = self.classes.index(background) if background in classes else None
        self.encoder_lr_ratio = encoder_lr_ratio
        self.frozen = [self.model.encoder] if freeze_encoder else []
        for module in self.frozen:
            module.requires_grad_(False)

    def start_from(self, state: dict[str, Tensor], source: str) -> None:
        self.model.start_from(state, source)

    def configure_metrics(self, split: str) -> SplitMetrics:
        evidence = PixelEvidence() if split == "test" else None
        return SplitMetrics(len(self.classes), IGNORE, training=split == "train", evidence=evidence)

    def confusion(self, split: str) -> Tensor:
        return self.split_metrics(split).confusion.compute()

    def evidence(self) -> Arrays:
        return self.split_metrics("test").evidence.compute()

    def summarise(self, metrics: SplitMetrics) -> dict[str, Tensor]:
        counts = metrics.confusion.compute()
        scalars = {
            **metrics.losses(),
            "pixel_accuracy": accuracy(counts),
            "mean_class_accuracy": class_accuracy(counts).nanmean(),
            "mean_iou": mean_iou(counts),
            "frequency_weighted_iou": frequency_weighted_iou(counts),
        }
        if self.background is not None:
            scalars["mean_iou_foreground"] = mean_iou(counts, without=self.background)
        return scalars | {f"iou/{name}": value for name, value in zip(self.classes, iou(counts), strict=True)}

    def parameter_groups(self) -> ParameterGroups:
        if self.encoder_lr_ratio == 1 or self.frozen:
            return super().parameter_groups()
        encoder = list(self.model.encoder.parameters())
        inside = {id(parameter) for parameter in encoder}
        others = [parameter for parameter in self.parameters() if id(parameter) not in inside]
        return [{"params": others}, {"params": encoder, "lr_ratio": self.encoder_lr_ratio}]

    def train(self, mode: bool = True) -> "SemanticSegmentation":
        super().train(mode)
        for module in self.frozen:
            module.eval()
        return self

    def predict_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Classes, uint8 (N, H, W)."""
        return classes_of(self(batch["image"])).to(torch.uint8)

    def step(self, split: str, batch: Batch) -> Tensor:
        logits, mask = self(batch["image"]), batch["mask"]
        loss = self.loss(logits, mask)
        metrics = self.split_metrics(split)
        metrics.update(loss, logits, mask)
        if metrics.evidence is not None:
            metrics.evidence.update(batch, logits)
        return loss
