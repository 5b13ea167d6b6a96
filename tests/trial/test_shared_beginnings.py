"""A trial that begins from one of another length is, to the last bit, the trial that was run alone."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

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
    assert agree(config(None, callbacks=averaging), 1, 2, steps=5) == (
        0,
        "callbacks.swa may act by the number of epochs",
    )
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
        *("scheduler=none", "lr=0", "callbacks=[default,early_stopping]", "callbacks.early_stopping.patience=3"),
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
    assert {length: began(folder) for length, folder in together.items()} == shared
    for length, folder in together.items():
        alone = folders(train(*options, f"epochs={length}", f"study=alone{length}").parent / f"alone{length}")
        assert began(alone[length]) == 0
        assert_same_outcome(folder, alone[length])
        assert (folder / "test.csv").read_text() == (alone[length] / "test.csv").read_text()
        assert (folder / "csv/metrics.csv").read_text() == (alone[length] / "csv/metrics.csv").read_text()
        findings = [json.loads((path / "result.json").read_text())["findings"] for path in (folder, alone[length])]
        assert findings[0] == findings[1]


KILLING = ("model._target_=tests.saboteur.KillingNet", "+model.step=12", "lr=0.01", "scheduler=none")


@pytest.mark.slow
def test_killed_trials_go_on_and_end_as_those_run_alone(train: Train, tmp_path: Path) -> None:
    killed = ("-m", *SMALL, *KILLING, "epochs=6,3", f"+model.flag={tmp_path}/flag", "+model.kills=2", "jobs=2")
    with pytest.raises(SystemExit):  # both are killed, in the third epoch and in the fifth
        train(*killed)
    assert [json.loads(path.read_text())["status"] for path in tmp_path.glob("s/*/trial.json")] == ["failed"] * 2
    together = folders(train(*killed))
    assert {length: began(folder) for length, folder in together.items()} == {3: 0, 6: 2}
    for length, folder in together.items():
        # With jobs=2 as the others, since the number of threads changes the last bits of sums.
        alone = (*killed[:-3], f"epochs={length}", "+model.flag=none", "+model.kills=0", "jobs=2", "study=alone")
        train(*[option for option in alone if not option.startswith("epochs=6,3")])
        assert_same_outcome(folder, folders(tmp_path / "alone")[length])
        for path in (tmp_path / "alone").glob("*/trial.json"):
            path.parent.rename(tmp_path / f"alone{length}")


@pytest.mark.slow
def test_a_longer_trial_later_goes_on_and_shows_each_step_once(train: Train, tmp_path: Path) -> None:
    options = (*SMALL, "scheduler=none", "logger=tensorboard")
    train(*options, "epochs=2")
    longer = folders(train(*options, "epochs=4"))[4]
    assert began(longer) == 2
    alone = folders(train(*options, "epochs=4", "study=alone").parent / "alone")[4]
    assert_same_outcome(longer, alone)
    curves = [EventAccumulator(str(folder)) for folder in (longer, alone)]
    for events in curves:
        events.Reload()
    assert curves[0].Tags()["scalars"] == curves[1].Tags()["scalars"]
    for tag in curves[0].Tags()["scalars"]:
        points = [[(event.step, event.value) for event in events.Scalars(tag)] for events in curves]
        assert points[0] == points[1]
    assert [event.step for event in curves[0].Scalars("val/loss")] == [5, 10, 15, 20]


@pytest.mark.slow
def test_a_trial_begins_only_from_what_can_be_trusted(train: Train, tmp_path: Path) -> None:
    options = (*SMALL, "scheduler=none")
    source = folders(train(*options, "epochs=2"))[2]
    path = source / "trial.json"
    record = json.loads(path.read_text())

    def epochs_taken(changes: dict[str, Any], length: int) -> int:
        path.write_text(json.dumps(record | changes))
        return began(folders(train(*options, f"epochs={length}"))[length])

    assert epochs_taken({"versions": {"torch": "1.0"}}, 3) == 0
    assert epochs_taken({"git_commit": "another"}, 4) == 3  # from the one of three epochs
    for folder in (tmp_path / "s").glob("*"):
        if folder.name != source.name:
            shutil.rmtree(folder)
    assert epochs_taken({"git_commit": "another"}, 3) == 0
    shutil.rmtree(folders(tmp_path / "s")[3])
    assert epochs_taken({"status": "failed", "error": {"type": "ValueError"}}, 3) == 0
    shutil.rmtree(folders(tmp_path / "s")[3])
    (source / "checkpoints/best.ckpt").write_bytes(b"damaged")
    assert epochs_taken({}, 3) == 0


def test_schedules_that_are_not_shared_are_named(train: Train, capsys: pytest.CaptureFixture[str]) -> None:
    study = train("-m", *SMALL, "epochs=1,2", "scheduler=cosine")
    assert {length: began(folder) for length, folder in folders(study).items()} == {1: 0, 2: 0}
    printed = capsys.readouterr().out
    assert "the schedule cosine depends on the number of epochs (scheduler=none does not" in printed
    assert "from the start" not in printed
