"""An exponential moving average of the weights that does not wait for a GPU."""

from collections.abc import Iterator
from itertools import chain

import torch
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import EMAWeightAveraging
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel


class ExponentialMovingAverage(EMAWeightAveraging):
    """Validate, test and save an exponential moving average of the weights.

    Values and checkpoints are those of Lightning's callback, which reads a counter on the device twice in each step and
    therefore waits for a GPU.
    """

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage == "fit":
            device = self._device or pl_module.device
            self._average_model = _Average(pl_module, device, use_buffers=self._use_buffers, **self._kwargs)


class _Average(AveragedModel):
    """Keeps in Python whether it has begun, so that `n_averaged`, which is on the device, is read only once."""

    begun = False

    @torch.no_grad()
    def update_parameters(self, model: nn.Module) -> None:
        """Take `model` into the average; the first time, copy it."""
        begun = self.begun or bool(self.n_averaged > 0)  # as a checkpoint may say
        for own, new in zip(_values(self.module, self.use_buffers), _values(model, self.use_buffers), strict=True):
            new = new.detach().to(own.device)
            assert self.avg_fn is not None
            own.copy_(self.avg_fn(own, new, self.n_averaged) if begun else new)
        if not self.use_buffers:
            for own, new in zip(self.module.buffers(), model.buffers(), strict=True):
                own.copy_(new)
        self.n_averaged += 1
        self.begun = True


def _values(model: nn.Module, buffers: bool) -> Iterator[Tensor]:
    """Parameters, and perhaps buffers, as tensors without gradients."""
    return (value.detach() for value in chain(model.parameters(), model.buffers() if buffers else ()))
