"""A trial that was killed at any moment ends, continued, as one that was not."""

import csv
import json
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from cv_lab.study.liveness import process_start
from tests.conftest import TINY
from tests.study.test_launcher import SMALL

Train = Callable[..., Path]
MOMENTS = ("fit", "batch", "validation", "best", "last", "test")
RICH = (
    *SMALL,
    "epochs=4",
    "lr=0.01",
    "scheduler=onecycle",
    "augmentation=strong",
    "callbacks=[default,ema,early_stopping]",
    "callbacks.ema.decay=0.9",
)


def assert_equal(left: Any, right: Any, path: str = "") -> None:
    """Compare nested checkpoints bit by bit, but for seconds and for paths."""
    if isinstance(left, torch.Tensor):
        assert torch.equal(left, right), path
    elif isinstance(left, dict):
        assert left.keys() == right.keys(), path
        for key in left:
            # Times, paths, and the saboteur that only one of the two configs names.
            if key not in ("Timing", "config", "dirpath", "best_k_models") and "path" not in str(key):
                assert_equal(left[key], right[key], f"{path}.{key}")
    elif isinstance(left, list | tuple):
        assert len(left) == len(right), path
        for i, (a, b) in enumerate(zip(left, right, strict=True)):
            assert_equal(a, b, f"{path}.{i}")
    else:
        assert left == right, path


def assert_same_outcome(left: Path, right: Path) -> None:
    assert (left / "metrics.csv").read_text() == (right / "metrics.csv").read_text()
    results = [json.loads((folder / "result.json").read_text()) for folder in (left, right)]
    for key in ("monitor", "metrics", "last"):
        assert results[0][key] == results[1][key]
    for name in ("best", "last"):
        pair = [torch.load(folder / f"checkpoints/{name}.ckpt", weights_only=True) for folder in (left, right)]
        assert_equal(*pair)


@pytest.mark.slow
def test_killed_at_any_moment_a_trial_ends_bit_equal(train: Train, tmp_path: Path) -> None:
    # With jobs=2 as the killed ones, since the number of threads changes the last bits of sums.
    (whole,) = (path.parent for path in train("-m", *RICH, "study=whole", "jobs=2").parent.glob("whole/*/trial.json"))
    killed = (
        *("-m", *RICH, f"+callbacks.kill.flag={tmp_path}/flag"),
        *("+callbacks.kill._target_=tests.saboteur.KillOnce", f"+callbacks.kill.moment={','.join(MOMENTS)}", "jobs=2"),
    )
    with pytest.raises(SystemExit) as exit_info:
        train(*killed)
    assert exit_info.value.code == 1
    records = [json.loads(path.read_text()) for path in tmp_path.glob("s/*/trial.json")]
    # A checkpoint of the second epoch that is no better is not written, so that moment may not come.
    died = [record for record in records if record["status"] == "failed"]
    assert len(died) >= len(MOMENTS) - 1
    assert all("SIGKILL" in record["error"]["message"] for record in died)

    train(*killed)
    folders = [path.parent for path in tmp_path.glob("s/*/trial.json")]
    assert len(folders) == len(MOMENTS)
    for folder in folders:
        record = json.loads((folder / "trial.json").read_text())
        assert record["status"] == "completed"
        assert_same_outcome(whole, folder)
        assert not list(folder.rglob(".*.[0-9]*"))  # what was half written is gone
    assert sum(len(json.loads((f / "trial.json").read_text())["attempts"]) for f in folders) == len(died)


@pytest.mark.slow
def test_a_continued_trial_shows_each_step_once_in_tensorboard(train: Train, tmp_path: Path) -> None:
    killed = (
        *("-m", *SMALL, "epochs=3", f"+callbacks.kill.flag={tmp_path}/flag", "logger=tensorboard"),
        *("+callbacks.kill._target_=tests.saboteur.KillOnce", "+callbacks.kill.moment=last"),
    )
    with pytest.raises(SystemExit):
        train(*killed)
    (folder,) = train(*killed).glob("*/trial.json")
    events = EventAccumulator(str(folder.parent))
    events.Reload()
    for tag in ("train/loss", "val/accuracy"):
        assert [event.step for event in events.Scalars(tag)] == [5, 10, 15]
        assert len(events.Scalars(f"best/{tag}")) == 1
    with open(folder.parent / "metrics.csv") as file:
        losses = [float(row["train/loss"]) for row in csv.DictReader(file)]
    assert [event.value for event in events.Scalars("train/loss")] == pytest.approx(losses)


@pytest.mark.slow
def test_early_stopping_stays_decided(train: Train, tmp_path: Path) -> None:
    overrides = (
        *("-m", *SMALL, "epochs=6", "lr=0", "callbacks=[default,early_stopping]"),
        *("callbacks.early_stopping.patience=2", f"+callbacks.kill.flag={tmp_path}/flag"),
        *("+callbacks.kill._target_=tests.saboteur.KillOnce", "+callbacks.kill.moment=test"),
    )
    with pytest.raises(SystemExit):
        train(*overrides)
    (history,) = (tmp_path / "s").glob("*/metrics.csv")
    epochs = len(history.read_text().splitlines()) - 1
    assert epochs < 6
    (folder,) = train(*overrides).glob("*/result.json")
    assert json.loads(folder.read_text())["last"]["epoch"] == epochs


def test_a_moved_study_is_continued_where_it_is(train: Train, tmp_path: Path) -> None:
    overrides = (
        *("-m", *SMALL, "epochs=3", "lr=0", f"+callbacks.kill.flag={tmp_path}/flag"),
        *("+callbacks.kill._target_=tests.saboteur.KillOnce", "+callbacks.kill.moment=last"),
    )
    with pytest.raises(SystemExit):
        train(*overrides)
    (tmp_path / "s").rename(tmp_path / "moved")
    train(*overrides, "study=moved")
    (folder,) = (tmp_path / "moved").glob("*/trial.json")
    state = torch.load(folder.parent / "checkpoints/last.ckpt", weights_only=True)["callbacks"]
    (kept,) = [value for key, value in state.items() if key.startswith("MovableCheckpoint") and "val/accuracy" in key]
    assert kept["best_model_path"] == str(folder.parent / "checkpoints/best.ckpt")
    # The best of all three epochs, the one before the move among them.
    with open(folder.parent / "metrics.csv") as file:
        scores = [float(row["val/accuracy"]) for row in csv.DictReader(file)]
    assert len(scores) == 3
    assert torch.load(folder.parent / "checkpoints/best.ckpt", weights_only=True)["epoch"] == scores.index(max(scores))
    assert not (tmp_path / "s").exists()


def test_a_completed_trial_is_not_run_again(train: Train, capsys: pytest.CaptureFixture[str]) -> None:
    (folder,) = train(*SMALL).iterdir()
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file() and path.suffix != ".log"}
    capsys.readouterr()
    train(*SMALL)
    printed = capsys.readouterr().out
    assert "already completed" in printed
    assert "test/accuracy" in printed
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_a_failed_trial_starts_anew_and_remembers_why(train: Train, tmp_path: Path) -> None:
    overrides = (*SMALL, "optimizer=sgd", "lr=1e38")
    for attempts in (0, 1):
        with pytest.raises(SystemExit):
            train(*overrides)
        (path,) = tmp_path.glob("s/*/trial.json")
        record = json.loads(path.read_text())
        assert record["status"] == "failed"
        assert len(record["attempts"]) == attempts
    assert record["attempts"][0]["error"]["type"] == "NonFiniteLossError"


@pytest.mark.parametrize(("host", "alive"), [(socket.gethostname(), True), ("elsewhere", True), (None, False)])
def test_a_running_trial_is_left_alone(
    train: Train, capsys: pytest.CaptureFixture[str], host: str | None, alive: bool
) -> None:
    (folder,) = train(*SMALL).iterdir()
    record = json.loads((folder / "trial.json").read_text())
    mine = {"pid": record["pid"], "pid_start": process_start(record["pid"])}
    record |= {"status": "running", "host": host or record["host"], **(mine if alive else {"pid_start": 1})}
    (folder / "trial.json").write_text(json.dumps(record))
    if alive:
        with pytest.raises(SystemExit):
            train(*SMALL)
        assert "is being run by process" in capsys.readouterr().out
        assert json.loads((folder / "trial.json").read_text()) == record
    else:  # another process has that number now
        train(*SMALL)
        assert json.loads((folder / "trial.json").read_text())["status"] == "completed"


def test_damaged_checkpoint_fails_with_a_word(train: Train, tmp_path: Path) -> None:
    (folder,) = train(*TINY, "logger=none", "pictures=none").iterdir()
    record = json.loads((folder / "trial.json").read_text())
    (folder / "trial.json").write_text(json.dumps(record | {"status": "interrupted"}))
    (folder / "checkpoints/last.ckpt").write_bytes(b"damaged")
    with pytest.raises(SystemExit):
        train(*TINY, "logger=none", "pictures=none")
    train(*TINY, "logger=none", "pictures=none")  # failed of itself, so it starts anew
    assert json.loads((folder / "trial.json").read_text())["status"] == "completed"
