"""Write what the test says of each image: ``test.npz`` and ``test.csv``."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pytorch_lightning import Callback, Trainer

from cv_lab.files import replacing, write_csv
from cv_lab.tasks.base import Task
from cv_lab.training.evidence import Arrays


class TestEvidence(Callback):
    """After the test, write the task's evidence of each image into the trial's folder.

    ``test.npz`` holds the arrays of :class:`~cv_lab.training.evidence.ClassEvidence` or
    :class:`~cv_lab.training.evidence.PixelEvidence`, with "index" and, where the data set names its images, "files".
    ``test.csv`` holds the same with the names of the classes, the worst images first. Tasks without such evidence get
    no files.

    Args:
        folder: the trial's.
    """

    __test__ = False  # pytest takes classes of such names for tests

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_test_epoch_end(self, trainer: Trainer, task: Task) -> None:  # type: ignore[override]
        arrays = task.evidence()  # gathered from all processes
        if not arrays or not trainer.is_global_zero:
            return
        with replacing(self.folder / "test.npz") as temporary, open(temporary, "wb") as file:
            np.savez_compressed(file, **arrays)  # type: ignore[arg-type]  # names are no option of it
        write_csv(self.folder / "test.csv", _rows(arrays, task.classes))


def _rows(arrays: Arrays, classes: Sequence[str]) -> list[dict[str, Any]]:
    """One row per image, by falling loss or rising mean IoU."""
    names = {"file": arrays["files"].tolist()} if "files" in arrays else {}
    columns: dict[str, list[Any]] = {"index": arrays["index"].tolist(), **names}
    if "loss" in arrays:
        order = np.argsort(-arrays["loss"], kind="stable")
        columns |= {name: [classes[k] for k in arrays[name]] for name in ("truth", "prediction")}
        columns |= {name: arrays[name].tolist() for name in ("p_truth", "p_prediction", "loss")}
    else:
        with np.errstate(invalid="ignore"):
            each = arrays["intersection"] / arrays["union"]  # NaN for a class in neither truth nor prediction
        known = np.isfinite(each)
        mean = np.where(known, each, 0).sum(1) / np.maximum(known.sum(1), 1)
        order = np.argsort(mean, kind="stable")
        columns["mean_iou"] = [m if k else None for m, k in zip(mean.tolist(), known.sum(1).tolist(), strict=True)]
        columns |= {
            f"iou/{name}": [value if np.isfinite(value) else None for value in each[:, k].tolist()]
            for k, name in enumerate(classes)
        }
    return [{name: values[i] for name, values in columns.items()} for i in order.tolist()]
