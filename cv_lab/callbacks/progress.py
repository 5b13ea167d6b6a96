"""Lightning's progress bar, on terminals only."""

import logging
import sys
from typing import Any, TextIO, cast

from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import RichProgressBar
from rich import get_console
from rich.console import Console
from rich.file_proxy import FileProxy
from rich.progress import ProgressColumn


class TerminalBar(RichProgressBar):
    """Show a bar while training, validation or test runs, and remove it afterwards.

    It differs from Lightning's in four ways: nothing is written where the output is no terminal; epochs count from 1;
    the bar fits into 80 columns; and what loggers print meanwhile appears above the bar instead of tearing it. Losses
    are not shown, since reading them would wait for a GPU; :class:`~cv_lab.callbacks.history.EpochHistory` prints a
    line when an epoch has ended.

    Args:
        refresh_rate: drawings per second at most. Lightning draws in a thread, and waits for that at the end for up to
            one period.
        console_kwargs: options of `rich.console.Console`.
    """

    def __init__(self, refresh_rate: int = 10, console_kwargs: dict[str, Any] | None = None) -> None:
        super().__init__(refresh_rate=refresh_rate, console_kwargs=console_kwargs)
        self._redirected: list[tuple[logging.StreamHandler[TextIO], TextIO]] = []

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        super().setup(trainer, pl_module, stage)
        if not Console(**self._console_kwargs).is_interactive:
            self.disable()
        if self.is_enabled:
            # Rich replaces sys.stdout and sys.stderr while the bar is shown, but handlers of loggers hold the streams
            # themselves.
            for handler in _console_handlers():
                self._redirected.append((handler, handler.stream))
                handler.setStream(cast(TextIO, FileProxy(get_console(), handler.stream)))

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._remove()
        super().teardown(trainer, pl_module, stage)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._remove()
        super().on_exception(trainer, pl_module, exception)

    def configure_columns(self, trainer: Trainer) -> list[ProgressColumn]:
        """Lightning's columns, narrower, and without the speed, for which 80 columns leave no room."""
        name, bar, *others, _ = super().configure_columns(trainer)
        bar.bar_width = 30
        return [name, bar, *others]

    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        """No metrics: they would be read in every step."""
        return {}

    def _get_train_description(self, current_epoch: int) -> str:
        return f"{epoch_name(trainer=self.trainer, epoch=current_epoch + 1):{len(self.validation_description)}}"

    def _remove(self) -> None:
        """Let the bar vanish when it stops, and loggers write to their own streams again."""
        for handler, stream in self._redirected:
            handler.setStream(stream)
        self._redirected.clear()
        if self.progress is not None:
            self.progress.live.transient = True


def epoch_name(trainer: Trainer, epoch: int) -> str:
    """For example "epoch  3/10"; `epoch` counts from 1."""
    total = trainer.max_epochs
    assert total is not None
    return f"epoch {epoch:{len(str(total))}}/{total}"


def _console_handlers() -> list["logging.StreamHandler[TextIO]"]:
    """All handlers of loggers that write to this process's stdout or stderr."""
    loggers = [logging.root, *(a for a in logging.Logger.manager.loggerDict.values() if isinstance(a, logging.Logger))]
    handlers = [handler for logger in loggers for handler in logger.handlers]
    streams = (sys.stdout, sys.stderr)
    return [handler for handler in handlers if isinstance(handler, logging.StreamHandler) and handler.stream in streams]
