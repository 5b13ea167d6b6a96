"""Schedules of freezing, from training through the test to a loaded checkpoint."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from cv_lab.models.backbones import TimmNetwork
from cv_lab.tasks.classification import Classification
from cv_lab.tasks.finetuning import FineTuning
from cv_lab.training.metrics import SplitMetrics
from cv_lab.trial.build import load_task
from tests.conftest import PLAIN

Train = Callable[..., Path]
EPOCHS = 3
SMALL = (
    *("data.train_count=40", "data.test_count=8", "data.image_size=32", "batch_size=8", f"epochs={EPOCHS}", *PLAIN),
    *("task=finetuning", "model=timm", "model.name=test_resnet", "model.image_size=32", "lr=0.01"),
)
SCHEDULES = {
    "head": [],
    "head, averaged": ["callbacks=[default,ema]", "callbacks.ema.decay=0.3"],
    "head, dropout below": ["task.dropout_below=true"],
    "last stage": ["task.trained=1"],
    "all": ["task.trained=all", "task.lr_decay=0.3"],
    "all, statistics": ["task.trained=all", "task.freeze_statistics=false"],
    "one stage after another": ["task.trained=2", "task.unfreeze_every=1"],
    "statistics thaw": ["task.trained=2", "task.unfreeze_every=1", "task.freeze_statistics=false"],
    "head for two epochs": ["task.trained=all", "task.unfreeze_every=2"],
    "decay and one cycle": ["task.trained=2", "task.unfreeze_every=1", "weight_decay=0.5", "scheduler=onecycle"],
    "averaged": ["task.trained=2", "task.unfreeze_every=1", "callbacks=[default,ema]", "callbacks.ema.decay=0.3"],
}


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """A file of weights for test_resnet."""
    torch.manual_seed(0)
    path = tmp_path / "test_resnet.safetensors"
    save_file(TimmNetwork("test_resnet")(num_classes=11).state_dict(), path)
    return path


@pytest.fixture
def tested(monkeypatch: pytest.MonkeyPatch) -> dict[str, Tensor]:
    """Filled with the weights of the latest test."""
    state: dict[str, Tensor] = {}

    def keep(self: Classification) -> None:
        state.update({name: value.clone() for name, value in self.state_dict().items()})

    monkeypatch.setattr(Classification, "on_test_start", keep)
    return state


def let_win(monkeypatch: pytest.MonkeyPatch, best: int) -> dict[int, dict[str, Tensor]]:
    """Let epoch `best` have the highest accuracy; what is returned fills with the weights validated in each epoch."""
    validated: dict[int, dict[str, Tensor]] = {}
    true = Classification.summarise

    def summarise(self: Classification, metrics: SplitMetrics) -> dict[str, Tensor]:
        scalars = true(self, metrics)
        if metrics is self.split_metrics("val"):
            scalars["accuracy"] = torch.tensor(float(self.current_epoch == best))
        return scalars

    def keep(self: Classification) -> None:
        validated[self.current_epoch] = {name: value.clone() for name, value in self.state_dict().items()}

    monkeypatch.setattr(Classification, "summarise", summarise)
    monkeypatch.setattr(Classification, "on_validation_end", keep, raising=False)
    return validated


# The middle epoch for each. The first, of fewer stages, where those that train change; the last, which is the current
# one, where it is not trivial.
CASES = [
    *((schedule, 1) for schedule in SCHEDULES),
    *((schedule, 0) for schedule in SCHEDULES if "unfreeze_every" in str(SCHEDULES[schedule])),
    *(("head", 0), ("head, averaged", 2), ("head for two epochs", 2)),
]


@pytest.mark.parametrize(
    ("schedule", "best"), [pytest.param(*case, marks=[] if case[1] == 1 else pytest.mark.slow) for case in CASES]
)
def test_the_best_epoch_is_tested_and_loaded(
    train: Train,
    tmp_path: Path,
    weights: Path,
    tested: dict[str, Tensor],
    monkeypatch: pytest.MonkeyPatch,
    schedule: str,
    best: int,
) -> None:
    validated = let_win(monkeypatch, best)
    (folder,) = train(*SMALL, f"weights={weights}", *SCHEDULES[schedule], f"cache_dir={tmp_path}/cache").iterdir()
    assert json.loads((folder / "result.json").read_text())["monitor"]["epoch"] == best + 1
    loaded = load_task(folder / "checkpoints/best.ckpt").state_dict()
    assert tested.keys() == loaded.keys()
    for name, value in tested.items():
        assert torch.equal(value, loaded[name]), name
        if "averaged" not in schedule:  # in that hook the weights are the current ones again
            assert torch.equal(value, validated[best][name]), name
    # What never trains is the file's, and need not be in the checkpoint.
    kept = torch.load(folder / "checkpoints/best.ckpt", weights_only=True)["state_dict"]
    frozen = "task.trained" not in str(SCHEDULES[schedule])
    assert frozen == (not any(name.startswith("model.backbone.") for name in kept))
    if frozen:
        published = load_file(weights)
        backbone = {
            name[len("model.backbone.") :]: v for name, v in tested.items() if name.startswith("model.backbone.")
        }
        assert all(torch.equal(value, published[name]) for name, value in backbone.items())


@pytest.mark.parametrize(
    "schedule",
    [
        "one stage after another",
        *(
            pytest.param(schedule, marks=pytest.mark.slow)
            for schedule in ("head", "head, averaged", "statistics thaw", "decay and one cycle", "averaged")
        ),
    ],
)
def test_a_trial_continued_twice_ends_as_an_unbroken_one(
    train: Train, tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch, schedule: str
) -> None:
    let_win(monkeypatch, best=0)
    asked = (*SMALL, f"weights={weights}", *SCHEDULES[schedule], f"cache_dir={tmp_path}/cache")
    train(*asked, "study=whole")
    (whole,) = (tmp_path / "whole").iterdir()
    begin = FineTuning.on_train_epoch_start
    for break_in in (1, 2):

        def interrupt(self: FineTuning, break_in: int = break_in) -> None:
            begin(self)
            if self.current_epoch == break_in:
                raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(FineTuning, "on_train_epoch_start", interrupt)
            with pytest.raises(SystemExit):
                train(*asked)
    (folder,) = train(*asked).iterdir()
    assert len(json.loads((folder / "trial.json").read_text())["attempts"]) == 2
    assert (folder / "metrics.csv").read_text() == (whole / "metrics.csv").read_text()

    def outcome(folder: Path) -> Any:
        return json.loads((folder / "result.json").read_text())["metrics"]

    assert outcome(folder) == outcome(whole)
    for name in ("best", "last"):
        states = [load_task(path / f"checkpoints/{name}.ckpt").state_dict() for path in (folder, whole)]
        assert all(torch.equal(value, states[1][key]) for key, value in states[0].items())
