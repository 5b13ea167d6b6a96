"""The training and the test of one trial."""

import logging
import os
import time
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import torch
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from hydra.utils import instantiate
from omegaconf import DictConfig
from pytorch_lightning import Callback, Trainer
from pytorch_lightning.callbacks import ModelCheckpoint

from cv_lab.callbacks.class_shares import ClassShares
from cv_lab.callbacks.diagnostics import Diagnostics, remedies_in_use
from cv_lab.callbacks.evidence import TestEvidence
from cv_lab.callbacks.finite import RequireFiniteLoss
from cv_lab.callbacks.history import EpochHistory
from cv_lab.callbacks.reseed import ReseedEachEpoch
from cv_lab.callbacks.stopping import StopEarly
from cv_lab.callbacks.timing import Timing
from cv_lab.config import plain
from cv_lab.data.base import ImageData
from cv_lab.files import write_csv
from cv_lab.knobs import check_config
from cv_lab.study.pruning import is_hopeless
from cv_lab.study.record import FolderState, TrialRecord
from cv_lab.tasks.base import Task
from cv_lab.training.seeds import seed_all
from cv_lab.trial.arguments import check_arguments
from cv_lab.trial.build import build_data_and_task
from cv_lab.trial.checkpoint import AtomicCheckpointIO, StayStopped, best_and_last, load_checkpoint
from cv_lab.trial.hardware import device_name, resolve_precision
from cv_lab.trial.loggers import make_loggers
from cv_lab.trial.result import (
    Observers,
    add_test,
    image_counts,
    log_hyperparameters,
    parameter_counts,
    result_of_training,
)
from cv_lab.trial.stages import KeepTrunk, begin
from cv_lab.trial.trainer import check_limits, check_settings, make_trainer

log = logging.getLogger(__name__)


def train_and_test(config: DictConfig, record: TrialRecord, standing: FolderState) -> dict[str, Any] | None:
    """Run a trial and return the content of its ``result.json``; None if it was paused or pruned.

    Args:
        config: the composed config.
        record: of the trial's folder.
        standing: what the folder held.

    Raises:
        ValueError: if the config asks for what cannot be done.
        NonFiniteLossError: if the training loss became NaN or infinite.
    """
    _silence_warnings()
    if not HydraConfig.get().launcher.get("planned"):  # the launcher of a study has checked all of its trials
        check_config(config, HydraConfig.get())
        check_arguments(plain(config))
    check_settings(config)
    seed_all(config.seed, torch.device("cpu"))  # where networks are made
    os.environ["PL_GLOBAL_SEED"] = str(config.seed)  # which Lightning seeds its own shuffling with
    data, task = build_data_and_task(config)
    if config.monitor is not None:
        task.judge_by(config.monitor)
        check_judged_class(data, config.monitor)
    checkpoint, log_from = _continue_from(record, standing, config, task)
    observers = _observers(config, record)
    best, last = best_and_last(record.folder / "checkpoints", task.monitor, task.mode)
    stop = StopEarly(observers.history, partial(_stopped_as, record))
    trainer = _trainer(config, record, task, observers, (best, last, stop), log_from)
    check_limits(trainer, data)
    _refuse_many_devices(trainer, config)
    record.update(
        device=device_name(trainer.strategy.root_device),
        precision_used=trainer.precision,
        problems=data.problems,
        monitor={"name": task.monitor, "mode": task.mode},
    )
    if data.problem_files:
        write_csv(record.folder / "problems.csv", data.problem_files)
    size = tuple(data.normalise(data.val.images[:1]).shape)
    _describe(record, data, task, size)
    data = task.prepare(data, trainer, config, resumed=checkpoint is not None)
    # Gradual unfreezing changes what trains, so the parameters are counted here.
    facts = {"parameters": parameter_counts(task), **task.facts(size)}
    if config.trainer.compile:
        task.compile_network()

    if checkpoint is not None:
        log.info("continued from %s", os.path.relpath(checkpoint))
    trainer.fit(task, data, ckpt_path=checkpoint, weights_only=True)
    if stop.status is not None:
        log.info("%s after epoch %d of %d", stop.status, trainer.current_epoch, config.epochs)
        record.close(stop.status)
        return None
    observers.timing.add(*task.shared_seconds())
    # Everything of the training is read before the test, which sets the callbacks back to the best checkpoint.
    result = result_of_training(task, data, observers, facts)
    start = time.perf_counter()
    trainer.test(task, data, ckpt_path=best.best_model_path, verbose=False, weights_only=True)
    tested = {name: value.item() for name, value in trainer.callback_metrics.items()}
    add_test(result, task, tested, time.perf_counter() - start, trainer.strategy.root_device)
    log_hyperparameters(trainer, task, record, result)
    return result


def check_judged_class(data: ImageData, monitor: str) -> None:
    """Refuse a ``monitor`` of one class, ``val/NAME/CLASS``, that no validation image has: no epoch would be the best.

    Raises:
        ValueError: says so.
    """
    name = monitor.split("/", 2)[-1]
    if monitor.count("/") > 1 and data.val.class_counts().counts[data.classes.index(name)] == 0:
        raise ValueError(f"monitor={monitor}: no validation image has {name}, so that nothing would choose the epoch")


def _observers(config: DictConfig, record: TrialRecord) -> Observers:
    timing = Timing()
    history = EpochHistory(record.folder / "metrics.csv", timing, replay=record.began_from_another)
    diagnostics = Diagnostics(history, remedies_in_use(config, HydraConfig.get().runtime.choices))
    return Observers(history, timing, diagnostics)


def _trainer(
    config: DictConfig,
    record: TrialRecord,
    task: Task,
    observers: Observers,
    checkpoints: tuple[ModelCheckpoint, ModelCheckpoint, StopEarly],
    log_from: int | None,
) -> Trainer:
    """The trainer with its callbacks, whose order matters: see :class:`EpochHistory` and :class:`Diagnostics`."""
    chosen = [*(instantiate(config.callbacks) or {}).values(), instantiate(config.pictures)]
    own: list[Callback] = [
        ClassShares(record.folder),
        TestEvidence(record.folder),
        ReseedEachEpoch(config.seed),
        RequireFiniteLoss(),
    ]
    return make_trainer(
        config,
        task,
        [*own, observers.timing, StayStopped()]
        + [_bind(callback, task) for callback in chosen if callback is not None]
        + [
            observers.history,
            observers.diagnostics,
            *checkpoints,
            KeepTrunk(record.folder / "checkpoints", plain(config)),
        ],
        precision=resolve_precision(config.precision, config.trainer.accelerator),
        logger=make_loggers(config, log_from),
        plugins=[AtomicCheckpointIO()],
    )


def _stopped_as(record: TrialRecord, rows: list[dict[str, float]]) -> str | None:
    """ "paused" or "pruned" if the study's launcher or its search wants the trial to stop after the last of `rows`."""
    launcher = HydraConfig.get().launcher
    pause_after, pruner = launcher.get("pause_after"), launcher.get("pruner")
    if pause_after is not None and len(rows) >= pause_after:
        return "paused"
    if pruner is not None and is_hopeless(pruner, rows, record.folder, record.fields):
        return "pruned"
    return None


def _refuse_many_devices(trainer: Trainer, config: DictConfig) -> None:
    if trainer.world_size > 1 and HydraConfig.get().mode == RunMode.MULTIRUN:
        raise ValueError(
            f"a trial of a study runs on one device, but trainer.devices={config.trainer.devices} gives it "
            f"{trainer.world_size}: Lightning would start the others by running the whole study again. Leave it at 1 "
            "and give jobs=N, one trial on each GPU, or train the trials by commands of their own, without -m"
        )


def _describe(record: TrialRecord, data: ImageData, task: Task, size: tuple[int, ...]) -> None:
    """Log what is about to be trained, and on what."""
    count = len(task.classes)
    log.info("%s", Path(os.path.relpath(record.folder)))
    log.info(
        "%s %s, %s / %s / %s images to train on, validate and test, %s parameters to train, on %s",
        count,
        "class" if count == 1 else "classes",
        *image_counts(data).values(),
        f"{parameter_counts(task)['trained']:,}",
        record.fields["device"],
    )
    own = tuple(data.val.images.shape[2:])
    scaled = "" if size[2:] == own else f", scaled to {size[2]} x {size[3]} for the network"
    log.info("images of %s x %s pixels%s", *own, scaled)


def _silence_warnings() -> None:
    """Silence warnings of Lightning about what a trial does on purpose."""
    for message in (
        "does not have many workers",  # data lies in memory: workers would only cost
        "smaller than the logging interval",  # steps log nothing anyway
        "exists and is not empty",  # the folder was made for this trial
        "sync_dist=True",  # torchmetrics has reduced over processes already
        "LeafSpec",  # Lightning 2.6 on torch 2.14; nothing that a user could change
        "in eval mode at the start of training",  # frozen parts are
    ):
        warnings.filterwarnings("ignore", f".*{message}.*")


def _continue_from(
    record: TrialRecord, standing: FolderState, config: DictConfig, task: Task
) -> tuple[Path | None, int | None]:
    """The checkpoint to continue from, if any, and the step from which an earlier attempt's log is discarded.

    Another trial of the study, which differs in its number of epochs alone, may have come further than this one.
    """
    saved = {}
    if standing is FolderState.CONTINUED and record.last_checkpoint is not None:
        saved = load_checkpoint(record.last_checkpoint)
        if saved.get("together"):  # such epochs take no time, and are gone through again
            return None, 0
    if record.write:
        begin(record, config, task.hparams, done=int(saved.get("epoch", -1)) + 1)
    last = record.last_checkpoint
    if record.began_from_another:  # whose log has more than the epochs
        return last, 0
    if last is None:
        return None, None if standing is FolderState.NEW else 0
    return last, saved["global_step"] + 1  # metrics and pictures of an epoch lie at its last step


def _bind(callback: Any, task: Task) -> Callback:
    """Give a callback that is still a partial (early stopping, say) the metric that its task is judged by."""
    return callback(monitor=task.monitor, mode=task.mode) if isinstance(callback, partial) else callback
