"""What a trial leaves in ``result.json``, and in TensorBoard's table of trials."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from pytorch_lightning import Trainer

from cv_lab.callbacks.diagnostics import Diagnostics
from cv_lab.callbacks.history import EpochHistory
from cv_lab.callbacks.timing import Timing
from cv_lab.config import split_override
from cv_lab.data.base import ImageData
from cv_lab.models.weights import weights_hash
from cv_lab.pictures.tensorboard import add_hyperparameters, final_step
from cv_lab.study.record import SCHEMA, TrialRecord
from cv_lab.tasks.base import Task
from cv_lab.trial.hardware import peak_memory_mb


@dataclass(frozen=True)
class Observers:
    """The callbacks that a trial's result is read from."""

    history: EpochHistory
    timing: Timing
    diagnostics: Diagnostics


def result_of_training(task: Task, data: ImageData, observers: Observers, facts: dict[str, Any]) -> dict[str, Any]:
    """The result of a trial that has been trained but not tested.

    Args:
        task: the trained one.
        data: that it was trained on.
        observers: of the training.
        facts: entries from before the training, with those of :meth:`~cv_lab.tasks.base.Task.facts`.
    """
    rows, timing = observers.history.rows, observers.timing
    sign = 1 if task.mode == "max" else -1
    best = max(rows, key=lambda row: -math.inf if math.isnan(row[task.monitor]) else sign * row[task.monitor])
    seconds = {"fit": timing.fit_seconds, "epochs": timing.epoch_seconds} | facts.get("seconds", {})
    return {
        "schema": SCHEMA,
        "task": type(task).__name__,
        "classes": list(task.classes),
        "monitor": {
            "name": task.monitor,
            "mode": task.mode,
            "best": best[task.monitor],
            "epoch": best["epoch"],
            "validation": data.validation,
        },
        "metrics": best,
        "last": rows[-1],
        "findings": observers.diagnostics.findings,
        "images": image_counts(data),
        "images_per_second": timing.images / timing.train_seconds,
        **facts,
        "seconds": seconds,
    }


def add_test(
    result: dict[str, Any], task: Task, tested: Mapping[str, float], seconds: float, device: torch.device
) -> None:
    """Add what the test of the best checkpoint gave to a `result` of :func:`result_of_training`.

    Args:
        result: is changed.
        task: knows the units of its metrics.
        tested: metrics of the test.
        seconds: of the test.
        device: that the trial ran on.
    """
    result["metrics"] = {**result["metrics"], **tested}
    units = {name: task.unit_of(name) for name in result["metrics"]}
    result["units"] = {name: unit._asdict() for name, unit in units.items() if unit is not None}
    result["seconds"]["test"] = seconds
    result["weights_sha256"] = weights_hash(task.model)  # as tested, those of the best checkpoint
    result["peak_memory_mb"] = peak_memory_mb(device)


def log_hyperparameters(trainer: Trainer, task: Task, record: TrialRecord, result: dict[str, Any]) -> None:
    """Log the trial's parameters with its final metrics, the monitored one first, and close the loggers."""
    asked = [split_override(override)[0] for override in record.fields["overrides"]]
    metrics = result["metrics"]
    monitored = [f"{split}/{task.monitor.partition('/')[2]}" for split in ("val", "test", "train")]
    final = {name: metrics[name] for name in (*monitored, *metrics) if "/" in name and name in metrics}
    if trainer.is_global_zero:
        add_hyperparameters(trainer, record.fields["parameters"], asked, final, final_step(task))
    for logger in trainer.loggers:
        logger.finalize("success")


def image_counts(data: ImageData) -> dict[str, int]:
    """Images of each split."""
    return {split: len(getattr(data, split)) for split in ("train", "val", "test")}


def parameter_counts(task: Task) -> dict[str, int]:
    """Parameters of the network: those that are trained, and all."""
    parameters = list(task.model.parameters())
    return {
        "trained": sum(p.numel() for p in parameters if p.requires_grad),
        "total": sum(p.numel() for p in parameters),
    }
