"""Train the linear heads of several trials of a study in one pass over the features that they share.

Trials that differ only in optimizer, schedule, learning rate and weight decay start from the same head and see the same
batches. The first of them trains the heads of all, and keeps the state of each head after each epoch on disk. In place
of training steps, each trial then loads the state of its own head, epoch by epoch.
"""

import hashlib
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from hydra.core.hydra_config import HydraConfig
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning import Trainer
from pytorch_lightning.callbacks import WeightAveraging
from torch import Tensor, nn
from torch.optim import Optimizer

from cv_lab.config import plain
from cv_lab.data.in_memory import train_loader
from cv_lab.data.mapped import cached
from cv_lab.frozen.features import FeatureData
from cv_lab.frozen.heads import HeadEpoch, packed_size, rates_of, train_heads
from cv_lab.frozen.row_optimizers import row_kind
from cv_lab.training.losses import CrossEntropy
from cv_lab.training.optimizers import optimizer_factory

log = logging.getLogger(__name__)
MAX_BYTES = 1 << 28  # on disk, of all heads of a study after all epochs


class SharedHeads:
    """The heads that a trial trains together with those of other trials, its own among them.

    Args:
        points: for each trial the configs of "optimizer" and "scheduler".
        own: index of this trial.
        start: see :func:`~cv_lab.frozen.heads.train_heads`.
        loss: the loss.
        loss_config: its config.
        epochs: number of epochs.
        folder: where the heads are kept.
    """

    def __init__(
        self,
        points: Sequence[dict[str, Any]],
        own: int,
        start: Tensor,
        loss: CrossEntropy,
        loss_config: Any,
        epochs: int,
        folder: Path,
    ) -> None:
        self.points, self.own, self.start, self.epochs, self.folder = points, own, start, epochs, folder
        self.loss, self.loss_config = loss, loss_config
        self.classes, self.width = start.shape

    def __len__(self) -> int:
        return len(self.points)

    def train_or_load(self, features: Callable[[], Tensor], data: FeatureData) -> None:
        """Train all heads, or read them where another trial of the study has trained them.

        Args:
            features: called if heads must be trained; float (N, D), the inputs of the linear layer for the training
                images.
            data: gives labels and batches.
        """
        assert data.train is not None
        all_labels = data.train.labels
        loaders = [
            train_loader(data.train, data.batch_size, data.seed, epoch, sampler=data.sampler)
            for epoch in range(self.epochs)
        ]
        self.steps = len(loaders[0])  # in an epoch
        key = {
            "features": data.key,
            "start": _digest(self.start),
            "samples": _digest(data.train.rows, all_labels),
            "loss": self.loss_config,
            "batches": [data.batch_size, data.seed, self.epochs, self.steps, data.sampler],
            "points": self.points,
        }
        begun = 0.0

        def rows() -> Iterator[Tensor]:
            nonlocal begun
            inputs = features()
            start, labels = self.start.to(inputs.device), all_labels.to(inputs.device)
            optimizers = [new_optimizer(point) for point in self.points]
            schedulers = [instantiate(point["scheduler"]) for point in self.points]
            rates = [rates_of(o, s, self.epochs * self.steps) for o, s in zip(optimizers, schedulers, strict=True)]
            begun = time.perf_counter()
            batches = (torch.tensor(list(loader.batch_sampler)) for loader in loaders)  # type: ignore[arg-type]
            yield from train_heads(start, inputs, labels, batches, self.loss, optimizers, torch.tensor(rates).T)

        shape = (self.epochs * len(self), packed_size(self.classes, self.width))
        kept = cached(
            self.folder / "heads", key, shape, torch.float32, rows, lambda: {"seconds": time.perf_counter() - begun}
        )
        self.packed, self.seconds, self.computed = kept.tensor, kept.facts["seconds"], kept.computed
        if kept.computed:
            log.info("%s heads of this study trained together in %.1f s", len(self), self.seconds)
        else:
            log.info("%s heads of this study read, which another trial trained in %.1f s", len(self), self.seconds)

    def epoch(self, number: int) -> HeadEpoch:
        """This trial's head after epoch `number`, counted from 0."""
        return HeadEpoch.unpack(self.packed[number * len(self) + self.own], self.classes, self.width)


def shared_heads(linear: nn.Linear, loss: nn.Module, trainer: Trainer, config: DictConfig) -> SharedHeads | None:
    """Return the heads to train together with the trial's own; None, with the reason logged, if that cannot be done.

    Args:
        linear: the head, with the weights that it starts from.
        loss: the loss.
        trainer: of the trial.
        config: of the trial; the launcher wrote the differences of the other trials to ``hydra.launcher.together``.
    """
    points = OmegaConf.to_container(OmegaConf.create(HydraConfig.get().launcher.get("together", [])))
    assert isinstance(points, list)
    if len(points) < 2:
        return None
    own = points[0]
    points = [point for point in points if row_kind(new_optimizer(point)) is not None]
    size = config.epochs * len(points) * packed_size(linear.out_features, linear.in_features + 1) * 4
    why_not: str | None
    if size > MAX_BYTES:
        why_not = f"all of them would take {size / 1e6:.0f} MB on disk"
    elif own not in points:
        why_not = f"{own['optimizer']['_target_']} with these options cannot train several heads at once"
    elif config.trainer.compile:
        why_not = "the network is compiled"
    else:
        why_not = _why_not(trainer)
    if not isinstance(loss, CrossEntropy):
        why_not = f"{type(loss).__name__} cannot train several heads at once"
    elif why_not is None:
        points.sort(key=str)  # all trials ask for the same file
        start = torch.cat([linear.weight, linear.bias[:, None]], dim=1).detach().clone()
        folder = Path(config.cache_dir)
        return SharedHeads(points, points.index(own), start, loss, plain(config.loss), config.epochs, folder)
    log.info("this head is trained apart from the others of the study: %s", why_not)
    return None


def new_optimizer(point: dict[str, Any]) -> Optimizer:
    """Make the optimizer of a trial over a weight and a bias that serve only to hold its options.

    It has a second group, for the bias, if biases do not decay.
    """
    weight, bias = nn.Parameter(torch.zeros(1, 1)), nn.Parameter(torch.zeros(1))
    return optimizer_factory(point["optimizer"])([{"params": [weight, bias]}])


def _why_not(trainer: Trainer) -> str | None:
    """Return why several heads cannot be trained at once as this trainer trains one; None if they can."""
    if trainer.precision != "32-true":
        return f"precision={trainer.precision}, but they are trained in 32-true"
    if trainer.gradient_clip_val or trainer.accumulate_grad_batches != 1:
        return "gradients are clipped or accumulated"
    if trainer.limit_train_batches != 1.0 or trainer.max_steps != -1:
        return "the trainer limits its batches or steps"
    if trainer.world_size > 1:
        return "it trains on several devices"
    if any(isinstance(callback, WeightAveraging) for callback in trainer.callbacks):  # type: ignore[attr-defined]
        return "its weights are averaged"
    return None


def _digest(*tensors: Tensor) -> str:
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(tensor.cpu().contiguous().numpy().data)
    return digest.hexdigest()
