"""Train several linear heads on the same batches of features at once.

The heads are stacked, so that a step is one matrix product for all of them, and one update for all whose optimizers are
of one class.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.optim import Optimizer

from cv_lab.frozen.row_optimizers import row_kind
from cv_lab.training.losses import CrossEntropy


@dataclass(frozen=True)
class HeadEpoch:
    """State and statistics of one head after an epoch.

    Attributes:
        weight: float (K, D + 1), the bias last.
        counts: int64 (K, K), confusion matrix of the training batches; rows are the truth.
        first_loss: loss of the first batch.
        loss: mean loss of all batches.
        lr: learning rate at the end.
        failed_step: first step, counted from 1 over all epochs, whose loss is NaN or infinite; 0 if there is none.
    """

    weight: Tensor
    counts: Tensor
    first_loss: Tensor
    loss: Tensor
    lr: float
    failed_step: int

    @staticmethod
    def unpack(packed: Tensor, classes: int, width: int) -> "HeadEpoch":
        """Unpack one row, float (L,), of what :func:`train_heads` yields."""
        weight, counts, (first_loss, loss, lr, failed_step) = packed.split([classes * width, classes**2, 4])
        counts = counts.view(classes, classes).long()
        return HeadEpoch(weight.view(classes, width), counts, first_loss, loss, lr.item(), int(failed_step))


def packed_size(classes: int, width: int) -> int:
    """Number of values in a packed :class:`HeadEpoch`."""
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
        start: float (K, D + 1), the weight and the bias that all of them start from.
        features: float (N, D).
        labels: int64 (N,).
        epochs: for each epoch the samples of its batches, int64 (steps, B).
        loss: of logits (B, K) and labels (B,).
        optimizers: one for each head, of a kind that :func:`~cv_lab.frozen.row_optimizers.row_kind` knows. Their
            options are used, their parameters are not; a second group of parameters marks a bias that does not decay.
        rates: float (all steps + 1, H), the learning rate at each step and after the last.

    Yields:
        For each epoch float (H, L), a packed :class:`HeadEpoch` for each head.
    """
    heads, (classes, width) = len(optimizers), start.shape
    inputs = torch.cat([features, features.new_ones(len(features), 1)], dim=1)
    kinds = [row_kind(optimizer) for optimizer in optimizers]
    order = sorted(range(heads), key=lambda head: str(kinds[head]))  # neighbouring rows for one kind
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
        figures = torch.stack([table[0], table.double().mean(0).float(), rates[step, :, 0], failed], dim=1)
        yield torch.cat([rows, counts, figures], dim=1).cpu()[back]


def _decaying(spared: Sequence[bool], like: Tensor) -> Tensor | float:
    """Factor of weight decay, float (H, M): 1, but 0 for the biases of those heads whose bias is `spared`."""
    if not any(spared):
        return 1.0
    decaying = like.new_ones(len(spared), *like.shape)
    decaying[:, :, -1] = 1 - like.new_tensor(spared)[:, None]
    return decaying.flatten(1)


def _slopes_and_losses(logits: Tensor, labels: Tensor, loss: CrossEntropy) -> tuple[Tensor, Tensor]:
    """The gradient by the logits, both (B, H, K), and the loss of each head, (H,), in one call of torch."""
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
    """The learning rate at each of `steps` steps and after the last."""
    group = optimizer.param_groups[0]
    if scheduler is None:
        return [group["lr"]] * (steps + 1)
    schedule = scheduler(optimizer, total_steps=steps)
    rates = [group["lr"]]
    optimizer.step()  # changes nothing without gradients; without it the schedule warns that it is stepped first
    for _ in range(steps):
        schedule.step()
        rates.append(group["lr"])
    return rates
