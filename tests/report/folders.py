"""Trial folders as trials write them, made up in a moment."""

import math
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from cv_lab.files import read_json, write_csv, write_json

PARAMETERS = {"data": "shapes", "task": "classification", "model": "small_cnn", "lr": 0.001, "epochs": 5, "seed": 1}


def make_trial(
    study: Path,
    name: str,
    best: float | None = 0.5,
    status: str = "completed",
    parameters: dict[str, Any] | None = None,
    values: list[float] | None = None,
    train_loss: list[float] | None = None,
    val_loss: list[float] | None = None,
    monitor: str = "val/accuracy",
    metrics: dict[str, float] | None = None,
    seconds: float = 10.0,
    error: dict[str, str] | None = None,
    **result: Any,
) -> Path:
    """Write the folder of a trial and return it.

    Args:
        study: folder of the study.
        name: of the trial.
        best: best value of the monitored metric; None leaves out ``result.json``.
        status: of ``trial.json``.
        parameters: beside the usual ones.
        values: of the monitored metric by epoch; by default they rise to `best`.
        train_loss: by epoch.
        val_loss: by epoch.
        monitor: name of the monitored metric.
        metrics: beside the usual ones.
        seconds: of training.
        error: of ``trial.json``.
        result: further fields of ``result.json``.
    """
    folder = study / name
    metric = monitor.partition("/")[2]
    top = 0.4 if best is None else best
    values = values or [top * (1 - 0.5 ** (epoch + 2)) / (1 - 0.5**6) for epoch in range(5)]
    train_loss = train_loss or [-math.log(max(value, 0.01)) for value in values]
    val_loss = val_loss or [loss + 0.1 for loss in train_loss]
    rows = [
        {"epoch": i, "train/loss": a, "val/loss": b, f"train/{metric}": min(1.0, v * 1.05), monitor: v}
        for i, (a, b, v) in enumerate(zip(train_loss, val_loss, values, strict=True), 1)
    ]
    write_csv(folder / "metrics.csv", rows)
    record = {
        "schema": 1,
        "identity": name,
        "status": status,
        "start": "2026-01-02T03:04:05+00:00",
        "end": None if status == "running" else "2026-01-02T03:05:05+00:00",
        "name": name,
        "host": "elsewhere",  # where nobody can tell whether the process is alive
        "pid": 1,
        "pid_start": 1,
        "parameters": PARAMETERS | (parameters or {}),
        "device": "a processor",
        "git_commit": "0123456789abcdef",
        "git_dirty": False,
        "error": error,
    }
    write_json(folder / "trial.json", record)
    if best is not None:
        epoch = values.index(max(values)) + 1
        written = {
            "schema": 1,
            "classes": ["cat", "dog"],
            "monitor": {"name": monitor, "mode": "max", "best": best, "epoch": epoch, "validation": "split"},
            "metrics": rows[epoch - 1] | {f"test/{metric}": best - 0.01} | (metrics or {}),
            "units": {monitor: {"unit": "share", "mode": "max"}},
            "seconds": {"fit": seconds, "epochs": [seconds / len(rows)] * len(rows), "test": 1.0},
            "images_per_second": 1234.5,
            "parameters": {"trained": 1000, "total": 2_000_000},
            "flops_per_image": 3_000_000,
            "peak_memory_mb": 512.0,
        }
        written["units"] = units_of(written["metrics"])
        write_json(folder / "result.json", written | result)
    return folder


def units_of(metrics: dict[str, float]) -> dict[str, dict[str, str]]:
    """Units as tasks declare them: losses are plain numbers, all other metrics shares."""
    plain = {name for name in metrics if name.endswith(("loss", "cross_entropy"))}
    return {
        name: {"unit": "plain", "mode": "min"} if name in plain else {"unit": "share", "mode": "max"}
        for name in metrics
        if "/" in name
    }


def add_predictions(folder: Path, counts: list[list[int]], classes: list[str]) -> None:
    """Add a gallery and a confusion matrix to a trial's folder."""
    rows = [{"truth": c, **dict(zip(classes, row, strict=True))} for c, row in zip(classes, counts, strict=True)]
    write_csv(folder / "predictions" / "confusion_matrix.csv", rows)
    noise = np.random.default_rng(0).integers(0, 256, (90, 160, 3), dtype=np.uint8)
    Image.fromarray(noise).save(folder / "predictions" / "gallery.png")


def add_test(folder: Path, truth: list[int], wrong: Collection[int], classes: tuple[str, ...] = ("cat", "dog")) -> None:
    """Add what the test of a classifier says of each image, and the accuracy of that to its result.

    Args:
        folder: of the trial.
        truth: class of each image, 0 or 1.
        wrong: indices of the images that the classifier takes for the other class.
        classes: names.
    """
    answers = [1 - t if i in set(wrong) else t for i, t in enumerate(truth)]
    np.savez(folder / "test.npz", truth=np.array(truth), prediction=np.array(answers))
    result = read_json(folder / "result.json")
    accuracy = sum(a == t for a, t in zip(answers, truth, strict=True)) / len(truth)
    metrics = result["metrics"] | {"test/accuracy": accuracy}
    write_json(folder / "result.json", result | {"metrics": metrics, "classes": list(classes)})


def failed(message: str, kind: str = "FloatingPointError") -> dict[str, str]:
    """The error of a failed trial."""
    return {"type": kind, "message": message, "traceback": f"Traceback (most recent call last):\n{kind}: {message}"}
