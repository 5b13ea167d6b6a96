"""The epoch bar: one line an epoch with its values, and a terminal left as it was found."""

import io
import logging
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint
from rich.console import Console
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from cv_lab.callbacks.progress import EpochProgress
from cv_lab.training.units import LOSS, SHARE, Unit

SHOW_CURSOR, HIDE_CURSOR = "\x1b[?25h", "\x1b[?25l"
ACCURACY = [0.25, 0.75, 0.5, 0.5]


class Task(pl.LightningModule):
    """Logs values that name their epoch: train/loss 10, 11, ... and val/loss 20, 21, ..."""

    monitor = "val/accuracy"
    mode = "max"

    def unit_of(self, metric: str) -> Unit | None:
        return {"accuracy": SHARE, "loss": LOSS, "distance": Unit("px", "min")}.get(metric.partition("/")[2])

    def __init__(self, fail_in: int | None = None) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(2, 1)
        self.fail_in = fail_in
        self.step_says = ""

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.01)

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        if self.step_says and batch_idx == 1:
            print(self.step_says)
            logging.getLogger("speaker").warning(self.step_says)
        if self.current_epoch == self.fail_in and batch_idx == 1:
            raise RuntimeError("out of luck")
        loss: Tensor = self.layer(batch[0]).square().mean()
        return loss

    def validation_step(self, batch: list[Tensor], batch_idx: int, dataloader_idx: int = 0) -> None: ...

    def test_step(self, batch: list[Tensor], batch_idx: int) -> None: ...

    def on_train_epoch_end(self) -> None:
        self.log_dict({"train/loss": 10.0 + self.current_epoch, "train/accuracy": 0.125})

    def on_validation_epoch_end(self) -> None:
        self.log("val/loss", 20.0 + self.current_epoch)
        self.log("val/accuracy", ACCURACY[self.current_epoch])
        self.log("val/iou/cat", 0.5)


def loader() -> DataLoader[tuple[Tensor, ...]]:
    return DataLoader(TensorDataset(torch.randn(6, 2)), batch_size=2)


def trainer(console: Console, *callbacks: pl.Callback, **kwargs: Any) -> pl.Trainer:
    settings: dict[str, Any] = {
        "max_epochs": 3,
        "accelerator": "cpu",
        "logger": False,
        "enable_checkpointing": False,
        "enable_model_summary": False,
    }
    progress = EpochProgress(console, refresh_seconds=0)
    return pl.Trainer(**{**settings, "callbacks": [progress, *callbacks], **kwargs})


def plain() -> Console:
    return Console(file=io.StringIO(), force_terminal=False, width=80)


def terminal(width: int = 120) -> Console:
    # legacy_windows and the colour system are fixed: the tests must not depend on where they run.
    return Console(
        file=io.StringIO(),
        force_terminal=True,
        force_interactive=True,
        width=width,
        color_system="standard",
        legacy_windows=False,
    )


def written(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def screen(text: str) -> list[str]:
    """The lines that a terminal shows in the end."""
    lines, row, column = [""], 0, 0
    for token in re.findall(r"\x1b\[[?\d;]*[A-Za-z]|[^\x1b]", text):
        if token == "\n":
            row, column = row + 1, 0
            lines += [""] * (row + 1 - len(lines))
        elif token == "\r":
            column = 0
        elif token == "\x1b[2K":
            lines[row] = ""
        elif token == "\x1b[1A":
            row -= 1
        elif not token.startswith("\x1b"):
            lines[row] = lines[row][:column].ljust(column) + token + lines[row][column + 1 :]
            column += 1
        else:
            assert token[-1] in "mhl", f"unknown control sequence {token!r}"
    return [line.rstrip() for line in lines if line.strip()]


def without_seconds(line: str) -> str:
    return re.sub(r"\d+\.\d s", "_ s", line)


def test_without_terminal_one_plain_line_an_epoch_with_its_own_values() -> None:
    console = plain()
    trainer(console).fit(Task(), loader(), loader())
    text = written(console)
    assert "\x1b" not in text
    assert "\r" not in text
    assert [without_seconds(line) for line in text.splitlines()] == [
        "epoch 1/3  _ s  train/loss 10.000  train/accuracy 12.5 %"
        "  val/loss 20.000  val/accuracy 25.0 % ★  (about 0:00 left)",
        "epoch 2/3  _ s  train/loss 11.000  train/accuracy 12.5 %"
        "  val/loss 21.000  val/accuracy 75.0 % ★  (about 0:00 left)",
        "epoch 3/3  _ s  train/loss 12.000  train/accuracy 12.5 %  val/loss 22.000  val/accuracy 50.0 %",
    ]


def test_lines_appear_while_training_runs() -> None:
    console = plain()
    counts = []

    class Count(pl.Callback):
        def on_train_batch_end(self, *args: Any) -> None:
            counts.append(written(console).count("\n"))

    trainer(console, Count()).fit(Task(), loader(), loader())
    assert counts == [0, 0, 0, 1, 1, 1, 2, 2, 2]


def test_terminal_shows_phases_and_keeps_one_line_an_epoch() -> None:
    console = terminal()
    runner = trainer(console)
    task = Task()
    runner.fit(task, loader(), loader())
    runner.test(task, loader(), verbose=False)
    text = written(console)
    for part in ("sanity check", "epoch 2/3", "epoch 2/3 validation", "test", "3/3", "loss "):
        assert part in text
    assert [line.split("  ")[0] for line in screen(text)] == ["epoch 1/3", "epoch 2/3", "epoch 3/3"]
    assert "val/loss 21.000" in screen(text)[1]
    assert text.rindex(SHOW_CURSOR) > text.rindex(HIDE_CURSOR)


def test_narrow_terminal_drops_the_less_important() -> None:
    console = terminal(width=76)
    trainer(console).fit(Task(), loader(), loader())
    lines = screen(written(console))
    assert len(lines) == 3
    assert all(len(line) <= 76 for line in lines)
    assert without_seconds(lines[0]) == ("epoch 1/3  _ s  train/loss 10.000  val/loss 20.000  val/accuracy 25.0 % ★")


def test_loss_is_read_only_when_the_bar_is_drawn() -> None:
    reads = []

    class Outputs(dict[str, Any]):
        def get(self, key: str, default: Any = None) -> Any:
            reads.append(key)
            return super().get(key, default)

    class Observed(EpochProgress):
        def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, *args: Any) -> None:
            super().on_train_batch_end(trainer, pl_module, Outputs(outputs), *args)

    console = terminal()
    progress = Observed(console, refresh_seconds=1000)
    trainer(console, callbacks=[progress], num_sanity_val_steps=0).fit(Task(), loader(), loader())
    assert reads == ["loss"]


def test_failure_leaves_the_terminal_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    console = terminal()
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    stdout, stderr = sys.stdout, sys.stderr
    with pytest.raises(RuntimeError, match="out of luck"):
        trainer(console).fit(Task(fail_in=1), loader(), loader())
    text = written(console)
    assert [line.split("  ")[0] for line in screen(text)] == ["epoch 1/3"]
    assert text.rindex(SHOW_CURSOR) > text.rindex(HIDE_CURSOR)
    assert (sys.stdout, sys.stderr) == (stdout, stderr)


def test_prints_and_log_messages_do_not_tear_the_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    console = terminal()
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    stdout = sys.stdout
    handler = logging.StreamHandler(stdout)  # holds the stream, as Hydra's handler does
    logger = logging.getLogger("speaker")
    monkeypatch.setattr(logger, "handlers", [handler])
    monkeypatch.setattr(logger, "propagate", False)
    task = Task()
    task.step_says = "halfway"
    trainer(console, max_epochs=1).fit(task, loader(), loader())
    assert [line.split("  ")[0] for line in screen(written(console))] == [
        "halfway",
        "halfway",
        "epoch 1/1",
    ]
    assert handler.stream is stdout


def test_validation_values_of_an_earlier_epoch_are_not_repeated() -> None:
    console = plain()
    trainer(console, check_val_every_n_epoch=2).fit(Task(), loader(), loader())
    assert ["val/loss" in line for line in written(console).splitlines()] == [False, True, False]


def test_validation_within_the_epoch() -> None:
    console = terminal()
    trainer(console, val_check_interval=1 / 3).fit(Task(), loader(), [loader(), loader()])
    assert len(screen(written(console))) == 3


def test_early_stopping_writes_the_last_line_once() -> None:
    console = plain()
    stop = EarlyStopping("val/accuracy", mode="max", patience=1)
    trainer(console, stop, max_epochs=4).fit(Task(), loader(), loader())
    lines = written(console).splitlines()
    assert [line.split("  ")[0] for line in lines] == ["epoch 1/4", "epoch 2/4", "epoch 3/4"]
    assert "left" not in lines[-1]


@pytest.mark.parametrize("validate_every", [1, 2])
def test_resumed_training_goes_on_with_the_next_epoch_and_the_best_value(tmp_path: Path, validate_every: int) -> None:
    # Resuming after an epoch that saved without validating, Lightning ends that epoch a second time.
    def run(epochs: int, resume: Path | None) -> list[str]:
        console = plain()
        checkpoint = ModelCheckpoint(tmp_path, monitor="val/accuracy", mode="max", save_last=True)
        options: dict[str, Any] = {"enable_checkpointing": True, "check_val_every_n_epoch": validate_every}
        runner = trainer(console, checkpoint, max_epochs=epochs, **options)
        runner.fit(Task(), loader(), loader(), ckpt_path=resume, weights_only=True)
        return written(console).splitlines()

    assert any("★" in line for line in run(2, None))
    lines = run(4, tmp_path / "last.ckpt")
    assert [line.split("  ")[0] for line in lines] == ["epoch 3/4", "epoch 4/4"]
    assert "train/loss 12.000" in lines[0]
    assert "val/loss 23.000" in lines[1]
    assert not any("★" in line for line in lines)


def test_training_without_end_or_validation() -> None:
    console = plain()
    trainer(console, max_epochs=-1, max_steps=6).fit(Task(), loader())
    lines = [without_seconds(line) for line in written(console).splitlines()]
    assert lines == [
        "epoch 1  _ s  train/loss 10.000  train/accuracy 12.5 %",
        "epoch 2  _ s  train/loss 11.000  train/accuracy 12.5 %",
    ]


def test_metrics_are_shown_in_the_units_that_the_task_gives() -> None:
    class Entropic(Task):
        def on_validation_epoch_end(self) -> None:
            self.log_dict({"val/loss": 0.25, "val/distance": 0.5, "val/score": 0.5, "val/accuracy": 0.75})

    console = plain()
    trainer(console, max_epochs=1).fit(Entropic(), loader(), loader())
    expected = "val/loss 0.250  val/distance 0.500 px  val/score 0.500  val/accuracy 75.0 %"
    assert expected in written(console)


def test_disabled_is_silent() -> None:
    for console in (plain(), terminal()):
        progress = EpochProgress(console)
        progress.disable()
        trainer(console, callbacks=[progress]).fit(Task(), loader(), loader())
        assert written(console) == ""
