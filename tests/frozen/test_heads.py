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
    "model.name=test_resnet",
    "model.image_size=32",
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


def _steps(folder: Path) -> list[int]:
    """The steps at which TensorBoard shows the validation loss of one trial."""
    wanted = {"optimizer": "adam", "lr": 0.01}
    (trial,) = (
        path.parent for path in folder.glob("*/trial.json") if wanted.items() <= read_json(path)["parameters"].items()
    )
    return [event.step for event in EventAccumulator(str(trial)).Reload().Scalars("val/loss")]


def _logs(folder: Path) -> str:
    return "".join(path.read_text() for path in sorted(folder.glob("*/train.log")))


@pytest.mark.slow
def test_a_study_of_heads_is_one_training(train: Train) -> None:
    probe = [override for override in PROBE if override != "logger=none"]
    sweep = ["-m", *probe, "optimizer=adam,sgd,rmsprop,nadam", "lr=1e-2,1e-3", "scheduler=cosine", "weight_decay=0.1"]
    together = train(*sweep)
    told = _logs(together)
    assert told.count("6 heads of this study trained together") == 1
    assert told.count("6 heads of this study read") == 5
    assert told.count("trained apart from the others of the study: torch.optim.NAdam") == 2
    left = _rows(together)
    steps = _steps(together)
    together.rename(together.with_name("together"))
    apart = train(*sweep, "task.together=false", "hydra/launcher=basic")
    assert "heads of this study" not in _logs(apart)
    right = _rows(apart)
    assert len(left) == 8
    for name, rows in left.items():
        for row, other in zip(rows, right[name], strict=True):
            assert row == pytest.approx(other, rel=1e-4, abs=1e-7), name
    # Lightning counts an epoch of a shared head as one step, and by default that is the place on TensorBoard's axis.
    assert steps == _steps(apart)
    assert len(steps) == 2


def test_a_head_that_diverges_fails_alone(train: Train, tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as exit_info:
        train("-m", *PROBE, "optimizer=sgd", "lr=1e-2,1e38")
    assert exit_info.value.code == 1
    trials = [read_json(path) for path in (tmp_path / "s").glob("*/trial.json")]
    assert {trial["parameters"]["lr"]: trial["status"] for trial in trials} == {0.01: "completed", 1e38: "failed"}


@pytest.mark.slow
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
