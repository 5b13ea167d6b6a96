"""One trial: from a composed config to a folder with everything about it."""

import logging
import os
import platform
import sys
import time
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from hydra.core.hydra_config import HydraConfig
from hydra.errors import InstantiationException
from hydra.types import RunMode
from hydra.utils import get_class, instantiate
from omegaconf import DictConfig
from pytorch_lightning import Callback
from pytorch_lightning.loggers import TensorBoardLogger
from pytorch_lightning.utilities.exceptions import SIGTERMException
from pytorch_lightning.utilities.rank_zero import rank_zero_only

from cv_lab.callbacks.class_shares import ClassShares
from cv_lab.callbacks.diagnostics import Diagnostics, remedies_in_use
from cv_lab.callbacks.finite import RequireFiniteLoss
from cv_lab.callbacks.history import EpochHistory
from cv_lab.callbacks.reseed import ReseedEachEpoch
from cv_lab.callbacks.timing import Timing, peak_memory_mb
from cv_lab.config import split_override
from cv_lab.data.base import ImageData
from cv_lab.data.memory import keep_large_blocks
from cv_lab.files import write_json
from cv_lab.frozen.features import with_features
from cv_lab.models.backbones import preprocessing_of
from cv_lab.pictures.tensorboard import add_hyperparameters
from cv_lab.report.terminal import print_trial
from cv_lab.study.read import Entry
from cv_lab.study.record import SCHEMA, BusyError, OccupiedError, Standing, TrialRecord, failed_value
from cv_lab.study.trials import read_trial
from cv_lab.tasks.base import Task
from cv_lab.tasks.linear_probing import LinearProbing
from cv_lab.tasks.transfer import Transfer
from cv_lab.training.seeds import seed_all
from cv_lab.trial.build import build_task
from cv_lab.trial.checkpoint import AtomicCheckpointIO, StayStopped, best_and_last
from cv_lab.trial.shared_heads import share_heads
from cv_lab.trial.trainer import check_limits, check_settings, make_trainer

log = logging.getLogger(__name__)
VISIBLE = "CUDA_VISIBLE_DEVICES"
# Its hints at every start and stop say nothing of the trial; it sets its own level when imported.
logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
logging.getLogger("lightning_fabric").setLevel(logging.WARNING)


def run_trial(config: DictConfig) -> float:
    """Train, test and record one trial.

    A trial that its folder holds as completed is not run again; one that was killed or interrupted is continued from
    its last checkpoint.

    Returns:
        The best value of the task's monitored metric; :func:`~cv_lab.study.record.failed_value` if the trial
        failed as one of a multirun, whose other trials shall run on.

    Raises:
        SystemExit: if the trial failed in a single run (code 1), or was interrupted (130 by Ctrl-C, 143 by SIGTERM).
    """
    keep_large_blocks()
    first = rank_zero_only.rank == 0  # type: ignore[attr-defined]  # of the processes that train one network
    if not first:
        log.setLevel(logging.ERROR)
    record = TrialRecord(config, write=first)
    try:
        standing = record.open()
    except (OccupiedError, BusyError) as error:
        return _give_up(error)  # and leave the other trial's files alone
    if standing is Standing.COMPLETED:
        trial = read_trial(record.folder)
        assert trial.result is not None
        log.info("%s: %s", os.path.relpath(record.folder), standing)
        result = trial.result
    else:
        try:
            with visible_gpus(config.trainer.accelerator):
                result = _train_and_test(config, record, standing)
            if first:
                write_json(record.folder / "result.json", result)
            record.close("completed")
        except (KeyboardInterrupt, SystemExit) as error:  # Lightning turns Ctrl-C and SIGTERM into SystemExit
            record.close("interrupted")
            log.error("interrupted; the last checkpoint is kept in %s", record.folder)
            sys.exit(143 if isinstance(error, SIGTERMException) else 130)
        except Exception as error:
            try:
                record.close("failed", error)
            except OSError as full:  # the disk, most likely, which may be why the trial failed
                log.error("error: the trial's end could not be recorded: %s", full)
            return _give_up(error, record.folder)
    if HydraConfig.get().mode == RunMode.RUN and first:
        print_trial(Entry(record.folder, record.fields, result, epochs=[]))
    best = result["monitor"]["best"]
    return failed_value(HydraConfig.get()) if best is None else float(best)


def _give_up(error: Exception, folder: Path | None = None) -> float:
    """Tell the user why, in one message; the traceback goes to the log file."""
    if isinstance(error, InstantiationException) and isinstance(error.__cause__, Exception):
        error = error.__cause__  # Hydra's wrapper buries the message
    log.error("error: %s", error)
    log.debug("".join(traceback.format_exception(error)))
    if folder is not None:
        log.error("The traceback is in %s", folder / "train.log")
    if HydraConfig.get().mode == RunMode.MULTIRUN:
        return failed_value(HydraConfig.get())
    sys.exit(1)


def _train_and_test(config: DictConfig, record: TrialRecord, standing: Standing) -> dict[str, Any]:
    """Run the trial and return the content of ``result.json``."""
    _silence_warnings()
    check_settings(config)
    seed_all(config.seed, torch.device("cpu"))  # where networks are made
    os.environ["PL_GLOBAL_SEED"] = str(config.seed)  # which Lightning seeds its own shuffling with
    data, task = _data_and_task(config)
    history, timing = EpochHistory(record.folder / "metrics.csv"), Timing()
    diagnostics = Diagnostics(history, remedies_in_use(config, HydraConfig.get().runtime.choices))
    best_checkpoint, last_checkpoint = best_and_last(record.folder / "checkpoints", task.monitor, task.mode)
    last, log_from = _continue_from(record, standing)
    chosen = [*(instantiate(config.callbacks) or {}).values(), instantiate(config.pictures)]
    trainer = make_trainer(
        config,
        task,
        [ClassShares(record.folder), ReseedEachEpoch(config.seed), RequireFiniteLoss(), timing, StayStopped()]
        + [_bind(callback, task) for callback in chosen if callback is not None]
        + [history, diagnostics, best_checkpoint, last_checkpoint],
        precision=resolve_precision(config.precision, config.trainer.accelerator),
        logger=_logger(config, log_from),
        plugins=[AtomicCheckpointIO()],
    )
    check_limits(trainer, data)
    if trainer.world_size > 1 and HydraConfig.get().mode == RunMode.MULTIRUN:
        raise ValueError(
            f"a trial of a study runs on one device, but trainer.devices={config.trainer.devices} gives it "
            f"{trainer.world_size}: Lightning would start the others by running the whole study again. Leave it at 1 "
            "and give jobs=N, one trial on each GPU, or train the trials by commands of their own, without -m"
        )
    record.update(device=device_name(trainer.strategy.root_device), precision_used=trainer.precision)
    sizes = {split: len(getattr(data, split)) for split in ("train", "val", "test")}
    parameters = {
        "trained": sum(p.numel() for p in task.model.parameters() if p.requires_grad),
        "total": sum(p.numel() for p in task.model.parameters()),
    }
    log.info("%s", Path(os.path.relpath(record.folder)))
    log.info(
        "%s %s, %s / %s / %s images to train on, validate and test, %s parameters to train, on %s",
        *(
            len(task.classes),
            "class" if len(task.classes) == 1 else "classes",
            *sizes.values(),
            f"{parameters['trained']:,}",
            record.fields["device"],
        ),
    )
    own, size = tuple(data.val.images.shape[2:]), tuple(data.normalise(data.val.images[:1]).shape)
    scaled = "" if size[2:] == own else f", scaled to {size[2]} x {size[3]} for the network"
    log.info("images of %s x %s pixels%s", *own, scaled)
    features = None
    if isinstance(task, Transfer):
        network = str(config.model.get("name", config.model._target_))
        data, features = with_features(data, task, trainer, network, Path(config.cache_dir), config.cache)
    if isinstance(task, LinearProbing) and task.together and last is None:
        share_heads(task, data, trainer, config)
    operations = task.flops(size) if features is None else features.flops
    if config.trainer.compile:
        task.compile_network()

    if last is not None:
        log.info("continued from %s", os.path.relpath(last))
    trainer.fit(task, data, ckpt_path=last, weights_only=True)
    if isinstance(task, LinearProbing) and task.heads is not None:
        share = task.heads.seconds / len(task.heads)
        timing.add(share, counted=task.heads.seconds if task.heads.computed else 0.0)
    sign = 1 if task.mode == "max" else -1
    best = max(history.rows, key=lambda row: sign * row[task.monitor])
    # Everything of the training is read before the test, which sets the callbacks back to the best checkpoint.
    result: dict[str, Any] = {
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
        "last": history.rows[-1],
        "findings": diagnostics.findings,
        "images": sizes,
        "seconds": {"fit": timing.fit_seconds, "epochs": timing.epoch_seconds},
        "images_per_second": timing.images / timing.train_seconds,
        "parameters": parameters,
        "flops_per_image": operations,
    }
    if features is not None:
        # The pass is for all trials that use its features; none of them counts it as its own.
        result["seconds"]["features"] = features.seconds
        result["features_computed"] = features.computed
    start = time.perf_counter()
    (tested,) = trainer.test(task, data, ckpt_path=best_checkpoint.best_model_path, verbose=False, weights_only=True)
    result["metrics"] = {**best, **tested}
    result["seconds"]["test"] = time.perf_counter() - start
    result["peak_memory_mb"] = peak_memory_mb(trainer.strategy.root_device)
    asked = [split_override(override)[0] for override in record.fields["overrides"]]
    metrics = result["metrics"]
    first = [f"{split}/{task.monitor.partition('/')[2]}" for split in ("val", "test", "train")]
    final = {name: metrics[name] for name in (*first, *metrics) if "/" in name and name in metrics}
    step = int(result["last"]["step"])  # at 0, their default, they would bend the curves back to the start
    if trainer.is_global_zero:
        add_hyperparameters(trainer, record.fields["parameters"], asked, final, step)
    for logger in trainer.loggers:
        logger.finalize("success")
    return result


def _silence_warnings() -> None:
    """Of Lightning, about what is so on purpose."""
    for message in (
        "does not have many workers",  # data lies in memory: workers would only cost
        "smaller than the logging interval",  # steps log nothing anyway
        "exists and is not empty",  # the folder was made for this trial
        "sync_dist=True",  # torchmetrics has reduced over processes already
        "LeafSpec",  # Lightning 2.6 on torch 2.14; nothing that a user could change
        "in eval mode at the start of training",  # what is frozen shall be
    ):
        warnings.filterwarnings("ignore", f".*{message}.*")


def _data_and_task(config: DictConfig) -> tuple[ImageData, Task]:
    """The data, set up, and the task with the weights that it starts from."""
    # The network comes first: photographs are decoded at its size.
    data: ImageData = instantiate(config.data, _partial_=True)(
        preprocessing=preprocessing_of(instantiate(config.model))
    )
    kind: type[Task] = get_class(config.task._target_)
    data.choose_target(kind.target, kind.__name__)
    data.prepare_data()  # here rather than in fit, since the network needs to know the classes
    data.setup()
    task = build_task(config, data.classes)
    # What images outside the data set must be turned into, for whoever loads a checkpoint.
    size = list(data.val.images.shape[2:])
    task.save_hyperparameters({"images": {"mean": list(data.mean), "std": list(data.std), "size": size}})
    return data, task


def _continue_from(record: TrialRecord, standing: Standing) -> tuple[Path | None, int | None]:
    """The checkpoint to go on from, if any, and the step from which on the log of an earlier attempt is void."""
    if standing is Standing.NEW:
        return None, None
    last = record.last_checkpoint
    saved = {} if last is None else torch.load(last, weights_only=True, mmap=True)
    if last is None or saved.get("together"):  # such epochs take no time, and are gone through again
        return None, 0
    return last, saved["global_step"] + 1  # metrics of an epoch lie at its last step, pictures one further


def _logger(config: DictConfig, log_from: int | None) -> Any:
    """The logger; TensorBoard's shall forget what an earlier attempt logged from step `log_from` on."""
    if config.logger is None:
        return False
    if log_from is None or not issubclass(get_class(config.logger._target_), TensorBoardLogger):
        return instantiate(config.logger)
    return instantiate(config.logger, purge_step=log_from)


def _bind(callback: Any, task: Task) -> Callback:
    """Give a callback that is still a partial (early stopping, say) the metric that its task is judged by."""
    return callback(monitor=task.monitor, mode=task.mode) if isinstance(callback, partial) else callback


@contextmanager
def visible_gpus(accelerator: str) -> Iterator[None]:
    """Hide all GPUs from a trial whose Lightning `accelerator` is "cpu".

    Lightning saves the random state of every GPU that it sees, and setting up CUDA for that takes memory on each.
    """
    before = os.environ.get(VISIBLE)
    if accelerator == "cpu":
        os.environ[VISIBLE] = ""
    try:
        yield
    finally:
        os.environ.pop(VISIBLE, None)
        if before is not None:
            os.environ[VISIBLE] = before


def resolve_precision(precision: str, accelerator: str) -> str:
    """`precision`, or for "auto" the fastest that Lightning's `accelerator` computes natively."""
    if precision != "auto":
        return precision
    if accelerator != "cpu" and torch.cuda.is_available():
        return "bf16-mixed" if torch.cuda.is_bf16_supported(including_emulation=False) else "16-mixed"
    # Without these instructions bfloat16 is emulated, ten times slower than float32.
    return "bf16-mixed" if torch.cpu._is_avx512_bf16_supported() else "32-true"


def device_name(device: torch.device) -> str:
    """The name of a GPU, or of the processor with the number of threads used."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    info = Path("/proc/cpuinfo")
    models = [line for line in info.read_text().splitlines() if line.startswith("model name")] if info.exists() else []
    name = models[0].partition(":")[2].strip() if models else platform.processor() or platform.machine()
    return f"{name}, {torch.get_num_threads()} threads"
