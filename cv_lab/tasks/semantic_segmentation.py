"""Semantic segmentation: a class for every pixel."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from cv_lab.data.augment import Batch
from cv_lab.data.pixels import opened
from cv_lab.labels import IGNORE
from cv_lab.models.freezing import Freezing
from cv_lab.models.segmentation import Segmenter
from cv_lab.pictures import draw
from cv_lab.pictures.artifacts import save_png
from cv_lab.tasks.base import ModelFactory, OptimizerFactory, Photo, SchedulerFactory, Task
from cv_lab.training.evidence import Arrays, PixelEvidence
from cv_lab.training.losses import full_precision, log_of
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
from cv_lab.training.units import LOSS, SHARE


class SemanticSegmentation(Task):
    """Train a network to name the class of each pixel.

    Everything logged comes from one confusion matrix over all pixels of a split, in which those labelled 255 do not
    count. Classes in neither truth nor prediction have no IoU: they are left out of the means, and logged as NaN.

    Args:
        model: makes the network, which maps float (N, 3, H, W) to logits (N, K, H, W), from ``num_classes=K``.
        classes: the K names.
        loss: of logits and target, the target int64 (N, H, W).
        optimizer, scheduler: see :class:`~cv_lab.tasks.base.Task`.
        background: name of the class that "mean_iou_foreground" leaves out, if there is such a class.
        encoder_lr_ratio: learning rate of the network's encoder as a multiple of that of its other parts.
        freeze_encoder: train the other parts alone; the encoder's batch normalisation keeps its statistics too.
    """

    model: Segmenter
    monitor = "val/mean_iou"
    mode = "max"
    units = {"loss": LOSS, "cross_entropy": LOSS} | dict.fromkeys(
        (
            "pixel_accuracy",
            "mean_class_accuracy",
            "mean_iou",
            "mean_iou_foreground",
            "frequency_weighted_iou",
            "iou",
        ),
        SHARE,
    )
    target = "mask"
    square_photos = False
    table = None
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
        self.freezing = Freezing(self.model.encoder, trained_stages=0) if freeze_encoder else None

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
        if self.encoder_lr_ratio == 1 or self.freezing is not None:
            return super().parameter_groups()
        encoder = list(self.model.encoder.parameters())
        inside = {id(parameter) for parameter in encoder}
        others = [parameter for parameter in self.parameters() if id(parameter) not in inside]
        return [{"params": others}, {"params": encoder, "lr_ratio": self.encoder_lr_ratio}]

    def train(self, mode: bool = True) -> "SemanticSegmentation":
        super().train(mode)
        if self.freezing is not None:
            self.freezing.set_mode(mode)
        return self

    def predict(self, images: Tensor) -> Tensor:
        """Class probabilities of each pixel, float (N, K, H, W)."""
        return full_precision(self(images)).softmax(1)

    def output_of(self, predictions: Tensor) -> Tensor:
        return log_of(predictions)

    def files(self, name: str) -> tuple[str, ...]:
        """The image beside its classes, the mask, and the image with its classes at its own size."""
        return f"{name}.png", f"{name}_mask.png", f"{name}_overlay.png"

    def write(
        self, photo: Photo, prediction: Tensor, folder: Path, name: str, score: float
    ) -> tuple[list[dict[str, Any]], str]:
        """Write a picture of the network's size, and a mask and an overlay of the image's own size."""
        picture, mask, overlay = (folder / file for file in self.files(name))
        colors = draw.mask_palette(self.classes, self.background)
        height, width = photo.shown.shape[:2]
        probabilities = prediction[0, :, :height, :width]
        classes = classes_at(probabilities, (height, width))
        seen = np.unique(classes)
        pair = [Image.fromarray(photo.shown), Image.fromarray(draw.overlay(photo.shown, classes, colors))]
        beside = draw.beside(pair, photo.path.name)
        legend = draw.legend([self.classes[k] for k in seen], colors[seen], width=max(beside.width, 240))
        save_png(draw.stack([legend, beside]), picture)
        classes = classes_at(probabilities, photo.size)
        pixels = Image.fromarray(classes, mode="P")
        pixels.putpalette(colors.tobytes())
        save_png(pixels, mask)
        with opened(photo.path) as image:
            save_png(Image.fromarray(draw.overlay(image.fitting(photo.size), classes, colors)), overlay)
        return [], ", ".join(self.classes[k] for k in seen)

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


def classes_at(probabilities: Tensor, size: tuple[int, int]) -> NDArray[np.uint8]:
    """The most probable class of each pixel, uint8 (H, W), at another size.

    Probabilities are interpolated rather than classes, so that borders are smooth; one class at a time, since all of
    them would take gigabytes for a photograph.

    Args:
        probabilities: float (K, h, w).
        size: height H and width W.
    """
    best = torch.full(size, -1.0, device=probabilities.device)
    classes = torch.zeros(size, dtype=torch.uint8, device=probabilities.device)
    for k, plane in enumerate(probabilities):
        scaled = F.interpolate(plane[None, None], size, mode="bilinear", align_corners=False)[0, 0]
        higher = scaled > best
        best[higher], classes[higher] = scaled[higher], k
    return classes.cpu().numpy()
