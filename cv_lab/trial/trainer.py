"""Lightning's trainer as a trial needs it, and the settings of it that a trial refuses."""

import math
from collections.abc import Sequence
from typing import Any

from hydra.utils import instantiate
from omegaconf import DictConfig
from pytorch_lightning import Callback, Trainer
from pytorch_lightning.callbacks import ProgressBar, WeightAveraging
from pytorch_lightning.strategies import DDPStrategy
from pytorch_lightning.strategies.launchers.multiprocessing import _MultiProcessingLauncher

from cv_lab.config import plain
from cv_lab.data.base import ImageData
from cv_lab.data.in_memory import train_batch_size
from cv_lab.tasks.base import Task

# What the trial gives the trainer itself, and where a user chooses it.
CHOSEN_ELSEWHERE = {
    "precision": "give precision=... without trainer.",
    "logger": "give logger=... without trainer.",
    "callbacks": "give callbacks=... without trainer.",
    "plugins": "a trial needs its own, which writes checkpoints whole or not at all",
    "use_distributed_sampler": "the data divide themselves among the processes",
}
LIMITS = ("limit_train_batches", "limit_val_batches", "limit_test_batches")
PRECISIONS = ("32-true", "bf16-mixed", "16-mixed", "64-true", "bf16-true")


def check_settings(config: DictConfig) -> None:
    """Refuse what cannot lead to a tested best checkpoint; before any data is loaded.

    Every epoch of a trial ends with a validation of the whole network that is then saved, the best epoch is chosen by
    it, and its checkpoint is tested.

    Raises:
        ValueError: if ``config.epochs`` or a setting of ``config.trainer`` is not compatible with that.
    """
    if config.epochs < 1:
        raise ValueError(f"epochs={config.epochs} trains nothing: give at least 1")
    given: dict[str, Any] = plain(config.trainer)
    if not isinstance(given["compile"], bool):
        raise ValueError(f"trainer.compile={given['compile']} is not known: give true or false")
    for name, remedy in CHOSEN_ELSEWHERE.items():
        if name in given:
            raise ValueError(f"trainer.{name} has no effect in a trial: {remedy}")
    within = "ends the training within an epoch: give epochs=N, or shorter epochs with trainer.limit_train_batches=N"
    unsaved = "saves no checkpoint that could be tested"
    allowed: dict[str, tuple[tuple[Any, ...], str]] = {
        "max_epochs": ((config.epochs,), f"is not epochs={config.epochs}: give epochs=N alone"),
        "max_steps": ((-1,), within),
        "max_time": ((None,), within),
        "fast_dev_run": ((False, 0), f"{unsaved}: give debug=one_batch"),
        "enable_checkpointing": ((None, True), f"{unsaved}: leave it out"),
        "check_val_every_n_epoch": ((1,), "leaves epochs without a validation, which chooses the best: leave it out"),
        "val_check_interval": (
            (None, 1.0),  # as a whole number, 1 is one batch
            "validates other weights than those saved when the epoch ends: leave it out",
        ),
    }
    for name, (values, why) in allowed.items():
        if name in given and str(given[name]) not in map(str, values):
            raise ValueError(f"trainer.{name}={given[name]} {why}")
    for name in LIMITS:
        if given[name] == 0:
            raise ValueError(f"trainer.{name}=0 leaves no batch: give at least 1, or null for all")
    if given["accumulate_grad_batches"] < 1:
        raise ValueError(
            f"trainer.accumulate_grad_batches={given['accumulate_grad_batches']} makes no step: give at least 1"
        )


def make_trainer(config: DictConfig, task: Task, callbacks: Sequence[Callback], **options: Any) -> Trainer:
    """The trainer that ``config.trainer`` describes.

    Args:
        config: the trial's, checked by :func:`check_settings`.
        task: to be trained.
        callbacks: in their order; progress bars are left out with ``trainer.enable_progress_bar=false``.
        options: of Lightning's trainer.

    Raises:
        ValueError: if the precision or the strategy does not suit the task.
    """
    given = plain(config.trainer)
    del given["compile"]  # no option of Lightning's
    if given["enable_progress_bar"] is False:
        callbacks = [callback for callback in callbacks if not isinstance(callback, ProgressBar)]
    trainer: Trainer = instantiate(given)(callbacks=list(callbacks), use_distributed_sampler=False, **options)
    _check_precision(trainer, task)
    if trainer.world_size > 1:
        _check_processes(trainer)
        if task.unused_parameters:
            assert isinstance(trainer.strategy, DDPStrategy)
            trainer.strategy._ddp_kwargs.setdefault("find_unused_parameters", True)
    return trainer


def check_limits(trainer: Trainer, data: ImageData) -> None:
    """Refuse limits that leave a process no batch of a split; Lightning would only find out after the training.

    Raises:
        ValueError: if a share of the batches is less than one.
    """
    assert data.train is not None
    processes = trainer.world_size
    batches = {
        "train": len(data.train) // (train_batch_size(len(data.train), data.batch_size, processes) * processes),
        # Each process has a batch, if need be one without images.
        "val": max(1, math.ceil(len(data.val) / data.batch_size) // processes),
        "test": max(1, math.ceil(len(data.test) / data.batch_size) // processes),
    }
    for split, count in batches.items():
        limit = getattr(trainer, f"limit_{split}_batches")
        if isinstance(limit, float) and count > 0 and int(limit * count) == 0:
            raise ValueError(
                f"trainer.limit_{split}_batches={limit} of {count} {'batch' if count == 1 else 'batches'} is less than "
                "one batch: give a larger share, or a number of batches"
            )


def _check_precision(trainer: Trainer, task: Task) -> None:
    precision = trainer.precision
    if precision == "16-true":
        raise ValueError(
            "precision=16-true computes the updates in float16, where small gradients and Adam's epsilon are 0: give "
            "16-mixed or bf16-true"
        )
    if precision not in PRECISIONS:
        raise ValueError(f"precision={precision} is not supported: give one of {', '.join(PRECISIONS)}, or auto")
    if precision in task.refused_precisions:
        raise ValueError(f"precision={precision} does not work here: {task.refused_precisions[precision]}")
    averaged = any(isinstance(callback, WeightAveraging) for callback in trainer.callbacks)  # type: ignore[attr-defined]
    if precision == "bf16-true" and averaged:
        raise ValueError(
            "precision=bf16-true rounds away what a step adds to averaged weights: give bf16-mixed, or leave the "
            "average out of callbacks"
        )


def _check_processes(trainer: Trainer) -> None:
    if not isinstance(trainer.strategy, DDPStrategy):
        raise ValueError(
            f"trainer.strategy={type(trainer.strategy).__name__} does not give every process the whole network: "
            "give trainer=ddp"
        )
    if isinstance(trainer.strategy.launcher, _MultiProcessingLauncher):
        raise ValueError(
            "trainer.strategy starts processes from which no results come back: give trainer=ddp, which starts the "
            "command once more"
        )
    overfit: int | float = trainer.overfit_batches  # type: ignore[attr-defined]
    if overfit:
        raise ValueError(
            f"trainer.overfit_batches={overfit} gives all {trainer.world_size} processes the same batches: give "
            "trainer.devices=1"
        )
