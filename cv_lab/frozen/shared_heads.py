"""Whether a trial's head can be trained together with those of its study's other trials."""

import logging
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning import Trainer
from pytorch_lightning.callbacks import WeightAveraging

from cv_lab.config import plain
from cv_lab.data.base import ImageData
from cv_lab.frozen.features import FeatureData
from cv_lab.frozen.heads import Heads, new_optimizer, packed_size
from cv_lab.frozen.row_optimizers import row_kind
from cv_lab.training.losses import CrossEntropy

if TYPE_CHECKING:
    from cv_lab.tasks.linear_probing import LinearProbing

log = logging.getLogger(__name__)
LARGEST = 1 << 28  # bytes that the heads of a study may take on disk


def share_heads(task: "LinearProbing", data: ImageData, trainer: Trainer, config: DictConfig) -> None:
    """Let `task` train its head together with those of its study's other trials, where that can be done.

    Args:
        task: with the weights that it starts from.
        data: gives features in place of images, or else nothing is done.
        trainer: the trial's.
        config: the trial's; the launcher has written what others differ in to ``hydra.launcher.together``.
    """
    points = OmegaConf.to_container(OmegaConf.create(HydraConfig.get().launcher.get("together", [])))
    assert isinstance(points, list)
    if not isinstance(data, FeatureData) or len(points) < 2:
        return
    own = points[0]
    points = [point for point in points if row_kind(new_optimizer(point)) is not None]
    why_not = "the network is compiled" if config.trainer.compile else _why_not(trainer)
    if not isinstance(task.loss, CrossEntropy):
        why_not = f"{type(task.loss).__name__} is not among the losses that can be computed for several"
    if own not in points:
        why_not = f"{own['optimizer']['_target_']} with its options is not among those that can be computed for several"
    linear = task.linear
    size = config.epochs * len(points) * packed_size(linear.out_features, linear.in_features + 1) * 4
    if size > LARGEST:
        why_not = f"that would take {size / 1e6:.0f} MB"
    if why_not is not None:
        log.info("this head is trained apart from the others of the study: %s", why_not)
        return
    points.sort(key=str)  # all trials ask for the same file
    start = torch.cat([linear.weight, linear.bias[:, None]], dim=1).detach().clone()
    loss = plain(config.loss)
    task.share(Heads(points, points.index(own), start, loss, config.epochs, Path(config.cache_dir)))
    data.whole_epochs = True


def _why_not(trainer: Trainer) -> str | None:
    """Why what the trainer does in a step cannot be done for several heads; None if it can."""
    if trainer.precision != "32-true":
        return f"precision={trainer.precision} (32-true would do)"
    if trainer.gradient_clip_val or trainer.accumulate_grad_batches != 1:
        return "gradients are clipped or accumulated"
    if trainer.limit_train_batches != 1.0 or trainer.max_steps != -1:
        return "epochs are cut short"
    if trainer.world_size > 1:
        return "it has several devices"
    if any(isinstance(callback, WeightAveraging) for callback in trainer.callbacks):  # type: ignore[attr-defined]
        return "its weights are averaged"
    return None
