"""What loggers are told at a trial's end."""

import csv
from pathlib import Path

from pytorch_lightning import Trainer
from pytorch_lightning.loggers import CSVLogger

from cv_lab.pictures.tensorboard import add_hyperparameters


def test_another_logger_gets_parameters_and_final_metrics(tmp_path: Path) -> None:
    logger = CSVLogger(tmp_path, name="", version="")
    trainer = Trainer(logger=logger, accelerator="cpu", enable_checkpointing=False)
    add_hyperparameters(trainer, {"lr": 0.1}, ["lr"], {"val/accuracy": 0.5}, 1)
    logger.finalize("success")
    assert (tmp_path / "hparams.yaml").read_text() == "lr: 0.1\n"
    (row,) = csv.DictReader((tmp_path / "metrics.csv").open())
    assert row == {"step": "1", "best/val/accuracy": "0.5"}
