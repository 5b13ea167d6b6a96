"""Exponential moving average of the weights."""

import math
from collections.abc import Iterator
from itertools import chain
from typing import Any

import torch
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import WeightAveraging
from pytorch_lightning.trainer.states import TrainerFn
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel


class ExponentialMovingAverage(WeightAveraging):
    """Validate, test and save an exponential moving average of the weights.

    With a fixed decay it takes 1 / (1 - decay) steps to forget the random weights at the start. With `warmup`, the
    decay of the n-th update after the first is (1 + n) / (10 + n), if that is less, as in TensorFlow's
    ``ExponentialMovingAverage``.

    It differs from Lightning's ``EMAWeightAveraging`` in four more ways. A test after the training tests the average,
    where Lightning's loads the current weights. Before `start_epoch` the current weights are validated and saved, where
    Lightning's takes the random ones of the beginning. Weights that do not change, such as those of a frozen backbone,
    stay bit-equal, where Lightning's formula rounds. And it does not read a counter on the device twice per step, which
    would wait for a GPU.

    Args:
        decay: share of the old average that a step keeps, in 0..1.
        warmup: let the decay rise to `decay`.
        start_epoch: the first epoch, counted from 0, whose steps are averaged.
        use_buffers: average buffers as well, such as the statistics of BatchNorm.

    Raises:
        ValueError: if `decay` is out of range, or the training ends before `start_epoch`.
    """

    def __init__(
        self, decay: float = 0.995, warmup: bool = True, start_epoch: int = 0, use_buffers: bool = True
    ) -> None:
        if not 0 <= decay < 1:
            raise ValueError(f"callbacks.ema.decay={decay} must be at least 0 and below 1")
        super().__init__(use_buffers=use_buffers)
        self._average_model: _Average | None
        self.decay, self.warmup, self.start_epoch = decay, warmup, start_epoch

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage == "fit":
            if not 0 <= self.start_epoch < (trainer.max_epochs or math.inf):
                raise ValueError(
                    f"callbacks.ema.start_epoch={self.start_epoch} must lie within the training: give a number from 0 "
                    f"to {trainer.max_epochs - 1 if trainer.max_epochs else 0}, or leave the average out"
                )
            device = self._device or pl_module.device
            self._average_model = _Average(pl_module, self.decay, self.warmup, device, self._use_buffers)
            trainer.precision_plugin.convert_module(self._average_model)

    def on_train_batch_end(self, trainer: Trainer, *args: Any) -> None:
        assert self._average_model is not None
        if trainer.current_epoch < self.start_epoch:
            self._average_model.updates = 0  # so that the next update copies the current weights
        super().on_train_batch_end(trainer, *args)

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Continue with current weights and average; a test takes the average alone, which is loaded already."""
        if trainer.state.fn is TrainerFn.FITTING:
            super().on_load_checkpoint(trainer, pl_module, checkpoint)


class _Average(AveragedModel):
    """Keep the number of updates in Python, so that `n_averaged`, which is on the device, is read only once.

    Args:
        model: the module whose values are averaged.
        decay: see :class:`ExponentialMovingAverage`.
        warmup: see there.
        device: where the average is kept; None for that of `model`.
        use_buffers: average floating-point buffers too; others, which count batches, are always copied.
    """

    updates: int | None = None  # 0 makes the next one copy the model

    def __init__(
        self,
        model: nn.Module,
        decay: float,
        warmup: bool,
        device: torch.device | int | None = None,
        use_buffers: bool = True,
    ) -> None:
        super().__init__(model, device, use_buffers=use_buffers)
        self.decay, self.warmup = decay, warmup

    @torch.no_grad()
    def update_parameters(self, model: nn.Module) -> None:
        """Take `model` into the average; the first time, copy it."""
        n = int(self.n_averaged) if self.updates is None else self.updates  # a checkpoint may have brought some
        decay = min(self.decay, (1 + n) / (10 + n)) if self.warmup else self.decay
        for own, new in zip(_values(self.module, self.use_buffers), _values(model, self.use_buffers), strict=True):
            if n > 0 and own.is_floating_point():
                own.lerp_(new.to(own.device), 1 - decay)
            else:
                own.copy_(new)
        if not self.use_buffers:
            for own, new in zip(self.module.buffers(), model.buffers(), strict=True):
                own.copy_(new)
        self.updates = n + 1
        self.n_averaged.fill_(self.updates)


def _values(model: nn.Module, buffers: bool) -> Iterator[Tensor]:
    """Parameters, and perhaps buffers, as tensors without gradients."""
    return (value.detach() for value in chain(model.parameters(), model.buffers() if buffers else ()))
