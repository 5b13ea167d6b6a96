"""A bar while an epoch runs, one line when it has ended."""

import logging
import math
import sys
import time
from collections.abc import Mapping
from typing import Any, TextIO

import pytorch_lightning as pl
from pytorch_lightning.callbacks import ModelCheckpoint, ProgressBar
from rich import get_console
from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskID, TextColumn
from rich.table import Column
from rich.text import Text
from torch import Tensor

from cv_lab.training.units import Unit


class EpochProgress(ProgressBar):
    """Show training as a bar on a terminal, and leave one line an epoch, there and in logs::

        epoch  3/10  12.3 s  train/loss 1.234  val/accuracy 61.2 % ★  (about 1:25 left)

    The star marks the best value so far of the metric that the task's attributes `monitor` and
    `mode` name. Metrics with two slashes ("val/iou/cat") are left out: they are too many for a
    line. Where a terminal is too narrow for the line it shows the more important parts; where
    output is no terminal the line is complete and there is no bar.

    A step costs a look at the clock. The loss, whose reading makes the processor wait for the
    accelerator, is read only when the bar is drawn.

    Args:
        console: where to draw; by default rich's global one, because what prints through the same
            console as the bar does not tear it.
        refresh_seconds: least time between two drawings of the bar.
    """

    def __init__(self, console: Console | None = None, refresh_seconds: float = 0.125) -> None:
        super().__init__()
        self.console = console or get_console()
        self.refresh_seconds = refresh_seconds
        self._enabled = True
        self._bar: _Bar | None = None
        self._best: float | None = None
        self._fit_started = self._epoch_started = 0.0
        self._epoch = self._epochs_done = 0
        self._trained = self._validated = self._ended = False

    def disable(self) -> None:
        """Show nothing; Lightning calls this in all processes but the first."""
        self._enabled = False

    def enable(self) -> None:
        """Undo `disable`."""
        self._enabled = True

    # Training. What the task logs in its own on_train_epoch_end is not there yet when callbacks get
    # that hook, so an epoch's line is written in the first hook after it: the start of the next
    # epoch or the end of training.

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._fit_started = time.monotonic()
        self._epochs_done = 0
        self._best = _best_before(trainer, getattr(pl_module, "monitor", None))
        self._begin_epoch(trainer)  # a fit resumed within an epoch gets no on_train_epoch_start

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        line = self._finish_epoch(trainer, pl_module, last=False)
        self._begin_epoch(trainer)
        self._print(line)

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        self._trained = True
        if self._bar is not None:
            self._bar.update(batch_idx + 1, outputs)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._ended = self._trained

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        line = self._finish_epoch(trainer, pl_module, last=True)
        self._stop()
        self._print(line)

    # Validation inside and outside of training, test, prediction.

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.sanity_checking:
            self._begin("sanity check", sum(trainer.num_sanity_val_batches))
        elif trainer.state.fn == "fit":
            self._begin(f"{self._epoch_name(trainer)} validation", sum(trainer.num_val_batches))
        else:
            self._begin("validation", sum(trainer.num_val_batches))

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._begin("test", sum(trainer.num_test_batches))

    def on_predict_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._begin("prediction", sum(trainer.num_predict_batches))

    def on_validation_batch_end(self, *args: Any, **kwargs: Any) -> None:
        if self._bar is not None:
            self._bar.advance()

    on_test_batch_end = on_predict_batch_end = on_validation_batch_end

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._validated = not trainer.sanity_checking
        if trainer.state.fn != "fit":
            self._stop()
        elif self._bar is not None:
            self._bar.end()

    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._stop()

    def on_predict_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._stop()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        self._stop()

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        self._stop()

    def _begin(self, name: str, total: float) -> None:
        """Show a phase of `total` batches, until it ends in place of the one before."""
        if self._bar is None and self._enabled and self.console.is_interactive:
            self._bar = _Bar(self.console, self.refresh_seconds)
        if self._bar is not None:
            self._bar.begin(name, total)

    def _stop(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _begin_epoch(self, trainer: pl.Trainer) -> None:
        self._epoch = trainer.current_epoch
        self._epoch_started = time.monotonic()
        self._trained = self._validated = self._ended = False
        if self._bar is not None:
            self._bar.end()
        self._begin(self._epoch_name(trainer), self.total_train_batches)

    def _epoch_name(self, trainer: pl.Trainer) -> str:
        total = trainer.max_epochs
        if total is None or total < 0:
            return f"epoch {self._epoch + 1}"
        return f"epoch {self._epoch + 1:{len(str(total))}}/{total}"

    def _finish_epoch(self, trainer: pl.Trainer, pl_module: pl.LightningModule, last: bool) -> list[tuple[int, str]]:
        """The parts of the ended epoch's line with their ranks, 0 being the most important.

        Empty if no epoch has ended.
        """
        if not (self._ended and self._enabled):
            return []
        now = time.monotonic()
        self._epochs_done += 1
        seconds = now - self._epoch_started
        parts = [
            (0, self._epoch_name(trainer)),
            (4, f"{seconds:.1f} s" if seconds < 100 else _clock(seconds)),
        ]
        monitor, details = getattr(pl_module, "monitor", None), getattr(pl_module, "details", ())
        unit_of = getattr(pl_module, "unit_of", lambda name: None)
        for name, value in _epoch_metrics(trainer.callback_metrics, self._validated).items():
            if name.partition("/")[2] in details:
                continue
            text = f"{name} {_format(name, value, unit_of(name))}"
            if name == monitor:
                parts.append((0, text + self._star(value, getattr(pl_module, "mode", "min"))))
            else:
                parts.append((_rank(name), text))
        if not last and trainer.max_epochs is not None and trainer.max_epochs > 0:
            epochs_left = trainer.max_epochs - self._epoch - 1
            mean = (now - self._fit_started) / self._epochs_done
            parts.append((3, f"(about {_clock(epochs_left * mean)} left)"))
        return parts

    def _star(self, value: float, mode: str) -> str:
        """A star if the value is the best so far, else as much space, to keep lines aligned."""
        sign = 1 if mode == "max" else -1
        if math.isnan(value) or (self._best is not None and sign * value <= sign * self._best):
            return "  "
        self._best = value
        return " *" if self.console.options.ascii_only else " ★"

    def _print(self, parts: list[tuple[int, str]]) -> None:
        if not parts:
            return
        if self.console.is_interactive:
            line = Text(_join(parts, self.console.width), no_wrap=True, overflow="ellipsis")
            self.console.print(line)
        else:
            print(_join(parts, math.inf), file=self.console.file, flush=True)


class _Bar:
    """One line at the bottom of the terminal; what others print or log meanwhile appears above it.

    Phases nest: validation takes the place of training until it ends.
    """

    def __init__(self, console: Console, refresh_seconds: float) -> None:
        self.refresh_seconds = refresh_seconds
        self.due = 0.0
        self.done = 0
        self.phases: list[TaskID] = []
        streams = sys.stdout, sys.stderr
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None, table_column=Column(max_width=30)),
            _Batches(),
            _TimeLeft(),
            TextColumn("{task.fields[loss]}"),
            console=console,
            auto_refresh=False,  # a thread that draws would take time from training
            transient=True,
            redirect_stdout=sys.stdout.isatty(),
            redirect_stderr=sys.stderr.isatty(),
        )
        self.progress.start()
        # Rich has replaced sys.stdout and sys.stderr, but logging handlers made before hold the
        # streams themselves, and would write into the bar.
        new = dict(zip(streams, (sys.stdout, sys.stderr), strict=True))
        self.moved = [(handler, handler.stream) for handler in _stream_handlers(streams)]
        for handler, old in self.moved:
            handler.setStream(new[old])

    def stop(self) -> None:
        """Remove the line and leave the terminal as it was."""
        for handler, stream in self.moved:
            handler.setStream(stream)
        self.progress.stop()

    def begin(self, name: str, total: float) -> None:
        """Show a phase of `total` batches, which may be infinite."""
        if self.phases:
            self.progress.update(self.phases[-1], visible=False)
        number = None if math.isinf(total) else total
        self.phases.append(self.progress.add_task(name, total=number, loss=""))
        self.done = 0

    def end(self) -> None:
        """Show the phase before again."""
        if self.phases:
            self.progress.remove_task(self.phases.pop())
        if self.phases:
            self.progress.update(self.phases[-1], visible=True)

    def advance(self) -> None:
        """One batch more is done."""
        self.update(self.done + 1)

    def update(self, done: int, outputs: Any = None) -> None:
        """`done` batches of the phase are done, the last with `outputs`."""
        self.done = done
        if time.monotonic() < self.due:
            return
        self.progress.update(self.phases[-1], completed=done, loss=_loss(outputs))
        self.progress.refresh()
        self.due = time.monotonic() + self.refresh_seconds


class _Batches(ProgressColumn):
    def render(self, task: Task) -> Text:
        if task.total is None:
            return Text(f"{task.completed:.0f}")
        total = f"{task.total:.0f}"
        return Text(f"{task.completed:{len(total)}.0f}/{total}")


class _TimeLeft(ProgressColumn):
    def render(self, task: Task) -> Text:
        left = task.time_remaining
        return Text("" if left is None else f"{_clock(left)} left", style="progress.remaining")


def _stream_handlers(streams: tuple[TextIO, ...]) -> list["logging.StreamHandler[TextIO]"]:
    """All handlers of logging that write to one of the streams."""
    named = logging.Logger.manager.loggerDict.values()
    loggers = [logging.root, *(logger for logger in named if isinstance(logger, logging.Logger))]
    handlers = [handler for logger in loggers for handler in logger.handlers]
    return [handler for handler in handlers if isinstance(handler, logging.StreamHandler) and handler.stream in streams]


def _best_before(trainer: pl.Trainer, monitor: str | None) -> float | None:
    """The best value of the monitored metric in the training that this fit resumes."""
    for callback in trainer.checkpoint_callbacks:
        if isinstance(callback, ModelCheckpoint) and callback.monitor == monitor:
            score = callback.best_model_score
            return None if score is None else float(score)
    return None


def _epoch_metrics(metrics: Mapping[str, Tensor], validated: bool) -> dict[str, float]:
    """What belongs in an epoch's line: train, then val, then the rest, as they were logged.

    Without validation in this epoch the val metrics are still those of an earlier one: left out.
    """
    names = [
        name
        for name in metrics
        if name.count("/") < 2
        and not name.endswith(("_step", "_epoch"))  # copies that Lightning makes
        and (validated or not name.startswith("val/"))
    ]
    order = {"train": 0, "val": 1}
    names.sort(key=lambda name: order.get(name.split("/")[0], 2))
    return {name: float(metrics[name]) for name in names}


def _rank(name: str) -> int:
    """How dispensable a metric is that is not the monitored one."""
    ranks = {"val/loss": 1, "train/loss": 2}
    return ranks.get(name, 5 if name.startswith(("train/", "val/")) else 6)


def _format(name: str, value: float, unit: Unit | None = None) -> str:
    """A metric with its unit: a share in per cent, all others as numbers."""
    if name == "lr":
        return f"{value:.3g}"
    if unit is not None and unit.unit == "share":
        return f"{100 * value:4.1f} %"
    text = f"{value:.3f}" if value == 0 or 0.001 <= abs(value) < 10000 else f"{value:.2e}"
    return text if unit is None or unit.unit == "plain" else f"{text} {unit.unit}"


def _loss(outputs: Any) -> str:
    """The loss of a training step as text, empty for a step without one."""
    loss = outputs.get("loss") if isinstance(outputs, Mapping) else None
    return "" if loss is None else f"loss {_format('loss', float(loss))}"


def _clock(seconds: float) -> str:
    """1:05 or 2:01:05."""
    minutes, second = divmod(round(seconds), 60)
    hour, minute = divmod(minutes, 60)
    return f"{hour}:{minute:02}:{second:02}" if hour else f"{minute}:{second:02}"


def _join(parts: list[tuple[int, str]], width: float) -> str:
    """The parts in their order; of those that do not fit in `width`, the most important ones."""
    chosen: set[int] = set()
    room = width + 2
    for i in sorted(range(len(parts)), key=lambda i: parts[i][0]):
        length = len(parts[i][1]) + 2
        if not chosen or length <= room:
            chosen.add(i)
            room -= length
    return "  ".join(text for i, (_, text) in enumerate(parts) if i in chosen).rstrip()
