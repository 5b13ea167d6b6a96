"""From configs to objects, for training and for loading a checkpoint again."""

import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from hydra.utils import get_class, instantiate
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from cv_lab.config import plain
from cv_lab.data.base import ImageData
from cv_lab.data.preprocess import Preprocessing
from cv_lab.labels import ClassCounts
from cv_lab.models.backbones import NetworkFactory, preprocessing_of
from cv_lab.models.weights import fit_state_dict, read_checkpoint, read_state_dict
from cv_lab.tasks.base import Task
from cv_lab.training.class_weights import with_class_weights
from cv_lab.training.optimizers import optimizer_factory
from cv_lab.trial.targets import check_targets

PARTS = ("task", "model", "loss", "optimizer", "scheduler", "weights")


def build_data_and_task(config: DictConfig) -> tuple[ImageData, Task]:
    """Make the data, set up, and the task with the weights that it starts from."""
    model = instantiate(config.model)
    # The network comes first: photographs are decoded at its size.
    preprocessing = preprocessing_of(model, config.weights)
    kind: type[Task] = get_class(config.task._target_)
    data: ImageData = instantiate(config.data, _partial_=True)(
        preprocessing=preprocessing, target=kind.target_with(model)
    )
    data.prepare_data()  # here rather than in fit, since the network needs to know the classes
    data.setup()
    data.refuse_one_class()
    assert data.train is not None
    task = build_task(config, data.classes, model=model, counts=data.train.class_counts)
    # What images outside the data set go through, for predictions from a checkpoint and for trials that start from it.
    preprocessing = data.preprocessing.over(tuple(data.mean), tuple(data.std))
    size = list(data.val.images.shape[2:])
    task.save_hyperparameters({"images": {"size": size, "fit": data.fit}, "preprocessing": preprocessing.describe()})
    return data, task


def fingerprint(config: Any) -> str:
    """The fingerprint of the data that a config names; "" if it cannot be had, which the trial itself tells."""
    try:
        kind: type[Task] = get_class(config["task"]["_target_"])
        # A copy, since Hydra resolves interpolations in place, also in what ${augmentation} refers to.
        data: ImageData = instantiate(plain(config["data"]), _partial_=True)(target=kind.target)
        return data.fingerprint()
    except Exception:  # whatever is wrong with the data is wrong with the trial, which says so where it is recorded
        return ""


def build_task(
    config: DictConfig,
    classes: Sequence[str],
    pretrained: bool = True,
    model: Any = None,
    counts: Callable[[], ClassCounts] | None = None,
) -> Task:
    """Instantiate the task of a composed config for `classes`, with its hyper-parameters as plain Python values.

    Args:
        config: a composed config.
        classes: names of the classes that the data tells apart.
        pretrained: start from ``config.weights``; false leaves the weights random, to be filled from a checkpoint.
        model: what ``config.model`` instantiates to, where that is at hand.
        counts: counts the classes in the training data, for losses that weigh classes; None leaves their weights to a
            checkpoint.
    """
    loss = plain(config.loss)
    model = model or instantiate(config.model)
    make = partial(model, pretrained=config.weights != "none") if isinstance(model, NetworkFactory) else model
    task: Task = instantiate(config.task)(
        model=make,
        classes=classes,
        loss=instantiate(loss and with_class_weights(loss, classes, counts)),
        optimizer=optimizer_factory(plain(config.optimizer)),
        scheduler=instantiate(config.scheduler),
    )
    # A checkpoint may be loaded from another folder.
    weights = config.weights if config.weights in ("none", "default") else os.path.abspath(config.weights)
    if pretrained and weights != "none":
        task.start_from(_weights(model, config), weights)
    # Plain values only, so that checkpoints load with weights_only=True.
    parts = {key: plain(config[key]) for key in PARTS}
    task.save_hyperparameters({"config": parts | {"weights": weights}, "classes": list(classes)})
    return task


def _weights(model: Any, config: DictConfig) -> dict[str, Tensor]:
    """The weights that the config names, for the network that `model` makes."""
    if config.weights != "default":
        state = read_state_dict(config.weights)
    elif isinstance(model, NetworkFactory):
        state = model.default_weights()
    else:
        raise ValueError(
            f"{config.model._target_} has no published weights: give weights=FILE, weights=none, or a network that has "
            "some (model=torchvision, model=timm)"
        )
    return model.adapt(state) if isinstance(model, NetworkFactory) else state


def load_task(checkpoint: str | Path, trusted: Sequence[str] = (), weights: str | Path | None = None) -> Task:
    """The trained task of a trial's checkpoint, in evaluation mode on the CPU, ready for `task.preprocessing(images)`.

    Args:
        checkpoint: the file.
        trusted: further modules whose classes it may name, see :mod:`cv_lab.trial.targets`.
        weights: file of the frozen backbone, for a checkpoint that holds the head alone; None reads it where it lay
            when the trial was trained.

    Raises:
        FileNotFoundError: if there is no such file, or none of the frozen backbone's weights.
        ValueError: if it is not a checkpoint of this lab, is damaged, or would run other code; if `weights` are not
            those that the head was trained on, or the checkpoint needs none.
    """
    saved = read_checkpoint(checkpoint)
    if not {"config", "classes", "images", "preprocessing"} <= saved.get("hyper_parameters", {}).keys():
        raise ValueError(f"{checkpoint} is not a checkpoint of a trial: give its best.ckpt or last.ckpt")
    check_targets(saved["hyper_parameters"]["config"], trusted)
    parts = OmegaConf.create(saved["hyper_parameters"]["config"])
    if weights is not None or "backbone_from" in saved:
        parts.weights = _backbone_file(checkpoint, saved, weights)
    task = build_task(parts, saved["hyper_parameters"]["classes"], pretrained="backbone_from" in saved)
    task.on_load_checkpoint(saved)
    fit_state_dict(task, saved["state_dict"], str(checkpoint))
    task.preprocessing = Preprocessing(**saved["hyper_parameters"]["preprocessing"])
    height, width = saved["hyper_parameters"]["images"]["size"]
    task.image_size = (height, width)
    task.fit = saved["hyper_parameters"]["images"]["fit"]
    return task.eval()


def _backbone_file(checkpoint: str | Path, saved: dict[str, Any], weights: str | Path | None) -> str:
    """The weights of the frozen backbone of `saved`, a checkpoint of its head: a file or "default"."""
    if "backbone_from" not in saved:
        raise ValueError(f"{checkpoint} holds all weights of its network: leave out weights={weights}")
    source = str(weights or saved["backbone_from"])
    if source != "default" and not os.path.isfile(source):
        raise FileNotFoundError(
            f"there is no file of weights {source}: {checkpoint} holds the trained head alone, and its frozen backbone "
            "is read from that file. If it has moved, name it with --weights FILE, in Python weights=FILE"
        )
    return source
