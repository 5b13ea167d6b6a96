"""Linear heads of several trials, trained in one pass over the features that they share.

Trials that differ in optimizer, schedule, learning rate and weight decay alone start from the same head and see the
same batches. Their heads are stacked, so that a step is one matrix product for all of them, and one update for all
whose optimizers are of one kind. What came of each head in each epoch is kept on disk, and each trial then goes
through its epochs with what it finds there in place of training steps.
"""

import hashlib
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from hydra.utils import instantiate
from torch import Tensor, nn
from torch.optim import Optimizer

from cv_lab.data.in_memory import train_loader
from cv_lab.data.mapped import find_or_compute
from cv_lab.frozen.features import FeatureData
from cv_lab.frozen.row_optimizers import row_kind
from cv_lab.training.losses import CrossEntropy
from cv_lab.training.optimizers import optimizer_factory

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class HeadEpoch:
    """What an epoch made of one head.

    Attributes:
        weight: float (K, D + 1), the bias last.
        counts: int64 (K, K), the training batches' confusion matrix, rows being the truth.
        first_loss: of its first batch.
        loss: mean over its batches.
        lr: learning rate at its end.
        failed_step: first step, counted from 1 over all epochs, with a loss that is no finite number; 0 for none.
    """

    weight: Tensor
    counts: Tensor
    first_loss: Tensor
    loss: Tensor
    lr: float
    failed_step: int

    @staticmethod
    def unpack(packed: Tensor, classes: int, width: int) -> "HeadEpoch":
        """From what :func:`train_heads` yields for one head, float (L,)."""
        weight, counts, (first_loss, loss, lr, failed_step) = packed.split([classes * width, classes**2, 4])
        counts = counts.view(classes, classes).long()
        return HeadEpoch(weight.view(classes, width), counts, first_loss, loss, lr.item(), int(failed_step))


def packed_size(classes: int, width: int) -> int:
    """Numbers in a packed :class:`HeadEpoch`."""
    return classes * width + classes**2 + 4


def train_heads(
    start: Tensor,
    features: Tensor,
    labels: Tensor,
    epochs: Iterator[Tensor],
    loss: CrossEntropy,
    optimizers: Sequence[Optimizer],
    rates: Tensor,
) -> Iterator[Tensor]:
    """Train H linear heads on the same batches.

    Args:
        start: float (K, D + 1), weight and bias of all of them.
        features: float (N, D).
        labels: int64 (N,).
        epochs: the samples of each batch of each epoch, int64 (steps, B).
        loss: of logits (B, K) and labels (B,).
        optimizers: H, see :func:`new_optimizer`, with options that
            :func:`~cv_lab.frozen.row_optimizers.row_kind` knows.
        rates: float (all steps + 1, H), the learning rate before each step, and after the last.

    Yields:
        for each epoch float (H, L), a packed :class:`HeadEpoch` for each head.
    """
    heads, (classes, width) = len(optimizers), start.shape
    inputs = torch.cat([features, features.new_ones(len(features), 1)], dim=1)
    kinds = [row_kind(optimizer) for optimizer in optimizers]
    order = sorted(range(heads), key=lambda head: str(kinds[head]))  # those of one kind in neighbouring rows
    weights = start.repeat(heads, 1, 1)
    rows, matrix = weights.view(heads, -1), weights.view(-1, width)
    updates, begin = [], 0
    for kind, group in groupby(order, key=kinds.__getitem__):
        assert kind is not None
        groups = [optimizers[head].param_groups for head in group]
        part = slice(begin, begin + len(groups))
        decaying = _decaying([len(its) > 1 for its in groups], start)
        updates.append((part, kind([its[0] for its in groups], rows[part], decaying)))
        begin = part.stop
    rates = rates[:, order].to(start).unsqueeze(2)
    offsets = torch.arange(heads, device=start.device) * classes**2
    back = torch.tensor(order).argsort()
    failed = torch.zeros(heads, device=start.device)
    step = 0
    for batches in epochs:
        losses, pairs = [], []
        for index in batches.to(start.device):
            x, y = inputs[index], labels[index]
            logits = (x @ matrix.T).view(len(x), heads, classes)
            slopes, values = _slopes_and_losses(logits, y, loss)
            gradient = (slopes.reshape(len(x), -1).T @ x).view(heads, -1)
            for part, update in updates:
                update.step(rows[part], gradient[part], rates[step, part])
            step += 1
            losses.append(values)
            pairs.append((y * classes).unsqueeze(1) + logits.detach().argmax(2) + offsets)
        counts = torch.bincount(torch.cat(pairs).flatten(), minlength=heads * classes**2).view(heads, -1)
        table = torch.stack(losses)  # (steps, H)
        wrong = ~table.isfinite()
        first = step - len(table) + 1 + wrong.int().argmax(0)
        failed = torch.where((failed == 0) & wrong.any(0), first, failed)
        told = torch.stack([table[0], table.double().mean(0).float(), rates[step, :, 0], failed], dim=1)
        yield torch.cat([rows, counts, told], dim=1).cpu()[back]


def _decaying(spared: Sequence[bool], like: Tensor) -> Tensor | float:
    """Where weight decay applies, float (H, M): 1, but 0 for the biases of heads that are `spared`."""
    if not any(spared):
        return 1.0
    decaying = like.new_ones(len(spared), *like.shape)
    decaying[:, :, -1] = 1 - like.new_tensor(spared)[:, None]
    return decaying.flatten(1)


def _slopes_and_losses(logits: Tensor, labels: Tensor, loss: CrossEntropy) -> tuple[Tensor, Tensor]:
    """The gradient by the logits, both (B, H, K), and the loss of each head, (H,), in one call of torch for all."""
    heads = logits.shape[1]
    logits.requires_grad_()
    losses = F.cross_entropy(
        logits.flatten(0, 1),
        labels.repeat_interleave(heads),
        loss.weight,
        reduction="none",
        label_smoothing=loss.label_smoothing,
    )
    total = len(labels) if loss.weight is None else loss.weight[labels].sum()
    values = losses.view(-1, heads).sum(0) / total
    (slopes,) = torch.autograd.grad(values.sum(), logits)
    return slopes, values.detach()


def rates_of(optimizer: Optimizer, scheduler: Any, steps: int) -> list[float]:
    """The learning rate before each of `steps` steps, and after the last."""
    group = optimizer.param_groups[0]
    if scheduler is None:
        return [group["lr"]] * (steps + 1)
    schedule = scheduler(optimizer, total_steps=steps)
    rates = [group["lr"]]
    optimizer.step()  # of parameters without gradients; else the schedule warns that it is stepped first
    for _ in range(steps):
        schedule.step()
        rates.append(group["lr"])
    return rates


class Heads:
    """The heads that a trial trains together with those of its study's others, its own among them.

    Args:
        points: of each trial the configs of "optimizer" and "scheduler".
        own: which of them is this trial's.
        start: see :func:`train_heads`.
        loss: the config of the loss.
        epochs: how many.
        folder: where the heads are kept.
    """

    def __init__(
        self, points: Sequence[dict[str, Any]], own: int, start: Tensor, loss: Any, epochs: int, folder: Path
    ) -> None:
        self.points, self.own, self.start, self.epochs, self.folder = points, own, start, epochs, folder
        self.loss = loss
        self.classes, self.width = start.shape

    def __len__(self) -> int:
        return len(self.points)

    def train_or_find(self, features: Callable[[], Tensor], data: FeatureData, loss: CrossEntropy) -> None:
        """Have all epochs of all heads, computed now or by another trial of the study.

        Args:
            features: called if heads must be trained; float (N, D), of the training images, as the linear layer gets
                them.
            data: gives labels and batches.
            loss: see :func:`train_heads`.
        """
        assert data.train is not None
        epochs, all_labels = self.epochs, data.train.labels
        loaders = [train_loader(data.train, data.batch_size, data.seed, epoch) for epoch in range(epochs)]
        self.steps = len(loaders[0])  # in an epoch
        key = {
            "features": data.key,
            "start": _digest(self.start),
            "samples": _digest(data.train.rows, all_labels),
            "loss": self.loss,
            "batches": [data.batch_size, data.seed, epochs, self.steps],
            "points": self.points,
        }
        name = hashlib.sha256(repr(sorted(key.items())).encode()).hexdigest()[:24]
        begun = 0.0

        def rows() -> Iterator[Tensor]:
            nonlocal begun
            inputs = features()
            start, labels = self.start.to(inputs.device), all_labels.to(inputs.device)
            optimizers = [new_optimizer(point) for point in self.points]
            schedulers = [instantiate(point["scheduler"]) for point in self.points]
            rates = [rates_of(o, s, epochs * self.steps) for o, s in zip(optimizers, schedulers, strict=True)]
            begun = time.perf_counter()
            batches = (torch.tensor(list(loader.batch_sampler)) for loader in loaders)  # type: ignore[arg-type]
            yield from train_heads(start, inputs, labels, batches, loss, optimizers, torch.tensor(rates).T)

        shape = (epochs * len(self), packed_size(self.classes, self.width))
        found = find_or_compute(
            self.folder / "heads" / f"{name}.safetensors",
            key,
            shape,
            torch.float32,
            rows,
            lambda: {"seconds": time.perf_counter() - begun},
        )
        self.packed, self.seconds, self.computed = found.tensor, found.facts["seconds"], found.computed
        how = "trained" if found.computed else "found, which were trained"
        log.info("%s heads of this study %s together in %.1f s", len(self), how, self.seconds)

    def epoch(self, number: int) -> HeadEpoch:
        """What epoch `number`, from 0, made of this trial's head."""
        return HeadEpoch.unpack(self.packed[number * len(self) + self.own], self.classes, self.width)


def new_optimizer(point: dict[str, Any]) -> Optimizer:
    """The optimizer of a trial, over a weight and a bias that nobody uses: it carries the options.

    It has a second group, for the bias, where that does not decay.
    """
    weight, bias = nn.Parameter(torch.zeros(1, 1)), nn.Parameter(torch.zeros(1))
    return optimizer_factory(point["optimizer"])([{"params": [weight, bias]}])


def _digest(*tensors: Tensor) -> str:
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(tensor.cpu().contiguous().numpy().data)
    return digest.hexdigest()
