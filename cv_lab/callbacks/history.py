"""The table of epochs, ``metrics.csv``."""

from pathlib import Path
from typing import Any

from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import Checkpoint

from cv_lab.files import write_csv


class EpochHistory(Checkpoint):
    """Write one row an epoch with everything that was logged in it.

    The rows are saved in the checkpoint, so a continued trial goes on with the rows of the epochs that it keeps. It
    is a `Checkpoint` because Lightning calls `on_train_epoch_end` of those, and of no other callback, after the task
    has logged the epoch's training metrics; it must stand before the ModelCheckpoint in the list.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: list[dict[str, float]] = []

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        values = {name: value.item() for name, value in sorted(trainer.callback_metrics.items())}
        self.rows.append({"epoch": trainer.current_epoch + 1, "step": pl_module.global_step, **values})
        if trainer.is_global_zero:
            write_csv(self.path, self.rows)

    def state_dict(self) -> dict[str, Any]:
        return {"rows": self.rows}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.rows = state_dict["rows"]
