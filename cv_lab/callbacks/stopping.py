"""Stop a trial at the end of an epoch, so that it can continue later as if it had not stopped."""

from collections.abc import Callable

from pytorch_lightning import Trainer
from pytorch_lightning.callbacks import Checkpoint

from cv_lab.callbacks.history import EpochHistory
from cv_lab.tasks.base import Task


class StopEarly(Checkpoint):
    """Ask after each epoch whether the trial should stop.

    Its schedule stays that of all its epochs. It is a `Checkpoint` because it must come after those that write
    ``best.ckpt`` and ``last.ckpt``, behind which it stands in the list. The last epoch, and an epoch in which early
    stopping ends the trial, complete it.

    Args:
        history: of the trial's epochs.
        decide: gets the rows of the epochs so far and returns the trial's status, "paused" or "pruned", or None if
            the trial goes on.

    Attributes:
        status: that `decide` gave; None unless the trial was stopped.
    """

    def __init__(self, history: EpochHistory, decide: Callable[[list[dict[str, float]]], str | None]) -> None:
        self.history, self.decide = history, decide
        self.status: str | None = None

    def on_train_epoch_end(self, trainer: Trainer, task: Task) -> None:  # type: ignore[override]
        if trainer.should_stop or trainer.current_epoch + 1 == trainer.max_epochs:
            return
        self.status = self.decide(self.history.rows)
        trainer.should_stop = self.status is not None
