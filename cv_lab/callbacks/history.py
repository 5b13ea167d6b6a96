"""The epochs of a trial: rows of ``metrics.csv``, points of the loggers' curves, and printed lines."""

import math
from pathlib import Path
from typing import Any

from pytorch_lightning import Trainer
from pytorch_lightning.callbacks import Checkpoint
from rich import get_console
from rich.text import Text

from cv_lab.callbacks.epoch_line import epoch_line
from cv_lab.callbacks.timing import Timing
from cv_lab.files import write_csv
from cv_lab.tasks.base import Task


class EpochHistory(Checkpoint):
    """Write one row per epoch with everything that was logged in it, hand it to the loggers, and print a line of it.

    The loggers get one point per epoch at the step of the row. Lightning would count otherwise where the heads of
    several trials are trained together.

    The rows are saved in the checkpoint, so a continued trial goes on with the rows of the epochs that it keeps. It
    is a `Checkpoint` because Lightning calls `on_train_epoch_end` of those, and of no other callback, after the task
    has logged the epoch's training metrics; it must stand before the ModelCheckpoint in the list. Without a progress
    bar (``trainer.enable_progress_bar=false``) nothing is printed.

    Args:
        path: of the table.
        timing: measures the epochs.
        replay: give the loggers the rows of a continued training, too, since those come from the folder of another
            trial.

    Attributes:
        rows: of each epoch "epoch" (from 1), "step" (steps done at its end), and all metrics by name.
    """

    def __init__(self, path: Path, timing: Timing, replay: bool = False) -> None:
        self.path, self.timing, self.replay = path, timing, replay
        self.rows: list[dict[str, float]] = []

    def on_fit_start(self, trainer: Trainer, task: Task) -> None:  # type: ignore[override]
        if self.replay and trainer.is_global_zero:
            write_csv(self.path, self.rows)
            for row in self.rows:
                self._log(trainer, row)

    def on_train_epoch_end(self, trainer: Trainer, task: Task) -> None:  # type: ignore[override]
        values = {name: value.item() for name, value in sorted(trainer.callback_metrics.items())}
        self.rows.append({"epoch": trainer.current_epoch + 1, "step": task.global_step, **values})
        if not trainer.is_global_zero:
            return
        write_csv(self.path, self.rows)
        self._log(trainer, self.rows[-1])
        if trainer.progress_bar_callback is not None:
            self._print(trainer, task)

    def _log(self, trainer: Trainer, row: dict[str, float]) -> None:
        for logger in trainer.loggers:
            logger.log_metrics({name: value for name, value in row.items() if name != "step"}, int(row["step"]))
            logger.save()

    def _print(self, trainer: Trainer, task: Task) -> None:
        console = get_console()  # the bar's, which moves out of the way
        star = "*" if console.options.ascii_only else "★"
        width = console.width if console.is_interactive else math.inf
        line = epoch_line(trainer, task, self.rows, self.timing.epoch_seconds, star, width)
        if console.is_interactive:
            console.print(Text(line, no_wrap=True, overflow="ellipsis"))
        else:
            print(line, file=console.file, flush=True)

    def state_dict(self) -> dict[str, Any]:
        return {"rows": self.rows}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.rows = state_dict["rows"]
