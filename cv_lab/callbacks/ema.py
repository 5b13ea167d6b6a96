"""An exponential moving average of the weights."""

from typing import Any

import torch
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import WeightAveraging
from pytorch_lightning.trainer.states import TrainerFn
from torch import Tensor


class EMA(WeightAveraging):
    """Validate, test and save an exponential moving average of the weights, updated after every step.

    Unlike Lightning's `EMAWeightAveraging`, whose `decay * average + (1 - decay) * current` rounds, it leaves what
    does not change bit-equal, so a frozen backbone stays the published one. Integer buffers, which count batches, are
    not averaged.

    Args:
        decay: share of the old average that a step keeps, in 0..1.

    Raises:
        ValueError: if `decay` is out of range.
    """

    def __init__(self, decay: float = 0.995) -> None:
        if not 0 <= decay < 1:
            raise ValueError(f"callbacks.ema.decay={decay} must be at least 0 and below 1")

        def update(average: Tensor, current: Tensor, updates: Tensor | int) -> Tensor:
            return torch.lerp(average, current, 1 - decay) if average.is_floating_point() else current

        super().__init__(avg_fn=update)

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Go on with current weights and average; a test takes the average alone, which is loaded already."""
        if trainer.state.fn is TrainerFn.FITTING:
            super().on_load_checkpoint(trainer, pl_module, checkpoint)
