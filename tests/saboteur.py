"""What goes wrong in tests of studies: callbacks that end their own process, and a small network with dropout."""

import os
import signal
import time
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor, nn

from cv_lab.data.shapes import Shapes


class DropoutNet(nn.Module):
    """float (N, 3, H, W) to logits (N, num_classes), with batch normalisation and dropout."""

    def __init__(self, num_classes: int, width: int = 8) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, width, 3, stride=2),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Dropout(0.3),
            nn.AdaptiveAvgPool2d(2),
            nn.Flatten(),
            nn.Linear(4 * width, num_classes),
        )

    def forward(self, images: Tensor) -> Tensor:
        return self.layers(images)


class KillingNet(DropoutNet):
    """A network whose training ends its process in some step, several times.

    Args:
        num_classes: see :class:`DropoutNet`.
        width: see :class:`DropoutNet`.
        step: of the process, counted from 1.
        kills: how often; each leaves a file.
        flag: name of these files, to which a number is appended.
    """

    def __init__(self, num_classes: int, width: int, step: int, kills: int, flag: str) -> None:
        super().__init__(num_classes, width)
        self.step, self.flags, self.steps = step, [Path(f"{flag}-{number}") for number in range(kills)], 0

    def forward(self, images: Tensor) -> Tensor:
        self.steps += self.training
        left = [flag for flag in self.flags if not flag.exists()]
        if self.steps == self.step and left:
            left[0].touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().forward(images)


class KillOnce(Callback):
    """Kill the process at a moment of the second epoch or later, unless `flag` says that this has been done.

    Args:
        moment: "fit", "batch", "validation", "best" (while that checkpoint is written), "last" or "test".
        flag: a file, made before the process is killed; the moment is appended to its name.
    """

    def __init__(self, moment: str, flag: str) -> None:
        self.moment, self.flag = moment, Path(f"{flag}-{moment}")

    def _die(self, moment: str) -> None:
        if moment == self.moment and not self.flag.exists():
            self.flag.touch()
            os.kill(os.getpid(), signal.SIGKILL)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._die("fit")

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.current_epoch == 1 and self.moment in ("best", "last") and not self.flag.exists():
            whole = torch.save

            def half(checkpoint: Any, path: Path) -> None:
                if self.moment in path.name:
                    path.write_bytes(b"half a checkpoint")
                    self._die(self.moment)
                whole(checkpoint, path)

            torch.save = half

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.current_epoch == 2 and batch_idx == 1:
            self._die("batch")

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.current_epoch == 1:
            self._die("validation")

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._die("test")


class Trouble(Callback):
    """Go wrong when training starts: "raise", "kill", "hang", "interrupt" or, to go right, "none"."""

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.kind == "raise":
            raise RuntimeError("no such luck")
        if self.kind == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.kind == "interrupt":
            raise KeyboardInterrupt
        if self.kind == "hang":
            time.sleep(600)


class InterruptOnce(Callback):
    """Interrupt all processes at the start of an epoch, unless `flag` says that this has been done.

    Args:
        epoch: counted from 0.
        flag: a file, made before; the number of the process is appended to its name.
    """

    def __init__(self, epoch: int, flag: str) -> None:
        self.epoch, self.flag = epoch, flag

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        flag = Path(f"{self.flag}-{trainer.global_rank}")
        if trainer.current_epoch == self.epoch and not flag.exists():
            flag.touch()
            raise KeyboardInterrupt


class Slow(Callback):
    """Take `seconds` for each batch."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def on_train_batch_end(self, *args: Any) -> None:
        time.sleep(self.seconds)


class NotedShapes(Shapes):
    """The embedded scenes, with a note that changes nothing."""

    def __init__(self, note: str, **options: Any) -> None:
        super().__init__(**options)


class RaiseInSecondEpoch(Callback):
    """Raise what may not happen again, when one epoch has been saved."""

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.current_epoch == 1:
            raise RuntimeError("no such luck")
