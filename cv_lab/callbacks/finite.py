"""Fail a trial when its training loss becomes NaN or infinite."""

from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor

from cv_lab.labels import NonFiniteLossError


class RequireFiniteLoss(Callback):
    """Raise :class:`~cv_lab.labels.NonFiniteLossError` at the first training loss that is NaN or infinite.

    Args:
        gpu_interval: steps after which losses are read together on a GPU, where reading one waits for its step
            to finish.
    """

    def __init__(self, gpu_interval: int = 50) -> None:
        self.gpu_interval = gpu_interval
        self.pending: list[tuple[int, Tensor, Any]] = []  # step, loss, the batch's images

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        # Images are named as in the data set, if it names them.
        self.pending.append((trainer.global_step, outputs["loss"].detach(), batch.get("id", batch["index"])))
        if len(self.pending) >= (1 if pl_module.device.type == "cpu" else self.gpu_interval):
            self._check(trainer)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._check(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._check(trainer)

    def _check(self, trainer: Trainer) -> None:
        if not self.pending:
            return
        finite = torch.isfinite(torch.stack([loss for _, loss, _ in self.pending])).tolist()
        if not all(finite):
            step, loss, batch = self.pending[finite.index(False)]
            lr = trainer.optimizers[0].param_groups[0]["lr"]
            shown = batch[:8].tolist() if isinstance(batch, Tensor) else batch[:8]
            images = ", ".join(map(str, shown)) + (", ..." if len(batch) > 8 else "")
            raise NonFiniteLossError(
                loss.item(),
                f"step {step} (epoch {trainer.current_epoch + 1}, learning rate {lr:g}, batch of images {images})",
            )
        self.pending.clear()
