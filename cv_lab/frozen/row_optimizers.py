"""Optimizers of many small networks at once: each row of one matrix holds the parameters of one of them.

Each computes what the optimizer of its name in ``torch.optim`` does, elementwise over all rows, with hyper-parameters
that differ by row. One optimizer of torch for each kind, with a parameter group for each head, would take every kind
and option, but updates group by group: a step of 9 heads then takes 1.5 times the CPU time and one of 45 heads 1.6
times (100 steps over 512 features and 10 classes, one thread), and the kernels that a GPU launches grow with the heads.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import SGD, Adam, AdamW, Optimizer, RMSprop


class RowOptimizer(ABC):
    """An update of parameters, float (R, M), in place.

    Args:
        groups: for each row the parameter group of the optimizer that it replaces.
        like: tensor whose shape and device the optimizer state copies, float (R, M).
        decaying: 1 for parameters that decay and 0 for others, float (R, M); by default all decay.
    """

    unsupported: tuple[str, ...] = ("maximize", "differentiable")  # options that must not be set

    def __init__(self, groups: Sequence[Mapping[str, Any]], like: Tensor, decaying: Tensor | float = 1.0) -> None:
        self.groups, self.like = groups, like
        self.weight_decay = self.column("weight_decay") * decaying

    def column(self, option: str) -> Tensor:
        """The value of an option for each row, float (R, 1)."""
        return self.like.new_tensor([[float(group[option])] for group in self.groups])

    @abstractmethod
    def step(self, parameters: Tensor, gradients: Tensor, lr: Tensor) -> None:
        """Update `parameters` by `gradients`, both float (R, M), with learning rates `lr`, float (R, 1)."""


class RowSGD(RowOptimizer):
    """``torch.optim.SGD``, with momentum, plain or Nesterov's."""

    unsupported = (*RowOptimizer.unsupported, "dampening")

    def __init__(self, groups: Sequence[Mapping[str, Any]], like: Tensor, decaying: Tensor | float = 1.0) -> None:
        super().__init__(groups, like, decaying)
        self.momentum, self.nesterov = self.column("momentum"), self.column("nesterov")
        self.buffer = torch.zeros_like(like)

    def step(self, parameters: Tensor, gradients: Tensor, lr: Tensor) -> None:
        gradients = gradients + self.weight_decay * parameters
        self.buffer.mul_(self.momentum).add_(gradients)
        ahead = self.momentum * self.buffer + gradients
        parameters -= lr * torch.where(self.nesterov > 0, ahead, self.buffer)


class RowAdam(RowOptimizer):
    """``torch.optim.Adam`` and ``AdamW``."""

    unsupported = (*RowOptimizer.unsupported, "amsgrad")

    def __init__(self, groups: Sequence[Mapping[str, Any]], like: Tensor, decaying: Tensor | float = 1.0) -> None:
        super().__init__(groups, like, decaying)
        betas = torch.tensor([group["betas"] for group in groups], dtype=torch.float64, device=like.device)
        self.betas = betas.unsqueeze(2).unbind(1)  # twice (R, 1), double as torch computes its corrections
        self.beta1, self.beta2 = (beta.to(like) for beta in self.betas)
        self.eps = self.column("eps")
        decoupled = self.column("decoupled_weight_decay")
        self.decay, self.penalty = self.weight_decay * decoupled, self.weight_decay * (1 - decoupled)
        self.first, self.second = torch.zeros_like(like), torch.zeros_like(like)
        self.steps = 0

    def step(self, parameters: Tensor, gradients: Tensor, lr: Tensor) -> None:
        self.steps += 1
        gradients = gradients + self.penalty * parameters
        parameters *= 1 - lr * self.decay
        self.first.lerp_(gradients, 1 - self.beta1)
        self.second.mul_(self.beta2).addcmul_(gradients * (1 - self.beta2), gradients)
        correction1, correction2 = (1 - beta**self.steps for beta in self.betas)
        denominator = (self.second.sqrt() / correction2.sqrt().to(parameters)).add_(self.eps)
        parameters -= (lr / correction1.to(parameters)) * self.first / denominator


class RowRMSprop(RowOptimizer):
    """``torch.optim.RMSprop``, with or without momentum."""

    unsupported = (*RowOptimizer.unsupported, "centered")

    def __init__(self, groups: Sequence[Mapping[str, Any]], like: Tensor, decaying: Tensor | float = 1.0) -> None:
        super().__init__(groups, like, decaying)
        self.alpha, self.eps, self.momentum = self.column("alpha"), self.column("eps"), self.column("momentum")
        self.square, self.buffer = torch.zeros_like(like), torch.zeros_like(like)

    def step(self, parameters: Tensor, gradients: Tensor, lr: Tensor) -> None:
        gradients = gradients + self.weight_decay * parameters
        self.square.mul_(self.alpha).addcmul_(gradients * (1 - self.alpha), gradients)
        self.buffer.mul_(self.momentum).add_(gradients / self.square.sqrt().add_(self.eps))
        parameters -= lr * self.buffer


_KINDS: dict[type[Optimizer], type[RowOptimizer]] = {
    SGD: RowSGD,
    Adam: RowAdam,
    AdamW: RowAdam,
    RMSprop: RowRMSprop,
}


def row_kind(optimizer: Optimizer) -> type[RowOptimizer] | None:
    """The class that computes by row what `optimizer` computes; None if there is none for its class and options."""
    kind = _KINDS.get(type(optimizer))
    group = optimizer.param_groups[0]
    return None if kind is None or any(group[option] for option in kind.unsupported) else kind
