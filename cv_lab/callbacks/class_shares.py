"""Print how often each class occurs in the training data, and how much it weighs in the loss."""

import logging
from pathlib import Path
from typing import Any

from pytorch_lightning import Callback, Trainer
from rich import get_console
from rich.table import Table
from rich.text import Text

from cv_lab.data.base import ImageData
from cv_lab.files import write_csv
from cv_lab.tasks.base import Task
from cv_lab.training.losses import CrossEntropy

log = logging.getLogger(__name__)

MAX_PRINTED = 15  # classes in the printed table; the file has all


class ClassShares(Callback):
    """Before training, print the shares of the classes and write them to ``class_shares.csv``.

    This is done for tasks that learn from masks, and where the loss weighs classes.

    Args:
        folder: the trial's.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def setup(self, trainer: Trainer, task: Task, stage: str) -> None:  # type: ignore[override]
        losses = [module for module in task.modules() if isinstance(module, CrossEntropy)]
        weights = [loss.weight for loss in losses if loss.weight is not None]
        if stage != "fit" or not trainer.is_global_zero or not (weights or task.target == "mask"):
            return
        data: ImageData = trainer.datamodule  # type: ignore[attr-defined]
        assert data.train is not None
        counts = data.train.class_counts().counts.tolist()
        total = max(sum(counts), 1)
        rows: list[dict[str, Any]] = [
            {"class": name, "count": count, "share": count / total}
            for name, count in zip(task.classes, counts, strict=True)
        ]
        if weights:
            rows = [row | {"weight": weight} for row, weight in zip(rows, weights[0].tolist(), strict=True)]
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
    for row in sorted(rows, key=lambda row: -row["count"])[:MAX_PRINTED]:
        weight = [f"{row['weight']:.3g}"] if "weight" in row else []
        table.add_row(Text(row["class"]), f"{100 * row['share']:.2f} %", *weight)
    console = get_console()
    console.print(table)
    if len(rows) > MAX_PRINTED:
        console.print(f"and {len(rows) - MAX_PRINTED} rarer classes, in class_shares.csv")
