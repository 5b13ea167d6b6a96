"""A trial's loggers: several at a time, and continued after a kill."""

import csv
from collections.abc import Callable
from pathlib import Path

import pytest
from omegaconf import OmegaConf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from cv_lab.trial.loggers import CSVLogger, make_loggers
from tests.conftest import TINY

Train = Callable[..., Path]
BOTH = ("logger=[tensorboard,csv]", "pictures=none")
KILL = ("+callbacks.kill._target_=tests.saboteur.KillOnce", "+callbacks.kill.moment=last")


def table(folder: Path) -> list[dict[str, str]]:
    with (folder / "csv/metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def steps(logger: CSVLogger) -> list[str]:
    with (Path(logger.log_dir) / "metrics.csv").open(newline="") as file:
        return [row["step"] for row in csv.DictReader(file)]


def make(folder: Path, purge_step: int | None = None) -> CSVLogger:
    return CSVLogger(save_dir=folder, name="", version="csv", flush_logs_every_n_steps=1, purge_step=purge_step)


def test_rows_that_still_hold_are_kept_once(tmp_path: Path) -> None:
    first = make(tmp_path)
    for step in (4, 9, 14):
        first.log_metrics({"loss": 1 / step}, step)
    path = tmp_path / "csv/metrics.csv"
    path.write_text(path.read_text() + "0.1")  # cut short by a kill
    again = make(tmp_path, purge_step=10)
    assert steps(again) == ["4", "9"]
    again.log_metrics({"loss": 1 / 14, "accuracy": 0.5}, 14)  # with a new column
    assert steps(again) == ["4", "9", "14"]
    anew = make(tmp_path)  # as a trial that failed of itself and is tried again
    anew.log_metrics({"loss": 0.5}, 4)
    assert steps(anew) == ["4"]


def test_no_logger_at_all() -> None:
    assert make_loggers(OmegaConf.create({"logger": None}), None) == []


def test_two_loggers_hold_the_same_figures(train: Train) -> None:
    (folder,) = train(*TINY, *BOTH, "epochs=2").iterdir()
    events = EventAccumulator(str(folder))
    events.Reload()
    rows = table(folder)
    for name in ("train/loss", "val/accuracy", "lr"):
        logged = [float(row[name]) for row in rows if row[name] and row["epoch"]]
        shown = [event.value for event in events.Scalars(name)][: len(logged)]
        assert shown == pytest.approx(logged)
        assert len(logged) == 2
    tested = [float(row["best/test/accuracy"]) for row in rows if row["best/test/accuracy"]]
    assert tested == pytest.approx([events.Scalars("best/test/accuracy")[-1].value] * len(tested))


@pytest.mark.slow
def test_a_continued_trial_neither_doubles_nor_loses_a_row(train: Train, tmp_path: Path) -> None:
    common = (*TINY, *BOTH, "epochs=3", *KILL)
    (tmp_path / "spared-last").touch()  # as if the process had been killed already
    whole = train(*common, f"+callbacks.kill.flag={tmp_path}/spared", "study=whole").parent / "whole"
    killed = ("-m", *common, f"+callbacks.kill.flag={tmp_path}/flag")
    with pytest.raises(SystemExit):
        train(*killed)
    assert (tmp_path / "flag-last").exists()
    study = train(*killed)
    (left,), (right,) = (list(folder.glob("*/csv")) for folder in (whole, study))
    assert table(left.parent) == table(right.parent)
    assert len([row for row in table(right.parent) if row["train/loss"] and row["epoch"]]) == 3
