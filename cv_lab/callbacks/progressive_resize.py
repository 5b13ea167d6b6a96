"""Train on smaller images in early epochs."""

from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from pytorch_lightning import Callback, LightningModule, Trainer

from cv_lab.training.losses import full_precision


class ProgressiveResize(Callback):
    """Train on scaled-down images first, which costs less and loses little accuracy (Howard, 2018).

    Args:
        sizes: side in pixels for each epoch from the first on; later epochs use the images as they are.
    """

    def __init__(self, sizes: Sequence[int]) -> None:
        self.sizes = list(sizes)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if trainer.current_epoch < len(self.sizes):
            size = self.sizes[trainer.current_epoch]
            images = batch["image"]
            smaller = F.interpolate(full_precision(images), (size, size), mode="bilinear", antialias=True)
            batch["image"] = smaller.to(images.dtype)
