"""From configs to objects, for training and for loading a checkpoint again."""

import copy
from collections.abc import Sequence
from pathlib import Path

from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from cv_lab.models.weights import fit_state_dict, read_checkpoint
from cv_lab.tasks.base import Task

PARTS = ("task", "model", "loss", "optimizer", "scheduler")


def build_task(config: DictConfig, classes: Sequence[str]) -> Task:
    """Instantiate the task of a composed config for `classes`, with its hyper-parameters as plain Python values."""
    task: Task = instantiate(config.task)(
        model=instantiate(config.model),
        classes=classes,
        loss=instantiate(config.loss),
        optimizer=instantiate(config.optimizer),
        scheduler=instantiate(config.scheduler),
    )
    # Plain values only, so that checkpoints load with weights_only=True.
    parts = OmegaConf.to_container(OmegaConf.masked_copy(resolved(config), list(PARTS)))
    task.save_hyperparameters({"config": parts, "classes": list(classes)})
    return task


def resolved(config: DictConfig) -> DictConfig:
    """A copy of `config` without interpolations."""
    config = copy.deepcopy(config)
    OmegaConf.resolve(config)
    return config


def load_task(checkpoint: str | Path) -> Task:
    """The trained task of a trial's checkpoint, in evaluation mode on the CPU.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is not a checkpoint of this lab.
    """
    saved = read_checkpoint(checkpoint)
    task = build_task(OmegaConf.create(saved["hyper_parameters"]["config"]), saved["hyper_parameters"]["classes"])
    fit_state_dict(task, saved["state_dict"], str(checkpoint))
    return task.eval()
