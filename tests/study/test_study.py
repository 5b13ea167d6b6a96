"""A study's table, from the files of its trials."""

import json
import os
import socket
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from cv_lab.report.summary import StudySummary
from cv_lab.report.terminal import print_table
from cv_lab.study.read import read_study
from cv_lab.study.record import SCHEMA
from cv_lab.study.trials import implied_parameters, varying_parameters


def write_trial(
    study: Path,
    parameters: dict[str, Any],
    accuracy: float | None,
    more: dict[str, float] | None = None,
    **record: Any,
) -> None:
    """A trial's folder; without `accuracy` it is not completed. `more` are further metrics."""
    folder = study / ",".join(f"{key}={value}" for key, value in parameters.items())
    folder.mkdir(parents=True)
    host = {"host": socket.gethostname(), "pid": os.getpid(), "pid_start": 0}
    fields = {
        "schema": SCHEMA,
        "status": "completed",
        "parameters": parameters,
        "overrides": [],
        "error": None,
        **host,
        **record,
    }
    (folder / "trial.json").write_text(json.dumps(fields | host | record))
    if accuracy is not None:
        monitor = {"name": "val/accuracy", "mode": "max", "best": accuracy, "epoch": 3, "validation": "split"}
        metrics = {"train/loss": 1.0, "val/loss": 1.0, "val/accuracy": accuracy, **(more or {})}
        units = {name: {"unit": "share", "mode": "max"} for name in metrics if name.endswith("accuracy")}
        result = {"schema": SCHEMA, "monitor": monitor, "metrics": metrics, "seconds": {"fit": 10.0}, "units": units}
        (folder / "result.json").write_text(json.dumps(result))


def test_seeds_share_a_row_with_mean_and_deviation(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for lr, accuracies in ((0.1, (0.5, 0.6, 0.7)), (0.01, (0.8, 0.6, 0.9))):
        for seed, accuracy in enumerate(accuracies, 1):
            write_trial(tmp_path, {"lr": lr, "seed": seed}, accuracy)
    trials = read_study(tmp_path).trials
    print_table(trials)
    head, first, second, words = capsys.readouterr().out.splitlines()
    assert words.startswith("Highest of 2 settings is lr 0.01: val/accuracy 76.67 % ± 15.28")
    assert head.split()[:3] == ["lr", "val/accuracy", "seeds"]
    assert first.split()[:1] == ["0.01"]  # the better mean
    assert "76.67 % ± 15.28" in first
    assert "60.00 % ± 10.00" in second


def test_plain_cross_entropy_is_shown_where_the_loss_is_another(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plain, weighted, smoothed = tmp_path / "plain", tmp_path / "weighted", tmp_path / "smoothed"
    for study, name, entropies in (
        (plain, "lr", (1.0, 1.0)),
        (weighted, "lr", (1.0, 0.8)),
        (smoothed, "label_smoothing", (1.0, 0.8)),
    ):
        for value, entropy in zip((0.0, 0.1), entropies, strict=True):
            write_trial(study, {name: value}, 0.5 - value, {"val/cross_entropy": entropy})
    print_table(read_study(plain).trials)
    assert "cross_entropy" not in capsys.readouterr().out
    print_table(read_study(weighted).trials)
    head, first, second, _ = capsys.readouterr().out.splitlines()
    assert "  train/loss  val/loss  val/cross_entropy  " in head
    assert first.split()[-4:-1] == ["1", "1", "1"]
    assert second.split()[-4:-1] == ["1", "1", "0.8"]  # no share in per cent
    print_table(read_study(smoothed).trials)  # whose losses are different functions, which share no column
    head, first, second, _ = capsys.readouterr().out.splitlines()
    assert "/loss" not in head
    assert (first.split()[-2], second.split()[-2]) == ("1", "0.8")


def test_what_follows_from_a_swept_parameter_is_implied(tmp_path: Path) -> None:
    for number, (optimizer, decay, lr) in enumerate(
        [("adam", 0.0, 0.1), ("adamw", 0.01, 0.1), ("adam", 0.0, 0.2), ("sgd", 0.0, 0.2)]
    ):
        parameters = {"optimizer": optimizer, "weight_decay": decay, "lr": lr}
        write_trial(tmp_path / "s", parameters, number / 10, overrides=[f"optimizer={optimizer}", f"lr={lr}"])
        asked = [f"optimizer={optimizer}", f"weight_decay={decay}", f"lr={lr}"]
        write_trial(tmp_path / "asked", parameters, number / 10, overrides=asked)
    for study, expected in (("s", ["weight_decay"]), ("asked", [])):
        trials = read_study(tmp_path / study).trials
        names = varying_parameters(trials)
        assert sorted(names) == ["lr", "optimizer", "weight_decay"]
        assert implied_parameters(trials, names) == expected


def test_without_repeated_seeds_each_trial_has_its_row(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_trial(tmp_path, {"lr": 0.1, "seed": 1}, 0.5)
    write_trial(tmp_path, {"lr": 0.2, "seed": 2}, 0.6)
    print_table(read_study(tmp_path).trials)
    printed = capsys.readouterr().out
    assert "±" not in printed
    assert "seeds" not in printed
    assert printed.splitlines()[0].split()[:2] == ["lr", "seed"]


def test_what_did_not_end_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_trial(tmp_path, {"seed": 1}, None, status="failed", error={"type": "E", "message": "no luck"})
    write_trial(tmp_path, {"seed": 2}, None, status="running")  # this process did not start at tick 0
    write_trial(tmp_path, {"seed": 3}, None, status="running", host="elsewhere")
    write_trial(tmp_path, {"seed": 4}, None, status="interrupted")
    print_table(read_study(tmp_path).trials)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("failed: ")
    assert lines[0].endswith("no luck.")
    assert [line.partition(":")[0] for line in lines[1:]] == ["killed", "running", "interrupted"]


def test_a_damaged_trial_hides_no_other(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_trial(tmp_path, {"lr": 0.1}, 0.5)
    write_trial(tmp_path, {"lr": 0.2}, 0.6)
    (tmp_path / "lr=0.1" / "trial.json").write_text("{")
    config = OmegaConf.create({"hydra": {"sweep": {"dir": str(tmp_path)}}})
    StudySummary().on_multirun_end(config)
    printed = capsys.readouterr().out
    assert "60.00 %" in printed
    assert "lr=0.1 is left out: trial.json is damaged" in printed


def test_metrics_are_shown_in_their_units(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A distance of 7.25 pixels is no share, and has no seconds per percentage point."""
    for lr, rmse in ((0.1, 7.25), (0.01, 0.5)):
        write_trial(tmp_path, {"lr": lr}, rmse)
    for path in tmp_path.glob("*/result.json"):
        result = json.loads(path.read_text())
        best = result["monitor"]["best"]
        result["monitor"] |= {"name": "val/rmse", "mode": "min"}
        result["metrics"] = {"train/loss": 1.0, "val/loss": 1.0, "val/rmse": best, "test/rmse": best}
        result["units"] = {"val/rmse": {"unit": "px", "mode": "min"}, "val/loss": {"unit": "plain", "mode": "min"}}
        path.write_text(json.dumps(result))
    print_table(read_study(tmp_path).trials)
    _, first, second, answer = capsys.readouterr().out.splitlines()
    # lr, val/rmse, test/rmse (whose unit is not given), seconds, status, epoch, losses; the smaller distance is better
    assert first.split() == ["0.01", "0.5", "px", "0.5", "10", "completed", "3", "1", "1"]
    assert second.split() == ["0.1", "7.25", "px", "7.25", "10", "completed", "3", "1", "1"]
    assert "6.75 px behind" in answer
