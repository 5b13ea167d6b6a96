"""Measure the time and memory that a trial takes."""

import time
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer


class Timing(Callback):
    """Measure the seconds of the whole fit, of each epoch and of training alone, and count the training images.

    The figures are saved in the checkpoint, so a continued trial includes what came before the break.
    """

    def __init__(self) -> None:
        self.epoch_seconds: list[float] = []
        self.train_seconds = 0.0  # without validation and checkpoints
        self.images = 0
        self.earlier_fit_seconds = 0.0

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._fit_start = time.perf_counter()

    @property
    def fit_seconds(self) -> float:
        """Seconds since the fit began, with those up to the checkpoint that it continues from."""
        return self.earlier_fit_seconds + time.perf_counter() - self._fit_start

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._start = self._last_batch = time.perf_counter()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.images += len(batch["image"]) * trainer.world_size
        if trainer.is_last_batch:  # a GPU may still have steps to do
            torch.get_device_module(pl_module.device).synchronize()
        self._last_batch = time.perf_counter()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.train_seconds += self._last_batch - self._start
        self.epoch_seconds.append(time.perf_counter() - self._start)

    def add(self, seconds: float, already_in_fit: float) -> None:
        """Add time spent on shared head training; `already_in_fit` seconds of it are part of `fit_seconds`."""
        self.earlier_fit_seconds += seconds - already_in_fit
        self.train_seconds += seconds
        self.epoch_seconds = [s + seconds / len(self.epoch_seconds) for s in self.epoch_seconds]

    def state_dict(self) -> dict[str, Any]:
        return {
            "epoch_seconds": self.epoch_seconds,
            "train_seconds": self.train_seconds,
            "images": self.images,
            "earlier_fit_seconds": self.fit_seconds,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.__dict__.update(state_dict)
