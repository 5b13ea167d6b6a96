"""Heads of a study that are trained together end as they do when each is trained by itself."""

import csv
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from cv_lab.files import read_json

Train = Callable[..., Path]
PROBE = [
    "task=linear_probing",
    "model=timm",
    "model.name=resnet18",
    "+model.image_size=32",
    "weights=none",
    "data.train_count=120",
    "data.test_count=24",
    "data.image_size=32",
    "batch_size=24",
    "epochs=2",
    "pictures=none",
    "logger=none",
    "cache_dir=${studies_dir}/cache",
]


def _rows(folder: Path) -> dict[str, list[dict[str, float]]]:
    """metrics.csv of each trial, by what its study swept."""
    found = {}
    for path in sorted(folder.glob("*/trial.json")):
        parameters = read_json(path)["parameters"]
        with (path.parent / "metrics.csv").open() as file:
            rows = [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]
        found[f"{parameters['optimizer']} {parameters['lr']}"] = rows
    return found


def _logs(folder: Path) -> str:
    return "".join(path.read_text() for path in sorted(folder.glob("*/train.log")))


@pytest.mark.slow
def test_a_study_of_heads_is_one_training(train: Train) -> None:
    sweep = ["-m", *PROBE, "optimizer=adam,sgd,rmsprop,nadam", "lr=1e-2,1e-3", "scheduler=cosine", "weight_decay=0.1"]
    together = train(*sweep)
    told = _logs(together)
    assert told.count("6 heads of this study trained together") == 1
    assert told.count("6 heads of this study read") == 5
    assert told.count("trained apart from the others of the study: torch.optim.NAdam") == 2
    left = _rows(together)
    together.rename(together.with_name("together"))
    apart = train(*sweep, "task.together=false")
    assert "heads of this study" not in _logs(apart)
    right = _rows(apart)
    assert len(left) == 8
    for name, rows in left.items():
        for row, other in zip(rows, right[name], strict=True):
            assert row == pytest.approx(other, rel=1e-4, abs=1e-7), name


def test_a_head_that_diverges_fails_alone(train: Train, tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as exit_info:
        train("-m", *PROBE, "optimizer=sgd", "lr=1e-2,1e38")
    assert exit_info.value.code == 1
    trials = [read_json(path) for path in (tmp_path / "s").glob("*/trial.json")]
    assert {trial["parameters"]["lr"]: trial["status"] for trial in trials} == {0.01: "completed", 1e38: "failed"}


def test_tensorboard_shows_both_kinds_at_the_same_steps(train: Train) -> None:
    """Lightning counts an epoch of a shared head as one step, and by default that is the place on the axis."""
    sweep = ["-m", *(override for override in PROBE if override != "logger=none"), "lr=1e-2,1e-3"]
    places = {}
    for together in ("true", "false"):
        study = train(*sweep, f"task.together={together}", f"study=together_{together}")
        study = study.with_name(f"together_{together}")
        for folder in study.glob("*/"):
            if not list(folder.glob("events*")):
                continue
            events = EventAccumulator(str(folder)).Reload()
            places[together] = [event.step for event in events.Scalars("val/loss")]
    assert places["true"] == places["false"]
    assert len(places["true"]) == 2


def test_a_trial_that_was_stopped_starts_its_head_anew(train: Train) -> None:
    """A checkpoint of a head that was trained elsewhere holds no state of an optimizer to go on with."""
    study = train("-m", *PROBE, "lr=1e-2,1e-3")
    before = _rows(study)
    for path in study.glob("*/result.json"):
        path.unlink()  # as if killed after the last checkpoint
    for path in study.glob("*/checkpoints/last.ckpt"):
        assert torch.load(path, weights_only=True)["together"]
    train("-m", *PROBE, "lr=1e-2")  # now alone
    after = _rows(study)
    assert after["adam 0.01"] == [pytest.approx(row, rel=1e-4, abs=1e-7) for row in before["adam 0.01"]]
