"""How often each class occurs in training, and how much it therefore weighs in the loss."""

import logging
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import Callback, Trainer
from rich import get_console
from rich.table import Table

from cv_lab.data.base import ImageData
from cv_lab.files import write_csv
from cv_lab.tasks.base import Task
from cv_lab.training.class_weights import class_weights
from cv_lab.training.losses import CrossEntropy

log = logging.getLogger(__name__)

SHOWN = 15  # classes in the printed table; the file has all


class ClassShares(Callback):
    """Before training, set the class weights of all losses that want some, and tell the shares of the classes.

    Of tasks that learn from masks, and where there are weights, the shares are printed and kept in
    ``class_shares.csv``.

    Args:
        folder: the trial's.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def setup(self, trainer: Trainer, task: Task, stage: str) -> None:  # type: ignore[override]
        losses = [loss for loss in task.modules() if isinstance(loss, CrossEntropy) and loss.class_weights is not None]
        if stage != "fit" or not (losses or task.target == "mask"):
            return
        data: ImageData = trainer.datamodule  # type: ignore[attr-defined]
        assert data.train is not None
        found = data.train.class_counts()
        total = max(int(found.counts.sum()), 1)
        rows: list[dict[str, Any]] = [
            {"class": name, "count": int(count), "share": float(count / total)}
            for name, count in zip(task.classes, found.counts, strict=True)
        ]
        for loss in losses:
            assert loss.class_weights is not None
            weights = class_weights(loss.class_weights, found, task.classes, loss.beta)
            loss.weight = torch.tensor(weights, dtype=torch.float32)
            for row, weight in zip(rows, weights.tolist(), strict=True):
                row["weight"] = weight
        if not trainer.is_global_zero:
            return
        write_csv(self.folder / "class_shares.csv", rows)
        _print(rows, "pixels" if task.target == "mask" else "images")
        if absent := [row["class"] for row in rows if row["count"] == 0]:
            log.warning("no training example holds %s: the network cannot learn them", ", ".join(absent))


def _print(rows: list[dict[str, Any]], unit: str) -> None:
    table = Table(box=None, header_style="bold")
    table.add_column("class")
    table.add_column(f"share of {unit}", justify="right")
    if "weight" in rows[0]:
        table.add_column("weight", justify="right")
    for row in sorted(rows, key=lambda row: -row["count"])[:SHOWN]:
        weight = [f"{row['weight']:.3g}"] if "weight" in row else []
        table.add_row(row["class"], f"{100 * row['share']:.2f} %", *weight)
    console = get_console()
    console.print(table)
    if len(rows) > SHOWN:
        console.print(f"and {len(rows) - SHOWN} rarer classes, in class_shares.csv")
