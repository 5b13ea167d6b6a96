"""What a trial costs."""

import sys
import time
from typing import Any

import psutil
import torch
from pytorch_lightning import Callback, LightningModule, Trainer


class Timing(Callback):
    """Measure seconds of the whole fit, of each epoch and of training alone, and images trained on.

    Its figures are saved in the checkpoint, so a continued trial counts what came before the break.
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
        """Seconds since the fit began; of a continued one, with those up to its checkpoint."""
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

    def add(self, seconds: float, counted: float) -> None:
        """Add `seconds` of training outside the epochs, of which the fit, but no epoch, counted `counted` already."""
        self.earlier_fit_seconds += seconds - counted
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


def peak_memory_mb(device: torch.device) -> float:
    """Highest memory of this process so far in MB: on `device` if it is a GPU, else resident in main memory."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e6
    try:
        import resource
    except ImportError:  # on Windows
        memory = psutil.Process().memory_info()
        return float(getattr(memory, "peak_wset", memory.rss)) / 1e6
    # In bytes on macOS, in kilobytes elsewhere.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)
