"""A trial that begins from one of another length is, to the last bit, the trial that was run alone."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cv_lab.trial.stages import agree
from tests.study.test_launcher import SMALL
from tests.study.test_resume import assert_same_outcome

Train = Callable[..., Path]
WSD = {"_target_": "cv_lab.training.schedulers.wsd", "_partial_": True, "warmup": 3, "cooldown": 0.2, "shape": "linear"}


def config(scheduler: dict[str, Any] | None, **options: Any) -> dict[str, Any]:
    return {
        "scheduler": scheduler,
        "optimizer": {"_target_": "torch.optim.SGD", "_partial_": True, "lr": 0.1},
        "callbacks": {"progress": {"_target_": "cv_lab.callbacks.progress.TerminalBar"}},
        "task": {"_target_": "cv_lab.tasks.classification.Classification"},
        **options,
    }


def schedule(name: str, **options: Any) -> dict[str, Any]:
    return {"_target_": f"cv_lab.training.schedulers.{name}", "_partial_": True, **options}


def test_a_constant_rate_is_shared_to_the_end_of_the_shorter() -> None:
    assert agree(config(None), 5, 15, steps=7) == (5, "")
    assert agree(config(None), 15, 5, steps=7) == (5, "")


@pytest.mark.parametrize("steps", [1, 7, 100])
def test_wsd_is_shared_up_to_the_cooldown_of_the_shorter(steps: int) -> None:
    assert agree(config(WSD), 5, 10, steps)[0] == 4
    assert agree(config(WSD), 15, 10, steps)[0] == 8
    assert "wsd depends on the number of epochs after epoch 4" in agree(config(WSD), 5, 10, steps)[1]
    # 7 epochs cool down from 5.6 on.
    assert agree(config(WSD), 7, 30, steps)[0] == 5 + (steps == 1)


@pytest.mark.parametrize(
    "scheduler",
    [
        schedule("cosine"),
        schedule("one_cycle", max_lr=0.1),
        schedule("warmup_cosine"),
        schedule("step"),  # equal rates up to a quarter, but the milestones that its state holds are others
    ],
)
def test_schedules_of_all_steps_are_not_shared(scheduler: dict[str, Any]) -> None:
    epoch, why = agree(config(scheduler), 4, 8, steps=5)
    assert epoch == 0
    assert "depends on the number of epochs" in why


def test_what_may_count_all_epochs_is_not_shared() -> None:
    averaging = {"swa": {"_target_": "pytorch_lightning.callbacks.StochasticWeightAveraging", "swa_lrs": 0.01}}
    assert agree(config(None, callbacks=averaging), 1, 2, steps=5) == (0, "callbacks.swa may act by the number of epochs")
    assert agree(config(None, task={"_target_": "mine.Task"}), 1, 2, steps=5)[0] == 0


def folders(study: Path) -> dict[int, Path]:
    """The trials' folders by their number of epochs."""
    return {json.loads(path.read_text())["config"]["epochs"]: path.parent for path in study.glob("*/trial.json")}


def began(folder: Path) -> int:
    """The epochs that the trial took over from another."""
    record = json.loads((folder / "trial.json").read_text())
    assert record["status"] == "completed"
    return record["began_from"]["epochs"] if record["began_from"] else 0


AXES = {
    "constant": ("scheduler=none", "optimizer=sgd", "optimizer.momentum=0.9"),
    "wsd": ("scheduler=wsd", "scheduler.warmup=3", "scheduler.cooldown=0.25"),
    "all": (
        "scheduler=wsd",
        "scheduler.cooldown=0.25",
        "callbacks=[default,ema,early_stopping,progressive_resize]",
        "callbacks.progressive_resize.sizes=[16,24]",
        "callbacks.ema.decay=0.9",
        "augmentation=strong",
        "trainer.accumulate_grad_batches=2",
        "trainer.limit_train_batches=5",
    ),
    "stopped": (
        *("scheduler=none", "lr=0", "callbacks=[default,early_stopping]", "callbacks.early_stopping.patience=2"),
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("axis", AXES)
def test_trials_of_several_lengths_end_as_those_run_alone(
    train: Train, tmp_path: Path, axis: str, capsys: pytest.CaptureFixture[str]
) -> None:
    options = (*SMALL, "lr=0.01", "logger=csv", *AXES[axis])
    study = train("-m", *options, "epochs=6,3,4")
    printed = capsys.readouterr().out
    shared = {3: 0, 4: 2, 6: 3} if "scheduler=wsd" in options else {3: 0, 4: 3, 6: 4}
    assert f"3 trials, 1 from the start, {13 - sum(shared.values())} of 13 epochs" in printed
    together = folders(study)
    assert {length: began(folder) for length, folder in together.items()} == (
        shared if axis != "stopped" else {3: 0, 4: 3, 6: 3}
    )
    for length, folder in together.items():
        alone = folders(train("-m", *options, f"epochs={length}", f"study=alone{length}").parent / f"alone{length}")
        assert began(alone[length]) == 0
        assert_same_outcome(folder, alone[length])
        for name in ("test.csv", "class_shares.csv"):
            pair = [path / name for path in (folder, alone[length]) if (path / name).exists()]
            assert len({path.read_text() for path in pair}) <= 1
