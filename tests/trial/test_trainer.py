"""Settings of the trainer: each works, or is refused before anything is trained."""

import csv
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import PLAIN

Train = Callable[..., Path]
SMALL = ("data.train_count=40", "data.test_count=16", "data.image_size=32", "batch_size=8", "epochs=2", *PLAIN)


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("epochs=0", "give at least 1"),
        ("epochs=-1", "give at least 1"),
        ("trainer.max_epochs=3", "epochs=N alone"),
        ("trainer.max_epochs=-1", "epochs=N alone"),
        ("trainer.max_epochs=null", "epochs=N alone"),
        ("+trainer.max_steps=3", "within an epoch"),
        ("+trainer.max_time=00:00:00:01", "within an epoch"),
        ("+trainer.fast_dev_run=true", "debug=one_batch"),
        ("+trainer.fast_dev_run=3", "debug=one_batch"),
        ("+trainer.enable_checkpointing=false", "no checkpoint"),
        ("+trainer.check_val_every_n_epoch=2", "without a validation"),
        ("+trainer.val_check_interval=0.5", "other weights"),
        ("+trainer.val_check_interval=1", "other weights"),
        ("trainer.limit_train_batches=0", "leaves no batch"),
        ("trainer.limit_val_batches=0", "leaves no batch"),
        ("trainer.limit_val_batches=0.0", "leaves no batch"),
        ("trainer.limit_test_batches=0", "leaves no batch"),
        ("trainer.limit_train_batches=0.1", "0.1 of 4 batches is less than one"),
        ("trainer.limit_val_batches=0.5", "0.5 of 1 batch is less than one"),
        ("trainer.limit_test_batches=0.4", "0.4 of 2 batches is less than one"),
        ("trainer.accumulate_grad_batches=0", "makes no step"),
        ("+trainer.precision=64-true", "without trainer."),
        ("+trainer.callbacks=[]", "without trainer."),
        ("+trainer.logger=true", "without trainer."),
        ("+trainer.use_distributed_sampler=true", "divide themselves"),
        ("+trainer.strategy=ddp_spawn trainer.devices=2 trainer.accelerator=cpu", "give trainer=ddp"),
        ("trainer=ddp trainer.devices=2 trainer.accelerator=cpu +trainer.overfit_batches=1", "trainer.devices=1"),
    ],
)
def test_what_leads_to_no_tested_checkpoint_is_refused_before_training(
    train: Train, tmp_path: Path, capsys: pytest.CaptureFixture[str], setting: str, words: str
) -> None:
    with pytest.raises(SystemExit) as exit_info:
        train(*SMALL, *setting.split())
    assert exit_info.value.code == 1
    assert words in capsys.readouterr().out
    assert not list(tmp_path.glob("s/*/metrics.csv"))


@pytest.mark.parametrize(
    "settings",
    [  # several in one trial, since each is accepted or refused by itself
        (
            "trainer.enable_progress_bar=false",
            "+trainer.val_check_interval=1.0",
            "trainer.num_sanity_val_steps=2",
            "+trainer.min_epochs=2",
            "trainer.limit_train_batches=2",
            "trainer.limit_val_batches=1",
            "trainer.limit_test_batches=0.5",
            "+trainer.inference_mode=false",
        ),
        (
            "trainer.enable_progress_bar=null",
            "+trainer.val_check_interval=null",
            "trainer.accumulate_grad_batches=100",
            "+trainer.reload_dataloaders_every_n_epochs=1",
            "+trainer.overfit_batches=1",
        ),
    ],
)
def test_other_settings_train_all_epochs_and_test(
    train: Train, settings: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    (folder,) = train(*SMALL, *settings).iterdir()
    with open(folder / "metrics.csv") as file:
        assert [int(row["epoch"]) for row in csv.DictReader(file)] == [1, 2]
    assert "test/accuracy" in json.loads((folder / "result.json").read_text())["metrics"]
    printed = capsys.readouterr().out
    assert ("epoch 1/2" in printed) == ("trainer.enable_progress_bar=false" not in settings)
    assert "best epoch" in printed
