"""Write what the test says of each image: ``test.npz`` and ``test.csv``."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pytorch_lightning import Callback, Trainer

from cv_lab.files import replacing, write_csv
from cv_lab.tasks.base import Task
from cv_lab.training.evidence import Arrays


class TestEvidence(Callback):
    """After the test, write the task's evidence of each image into the trial's folder.

    ``test.npz`` holds the arrays of the task's :meth:`~cv_lab.tasks.base.Task.evidence`, with "index" and, where images
    have files of their own, "files". ``test.csv`` holds the same with the names of the classes, the worst images first.

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
        if files := trainer.datamodule.files_of("test"):  # type: ignore[attr-defined]
            arrays["files"] = np.array(files)[arrays["index"]]
        with replacing(self.folder / "test.npz") as temporary, open(temporary, "wb") as file:
            np.savez_compressed(file, **arrays)  # type: ignore[arg-type]  # names are no option of it
        write_csv(self.folder / "test.csv", _rows(arrays, task.classes))


def worst_first(arrays: Arrays) -> NDArray[np.integer]:
    """Positions of images in arrays of evidence, the worst first: by loss, panoptic quality or mean IoU.

    Images that the class is right of are left out, and those that nothing can be wrong with.
    """
    if "truth" in arrays:
        badness = np.where(arrays["truth"] == arrays["prediction"], np.nan, arrays["p_prediction"])
    else:
        badness = arrays["loss"] if "loss" in arrays else -_quality(arrays)
    order = np.argsort(-badness, kind="stable")  # NaN last
    return order[np.isfinite(badness[order])]


def _quality(arrays: Arrays) -> NDArray[np.floating]:
    """Of each image the panoptic quality, or the mean over its classes of the IoU; NaN where it has neither."""
    if "quality" in arrays:
        return arrays["quality"]
    with np.errstate(invalid="ignore"):
        each = arrays["intersection"] / arrays["union"]  # NaN for a class in neither truth nor prediction
    known = np.isfinite(each)
    count = known.sum(1)
    return np.where(count > 0, np.where(known, each, 0).sum(1) / np.maximum(count, 1), np.nan)


def _rows(arrays: Arrays, classes: Sequence[str]) -> list[dict[str, Any]]:
    """One row per image, by falling loss or rising quality."""
    columns: dict[str, NDArray[Any]] = {"index": arrays["index"]}
    if "files" in arrays:
        columns["file"] = arrays["files"]
    if "truth" in arrays:
        columns |= {name: np.array(classes)[arrays[name]] for name in ("truth", "prediction")}
        columns |= {name: arrays[name] for name in ("p_truth", "p_prediction", "loss")}
    elif "labels" in arrays:
        columns["loss"] = arrays["loss"]
        for k, name in enumerate(classes):
            columns |= {
                f"{what}/{name}": arrays[of][:, k] for what, of in (("truth", "labels"), ("p", "probabilities"))
            }
    elif "quality" in arrays:
        columns |= {name: arrays[name] for name in ("objects", "found", "quality")}
    else:
        with np.errstate(invalid="ignore"):
            each = arrays["intersection"] / arrays["union"]
        columns |= {"mean_iou": _quality(arrays), **{f"iou/{name}": each[:, k] for k, name in enumerate(classes)}}
    order = np.argsort(-arrays["loss"] if "loss" in arrays else _quality(arrays), kind="stable")
    lists = {name: values[order].tolist() for name, values in columns.items()}
    return [
        {n: None if v != v else v for n, v in zip(lists, row, strict=True)} for row in zip(*lists.values(), strict=True)
    ]
