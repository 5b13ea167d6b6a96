"""One line per epoch with its values, a bar on terminals only, and a terminal left as it was."""

import csv
import io
import logging
import math
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import rich
import torch
from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint
from torch import Tensor
from torch.utils.data import DataLoader

from cv_lab.callbacks.history import EpochHistory
from cv_lab.callbacks.progress import TerminalBar
from cv_lab.callbacks.timing import Timing
from cv_lab.training.units import LOSS, SHARE, Unit

SHOW_CURSOR, HIDE_CURSOR = "\x1b[?25h", "\x1b[?25l"
ACCURACY = [0.25, 0.75, 0.5, 0.5]


class Task(pl.LightningModule):
    """Logs values that name their epoch: train/loss 10, 11, ... and val/loss 20, 21, ..."""

    monitor = "val/accuracy"
    mode = "max"
    details = ("secret",)

    def unit_of(self, metric: str) -> Unit | None:
        return {"accuracy": SHARE, "loss": LOSS}.get(metric.partition("/")[2])

    def __init__(self, fail_in: int | None = None) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(2, 1)
        self.fail_in = fail_in
        self.step_says = ""

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.01)

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        if self.step_says and batch_idx == 1:
            print(self.step_says)
            logging.getLogger("speaker").warning(self.step_says)
        if self.current_epoch == self.fail_in and batch_idx == 1:
            raise RuntimeError("out of luck")
        loss: Tensor = self.layer(batch["image"]).square().mean()
        return loss

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int, dataloader_idx: int = 0) -> None: ...

    def test_step(self, batch: dict[str, Tensor], batch_idx: int) -> None: ...

    def on_train_epoch_end(self) -> None:
        self.log_dict({"train/loss": 10.0 + self.current_epoch, "train/accuracy": 0.125})

    def on_validation_epoch_end(self) -> None:
        self.log("val/loss", 20.0 + self.current_epoch)
        self.log("val/accuracy", ACCURACY[self.current_epoch])
        self.log("val/iou/cat", 0.5)


def loader() -> DataLoader[dict[str, Tensor]]:
    return DataLoader([{"image": torch.randn(2)} for _ in range(6)], batch_size=2)  # type: ignore[arg-type]


class Terminal:
    """What is written to a terminal of `width` columns, or to a file if it is None."""

    def __init__(self, width: int | None = 120) -> None:
        self.file = io.StringIO()
        # legacy_windows and the colour system are fixed: the tests must not depend on where they run.
        self.options = {
            "file": self.file,
            "force_terminal": width is not None,
            "force_interactive": width is not None,
            "width": width or 80,
            "color_system": "standard",
            "legacy_windows": False,
        }

    def text(self) -> str:
        return self.file.getvalue()

    def trainer(self, folder: Path, *callbacks: pl.Callback, **kwargs: Any) -> pl.Trainer:
        rich.reconfigure(**self.options)
        timing = Timing()
        settings: dict[str, Any] = {
            "max_epochs": 3,
            "accelerator": "cpu",
            "logger": False,
            "enable_model_summary": False,
        }
        own = [TerminalBar(console_kwargs=self.options), timing, EpochHistory(folder / "metrics.csv", timing)]
        return pl.Trainer(**{**settings, "callbacks": [*own, *callbacks], **kwargs})


@pytest.fixture(autouse=True)
def _usual_console() -> Iterator[None]:
    yield
    rich.reconfigure()


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


def test_without_terminal_one_plain_line_an_epoch_with_its_own_values(tmp_path: Path) -> None:
    file = Terminal(width=None)
    file.trainer(tmp_path).fit(Task(), loader(), loader())
    text = file.text()
    assert "\x1b" not in text
    assert "\r" not in text
    assert [without_seconds(line) for line in text.splitlines()] == [
        "epoch 1/3  _ s  train/loss 10.000  train/accuracy 12.5 %"
        "  val/loss 20.000  val/accuracy 25.0 % ★  (about 0:00 left)",
        "epoch 2/3  _ s  train/loss 11.000  train/accuracy 12.5 %"
        "  val/loss 21.000  val/accuracy 75.0 % ★  (about 0:00 left)",
        "epoch 3/3  _ s  train/loss 12.000  train/accuracy 12.5 %  val/loss 22.000  val/accuracy 50.0 %",
    ]


def test_the_line_says_what_the_table_holds(tmp_path: Path) -> None:
    file = Terminal(width=None)
    file.trainer(tmp_path).fit(Task(), loader(), loader())
    with open(tmp_path / "metrics.csv") as table:
        for row, line in zip(csv.DictReader(table), file.text().splitlines(), strict=True):
            assert f"val/loss {float(row['val/loss']):.3f}" in line


def test_lines_appear_while_training_runs(tmp_path: Path) -> None:
    file = Terminal(width=None)
    counts = []

    class Count(pl.Callback):
        def on_train_batch_end(self, *args: Any) -> None:
            counts.append(file.text().count("\n"))

    file.trainer(tmp_path, Count()).fit(Task(), loader(), loader())
    assert counts == [0, 0, 0, 1, 1, 1, 2, 2, 2]


def test_terminal_shows_phases_and_keeps_one_line_an_epoch(tmp_path: Path) -> None:
    terminal = Terminal(width=80)
    runner = terminal.trainer(tmp_path)
    task = Task()
    runner.fit(task, loader(), loader())
    runner.test(task, loader(), verbose=False)
    text = terminal.text()
    for part in ("epoch 2/3 ", "Testing", "/3"):
        assert part in text
    assert [line.split("  ")[0] for line in screen(text)] == ["epoch 1/3", "epoch 2/3", "epoch 3/3"]
    assert "val/loss 21.000" in screen(text)[1]
    assert all(len(line) <= 80 for line in re.sub(r"\x1b\[[?\d;]*[A-Za-z]|\r", "\n", text).splitlines())
    assert text.rindex(SHOW_CURSOR) > text.rindex(HIDE_CURSOR)


def test_narrow_terminal_drops_the_less_important(tmp_path: Path) -> None:
    terminal = Terminal(width=76)
    terminal.trainer(tmp_path).fit(Task(), loader(), loader())
    lines = screen(terminal.text())
    assert len(lines) == 3
    assert all(len(line) <= 76 for line in lines)
    assert without_seconds(lines[0]) == "epoch 1/3  _ s  train/loss 10.000  val/loss 20.000  val/accuracy 25.0 % ★"


def test_failure_leaves_the_terminal_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    stdout, stderr = sys.stdout, sys.stderr
    with pytest.raises(RuntimeError, match="out of luck"):
        terminal.trainer(tmp_path).fit(Task(fail_in=1), loader(), loader())
    text = terminal.text()
    assert [line.split("  ")[0] for line in screen(text)] == ["epoch 1/3"]
    assert text.rindex(SHOW_CURSOR) > text.rindex(HIDE_CURSOR)
    assert (sys.stdout, sys.stderr) == (stdout, stderr)


def test_prints_and_log_messages_do_not_tear_the_bar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    stdout = sys.stdout
    handler = logging.StreamHandler(stdout)  # holds the stream, as Hydra's handler does
    logger = logging.getLogger("speaker")
    monkeypatch.setattr(logger, "handlers", [handler])
    monkeypatch.setattr(logger, "propagate", False)
    task = Task()
    task.step_says = "halfway"
    terminal.trainer(tmp_path, max_epochs=1).fit(task, loader(), loader())
    assert [line.split("  ")[0] for line in screen(terminal.text())] == ["halfway", "halfway", "epoch 1/1"]
    assert handler.stream is stdout


def test_early_stopping_writes_the_last_line_once(tmp_path: Path) -> None:
    file = Terminal(width=None)
    stop = EarlyStopping("val/accuracy", mode="max", patience=1, check_on_train_epoch_end=True)
    file.trainer(tmp_path, stop, max_epochs=4).fit(Task(), loader(), loader())
    lines = file.text().splitlines()
    assert [line.split("  ")[0] for line in lines] == ["epoch 1/4", "epoch 2/4", "epoch 3/4"]
    assert "left" not in lines[-1]


def test_resumed_training_goes_on_with_the_next_epoch_and_the_best_value(tmp_path: Path) -> None:
    def run(epochs: int, resume: Path | None) -> list[str]:
        file = Terminal(width=None)
        checkpoint = ModelCheckpoint(tmp_path, "last", save_on_train_epoch_end=True, enable_version_counter=False)
        runner = file.trainer(tmp_path, checkpoint, max_epochs=epochs)
        runner.fit(Task(), loader(), loader(), ckpt_path=resume, weights_only=True)
        return file.text().splitlines()

    assert any("★" in line for line in run(2, None))
    lines = run(4, tmp_path / "last.ckpt")
    assert [line.split("  ")[0] for line in lines] == ["epoch 3/4", "epoch 4/4"]
    assert "train/loss 12.000" in lines[0]
    assert "val/loss 23.000" in lines[1]
    assert not any("★" in line for line in lines)


def test_losses_below_1_are_no_shares(tmp_path: Path) -> None:
    class Entropic(Task):
        def on_validation_epoch_end(self) -> None:
            self.log_dict({"val/loss": 0.25, "val/cross_entropy": 0.5, "val/accuracy": 0.75, "val/secret": 1.0})

    file = Terminal(width=None)
    file.trainer(tmp_path, max_epochs=1).fit(Entropic(), loader(), loader())
    assert "val/loss 0.250  val/accuracy 75.0 % ★  val/cross_entropy 0.500" in file.text()
    assert "secret" not in file.text()


def test_undefined_values_are_never_the_best(tmp_path: Path) -> None:
    class Undefined(Task):
        def on_validation_epoch_end(self) -> None:
            self.log("val/accuracy", [math.nan, 0.1, 0.2][self.current_epoch])

    file = Terminal(width=None)
    file.trainer(tmp_path).fit(Undefined(), loader(), loader())
    assert ["★" in line for line in file.text().splitlines()] == [False, True, True]


@pytest.mark.parametrize("width", [None, 80])
def test_disabled_shows_no_bar(tmp_path: Path, width: int | None) -> None:
    terminal = Terminal(width)
    runner = terminal.trainer(tmp_path)
    assert isinstance(runner.progress_bar_callback, TerminalBar)
    runner.progress_bar_callback.disable()
    runner.fit(Task(), loader(), loader())
    assert "\x1b" not in terminal.text()
    assert terminal.text().count("\n") == 3


def test_nothing_is_printed_without_a_bar(tmp_path: Path) -> None:
    terminal = Terminal(width=None)
    timing = Timing()
    callbacks = [timing, EpochHistory(tmp_path / "metrics.csv", timing)]
    terminal.trainer(tmp_path, callbacks=callbacks, enable_progress_bar=False).fit(Task(), loader(), loader())
    assert terminal.text() == ""
