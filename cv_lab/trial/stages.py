"""Begin a trial from a shorter or longer one that is the same trial up to some epoch."""

import logging
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from hydra.core.hydra_config import HydraConfig
from hydra.utils import instantiate
from omegaconf import DictConfig
from pytorch_lightning import Trainer
from pytorch_lightning.callbacks import Checkpoint
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from cv_lab.config import plain
from cv_lab.files import replacing
from cv_lab.study.record import TrialRecord, UnreadableError, read_record, read_records
from cv_lab.study.stages import CHECKPOINTS, Agreements, families, family, why_not_from
from cv_lab.training.optimizers import optimizer_factory
from cv_lab.trial.checkpoint import DamagedCheckpointError, load_checkpoint

log = logging.getLogger(__name__)
# Callbacks that do nothing by the number of all epochs; others might, such as stochastic weight averaging.
KNOWN_CALLBACKS = (
    "cv_lab.callbacks.",
    "pytorch_lightning.callbacks.EarlyStopping",
    "pytorch_lightning.callbacks.GradientAccumulationScheduler",
    "pytorch_lightning.callbacks.LearningRateMonitor",
    "pytorch_lightning.callbacks.DeviceStatsMonitor",
)
SHARED_SCHEDULES = "scheduler=none does not, and scheduler=wsd only in its cooldown"
PLANNED_STEPS = 20  # in an epoch, where the data are not at hand


def agree(config: Mapping[str, Any], epochs: int, other: int, steps: int) -> tuple[int, str]:
    """Up to which epoch two trials that differ in their number of epochs alone have equal states.

    Args:
        config: of either, as plain values.
        epochs: of one.
        other: epochs of the other.
        steps: optimizer steps in an epoch.

    Returns:
        The last such epoch, 0 for none, and why it is not the end of the shorter trial; "" if it is.
    """
    shorter, longer = sorted((epochs, other))
    if why := _why_apart(config):
        return 0, why
    if config["scheduler"] is None:
        return shorter, ""
    agreed = -1
    courses = (_course(config, count * steps) for count in (shorter, longer))
    for step, ((group, schedule), (other_group, other_schedule)) in zip(
        range(shorter * steps + 1), zip(*courses, strict=True), strict=False
    ):
        # The rate of the next step is part of the state at the end of an epoch, and so is what the schedule counts.
        if group != other_group:
            break
        if step % steps == 0 and schedule.state_dict() == other_schedule.state_dict():
            agreed = step // steps
    if agreed == shorter:
        return agreed, ""
    name = config["scheduler"].get("_target_", "").rpartition(".")[2]
    until = f" after epoch {agreed}" if agreed > 0 else ""
    return max(agreed, 0), f"the schedule {name} depends on the number of epochs{until} ({SHARED_SCHEDULES})"


def agreements(wanted: Sequence[tuple[Mapping[str, Any], Sequence[int]]]) -> list[Agreements]:
    """For each config and numbers of epochs, up to where trials of such lengths agree.

    The number of steps in an epoch is taken as :data:`PLANNED_STEPS`; a trial asks again with its own.
    """
    known: dict[str, Agreements] = {}
    answers = []
    for config, lengths in wanted:
        parts = [config[part] for part in ("callbacks", "optimizer", "scheduler")]
        key = repr((parts, config["task"]["_target_"], lengths))
        if key not in known:
            known[key] = _agreements(config, sorted(lengths))
        answers.append(known[key])
    return answers


def begin(record: TrialRecord, config: DictConfig, hyper_parameters: Mapping[str, Any], done: int) -> bool:
    """Copy to a trial's folder the checkpoints of the sibling that is furthest along; return whether there was one.

    From then on the trial is one that continues. The last checkpoint comes last, so that one which is killed meanwhile
    looks for a sibling again.

    Args:
        record: of the trial.
        config: of the trial.
        hyper_parameters: of the trial's task, to which those of the checkpoint must be equal.
        done: epochs that the trial's own checkpoint has.
    """
    if len(HydraConfig.get().launcher.get("together") or ()) > 1:  # its head is trained with those of others
        return False
    found = None
    for folder in _siblings(record):
        for names in CHECKPOINTS:
            last, best = (folder / "checkpoints" / name for name in names)
            epoch = _usable(last, best, record, config, hyper_parameters)
            if epoch > done:
                found, done = (folder, last, best), epoch
    if found is None:
        return False
    folder, last, best = found
    _copy(best, record.folder / "checkpoints" / "best.ckpt")
    record.update(began_from={"name": folder.name, "epochs": done})
    _copy(last, record.folder / "checkpoints" / "last.ckpt")
    log.info("begins after epoch %d of %s, which is the same trial up to there", done, folder.name)
    return True


class KeepTrunk(Checkpoint):
    """Keep the checkpoint of the last epoch that longer trials share, if that is not the last of all.

    It must stand after the callbacks that write ``best.ckpt`` and ``last.ckpt`` in the list.

    Args:
        folder: of the checkpoints.
        config: of the trial, as plain values.
    """

    def __init__(self, folder: Path, config: Mapping[str, Any]) -> None:
        self.folder, self.config = folder, config
        self.epoch = 0

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        epochs = self.config["epochs"]
        steps = int(trainer.estimated_stepping_batches) // epochs
        self.epoch = agree(self.config, epochs, 2 * epochs, steps)[0]

    def on_train_epoch_end(self, trainer: Trainer, pl_module: Any) -> None:
        if trainer.is_global_zero and trainer.current_epoch + 1 == self.epoch < self.config["epochs"]:
            (last, best), (trunk, trunk_best) = CHECKPOINTS
            _copy(self.folder / best, self.folder / trunk_best)
            _copy(self.folder / last, self.folder / trunk)


def _agreements(config: Mapping[str, Any], lengths: Sequence[int]) -> Agreements:
    pairs = [(e, t) for i, e in enumerate(lengths) for t in lengths[i + 1 :]]
    try:
        of = {pair: agree(config, *pair, PLANNED_STEPS) for pair in pairs}
        trunk = {e: agree(config, e, 2 * e, PLANNED_STEPS)[0] for e in lengths}
    except ValueError as error:  # the trials themselves will fail by it
        return Agreements(dict.fromkeys(pairs, 0), dict.fromkeys(lengths, 0), str(error))
    why = next((why for _, why in of.values() if why), "")
    return Agreements({pair: epoch for pair, (epoch, _) in of.items()}, trunk, why)


def _why_apart(config: Mapping[str, Any]) -> str:
    """What may act by the number of all epochs in a way that cannot be looked into; "" for nothing."""
    for name, part in (config["callbacks"] or {}).items():
        if part and not part["_target_"].startswith(KNOWN_CALLBACKS):
            return f"callbacks.{name} may act by the number of epochs"
    if not config["task"]["_target_"].startswith("cv_lab."):
        return f"task {config['task']['_target_']} may act by the number of epochs"
    return ""


def _course(config: Mapping[str, Any], total_steps: int) -> Iterator[tuple[list[dict[str, Any]], LRScheduler]]:
    """What the optimizer is set to before each step, learning rate and all, with the schedule."""
    make = optimizer_factory(config["optimizer"])
    optimizer: Optimizer = make([{"params": [nn.Parameter(torch.zeros(1, 1))]}])
    schedule = instantiate(config["scheduler"])(optimizer, total_steps=total_steps)
    while True:
        yield [{k: v for k, v in group.items() if k != "params"} for group in optimizer.param_groups], schedule
        optimizer.step()  # changes nothing without gradients
        schedule.step()


def _siblings(record: TrialRecord) -> list[Path]:
    """The folders of trials that differ from this one in their number of epochs alone."""
    given = HydraConfig.get().launcher.get("siblings")  # by the launcher of a study, which has looked at all trials
    if given is not None:
        return [Path(folder) for folder in given]
    found = families(read_records(record.folder.parent)).get(family(record.fields["config"]), {})
    return [folder for folder, epochs in found.items() if epochs != record.config.epochs]


def _usable(
    last: Path, best: Path, record: TrialRecord, config: DictConfig, hyper_parameters: Mapping[str, Any]
) -> int:
    """The epoch from whose end a trial can begin by a sibling's checkpoints; 0 if it cannot."""
    path = last.parent.parent / "trial.json"
    if not (path.exists() and last.exists() and best.exists()):
        return 0
    try:
        sibling = read_record(path)
        if why_not_from(record.fields, sibling, path) is not None:
            return 0
        saved, saved_best = load_checkpoint(last), load_checkpoint(best)
    except (UnreadableError, DamagedCheckpointError):
        return 0
    epoch, other = int(saved["epoch"]) + 1, int(sibling["config"]["epochs"])
    # One that was killed may have written its best checkpoint, but not yet the last.
    if epoch > config.epochs or saved_best["epoch"] > saved["epoch"] or saved.get("together"):
        return 0
    if plain(saved["hyper_parameters"]) != plain(dict(hyper_parameters)):
        return 0
    agreed, _ = agree(plain(config), config.epochs, other, saved["global_step"] // epoch)
    return epoch if epoch <= agreed else 0


def _copy(source: Path, target: Path) -> None:
    with replacing(target) as temporary:
        shutil.copyfile(source, temporary)
